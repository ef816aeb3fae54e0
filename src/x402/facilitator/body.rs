//! What `/verify` and `/settle` are sent.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::pricing::{Atomic, Transfer};
use crate::x402::json::RawObject;
use crate::x402::payment::{Dialect, Payload, Payment};
use crate::x402::{Payable, Resource};

/// Which versions a facilitator speaks for an offer, by its `/supported`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaks {
    /// v1, with networks by name.
    pub v1: bool,
    /// v2.
    pub v2: bool,
}

/// A payment that cannot be put into words that the facilitator knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// v2 has no words for the offer, or plain headers do not fit it.
    NotExpressible,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceInfo<'a> {
    url: &'a str,
    description: &'a str,
    mime_type: &'a str,
}

/// The body of `/verify`, and of `/settle` over what is actually charged.
///
/// v2 payments go as they came, and plain headers as the v2 payment they stand for. v1 payments and LibertAI's go as v1, with v1
/// network names and v1 requirements; as v2 if that is all the facilitator speaks, for the signature is the same.
/// Fields that this filter does not know are passed on as they came.
///
/// `amount` is the offer's for `/verify` and for `exact`, and the actual one when `upto` is settled.
///
/// # Errors
///
/// [`BodyError`] if the payment was not made for this kind of offer.
pub fn verify_or_settle_body(
    payment: &Payment,
    payable: &Payable<'_>,
    resource: &Resource<'_>,
    amount: Atomic,
    speaks: Speaks,
) -> Result<Vec<u8>, BodyError> {
    let permit = matches!(payable.offer.transfer, Transfer::Permit { .. });
    let convert = speaks.v2 && !speaks.v1 && !permit;
    let wire = match payment.dialect {
        Dialect::V2 => v2(&payment.text, payable, amount),
        Dialect::Plain => plain(payment, payable, resource, amount),
        Dialect::V1 | Dialect::LibertAi if convert => converted(payment, payable, resource, amount),
        Dialect::V1 | Dialect::LibertAi => v1(payment, payable, resource, amount),
    };
    wire.ok_or(BodyError::NotExpressible)
}

fn v2(payload: &str, payable: &Payable<'_>, amount: Atomic) -> Option<Vec<u8>> {
    body("2", payload, &payable.v2_for(amount)?)
}

/// ```json
/// {"x402Version": 2, "paymentPayload": {}, "paymentRequirements": {}}
/// ```
///
/// `payload`: a JSON text, which goes as it is.
fn body(version: &str, payload: &str, requirements: &impl Serialize) -> Option<Vec<u8>> {
    let requirements = serde_json::to_string(requirements).ok()?;
    let parts = [
        r#"{"x402Version":"#,
        version,
        r#","paymentPayload":"#,
        payload,
        r#","paymentRequirements":"#,
        &requirements,
        "}",
    ];
    Some(parts.concat().into_bytes())
}

fn v1(payment: &Payment, payable: &Payable<'_>, resource: &Resource<'_>, amount: Atomic) -> Option<Vec<u8>> {
    let mut payload = RawObject::read(&payment.text)?;
    payload.set("x402Version", to_raw_value(&1).ok()?);
    payload.set("network", to_raw_value(payable.offer.asset.network.v1_name()).ok()?);
    body("1", &serde_json::to_string(&payload).ok()?, &payable.v1_for(amount, resource))
}

/// A v1 payment as v2 would have it: scheme and network move into `accepted`.
fn converted(payment: &Payment, payable: &Payable<'_>, resource: &Resource<'_>, amount: Atomic) -> Option<Vec<u8>> {
    let mut payload = RawObject::read(&payment.text)?;
    payload.take("scheme");
    payload.take("network");
    payload.set("x402Version", to_raw_value(&2).ok()?);
    payload.set("resource", info(resource)?);
    payload.set("accepted", to_raw_value(&payable.v2()?).ok()?);
    v2(&serde_json::to_string(&payload).ok()?, payable, amount)
}

/// Plain headers as the v2 payment that they stand for.
fn plain(payment: &Payment, payable: &Payable<'_>, resource: &Resource<'_>, amount: Atomic) -> Option<Vec<u8>> {
    let Payload::Plain { signature_text, .. } = &payment.payload else {
        return None;
    };
    let (signed, _) = payment.payload.authorization(payable.offer)?;
    let payload = serde_json::json!({
        "signature": signature_text,
        "authorization": {
            "from": signed.from.to_string(),
            "to": signed.to.to_string(),
            "value": signed.value.to_string(),
            "validAfter": signed.valid_after.to_string(),
            "validBefore": signed.valid_before.to_string(),
            "nonce": signed.nonce.to_string(),
        },
    });
    let whole = RawObject(vec![
        ("x402Version".to_owned(), to_raw_value(&2).ok()?),
        ("resource".to_owned(), info(resource)?),
        ("accepted".to_owned(), to_raw_value(&payable.v2()?).ok()?),
        ("payload".to_owned(), to_raw_value(&payload).ok()?),
    ]);
    v2(&serde_json::to_string(&whole).ok()?, payable, amount)
}

fn info(resource: &Resource<'_>) -> Option<Box<RawValue>> {
    to_raw_value(&ResourceInfo {
        url: resource.url,
        description: resource.description,
        mime_type: resource.mime_type,
    })
    .ok()
}
