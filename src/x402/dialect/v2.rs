//! v2: `PAYMENT-SIGNATURE` with base64 JSON. Source: x402 v2, HTTP transport and "PaymentPayload".

use serde_json::{Map, Value};

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
pub(super) fn payment(text: String, object: &Map<String, Value>) -> Result<Payment, PaymentError> {
    let fields = Fields::new("", object);
    let accepted = fields.object("accepted")?;
    let scheme = accepted.text("scheme")?;
    let network = accepted.network("network")?;
    let resource_url = match object.get("resource") {
        None | Some(Value::Null) => None,
        Some(Value::Object(resource)) => Some(Fields::new("resource.", resource).text("url")?.to_owned()),
        Some(_) => return Err(PaymentError::payload("resource must be an object with a url")),
    };
    let extensions = match object.get("extensions") {
        None | Some(Value::Null) => None,
        Some(Value::Object(extensions)) => Some(extensions.clone()),
        Some(_) => return Err(PaymentError::payload("extensions must be an object")),
    };
    Ok(Payment {
        dialect: Dialect::V2,
        scheme: scheme.into(),
        payload: fields.object("payload")?.payload(&network)?,
        network: Some(network),
        accepted: object.get("accepted").cloned(),
        resource_url,
        extensions,
        terms: None,
        text: text.into(),
    })
}
