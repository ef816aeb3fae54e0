//! v2: `PAYMENT-SIGNATURE` with base64 JSON. Source: x402 v2, HTTP transport and "PaymentPayload".

use super::super::json::{Json, Object};
use super::super::payment::{Dialect, Payment, PaymentError};
use super::fields::Fields;

/// Reads a payment of v2.
///
/// ```json
/// {"x402Version": 2, "resource": {"url": "http://127.0.0.1:4121/exact"},
///  "accepted": {"scheme": "exact", "network": "eip155:84532", "amount": "1000", "asset": "0x…", "payTo": "0x…",
///               "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"}},
///  "payload": {"signature": "0x…", "authorization": {}}, "extensions": {}}
/// ```
pub(super) fn payment(mut object: Object<'_>) -> Result<Payment, PaymentError> {
    let fields = Fields::new(&object);
    let accepted = fields.object("accepted")?;
    let scheme = accepted.text("scheme")?.into();
    let network = accepted.network("network")?;
    let resource_url = match object.get("resource") {
        None | Some(Json::Null) => None,
        Some(Json::Object(_)) => Some(fields.object("resource")?.text("url")?.to_owned()),
        Some(_) => return Err(PaymentError::payload("resource must be an object with a url")),
    };
    if fields.has("extensions") && object.get("extensions").and_then(Json::object).is_none() {
        return Err(PaymentError::payload("extensions must be an object"));
    }
    let payload = fields.object("payload")?.payload(&network)?;
    let extensions = match object.take("extensions") {
        Some(Json::Object(extensions)) => Some(extensions.into_owned()),
        _ => None,
    };
    Ok(Payment {
        dialect: Dialect::V2,
        scheme,
        payload,
        network: Some(network),
        accepted: object.take("accepted").map(Json::into_owned),
        resource_url,
        extensions,
        terms: None,
        text: Box::default(),
    })
}
