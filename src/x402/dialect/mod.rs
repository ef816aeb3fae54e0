//! Dialects: from headers to a [`Payment`], each with its own rules.

mod fields;
mod libertai;
mod plain;
mod v1;
mod v2;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::Refusal;
use super::json;
use super::payment::{MAX_PAYMENT_HEADER, Payment, PaymentError};
use fields::Fields;

/// With or without padding, and whatever the unused bits of the last digit are.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// See [`super::decode`].
pub(super) fn decode<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Option<Payment>, PaymentError> {
    let mut v2 = None;
    let mut v1 = None;
    let mut plain = plain::Headers::default();
    for (name, value) in headers {
        if !is_payment_header(name) {
            continue;
        }
        let value = text(name, value)?;
        if value.is_empty() {
            continue;
        }
        match name {
            b"payment-signature" => once(&mut v2, value, "PAYMENT-SIGNATURE")?,
            b"x-payment" => once(&mut v1, value, "X-PAYMENT")?,
            _ => plain.take(name, value)?,
        }
    }
    match (v2, v1, plain.signature()) {
        (None, None, None) => Ok(None),
        (Some(value), None, None) => from_payment_signature(value).map(Some),
        (None, Some(value), None) => from_x_payment(value).map(Some),
        (None, None, Some(signature)) => plain.payment(signature).map(Some),
        _ => Err(PaymentError::payload(
            "more than one payment was sent: send PAYMENT-SIGNATURE, X-PAYMENT or X-Payment-Signature, and only one of them",
        )),
    }
}

/// Reads a value that clients send in base64, with or without padding, in the standard or the URL alphabet.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .bytes()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

fn is_payment_header(name: &[u8]) -> bool {
    name == b"payment-signature" || name == b"x-payment" || plain::Headers::knows(name)
}

fn text<'a>(name: &[u8], value: &'a [u8]) -> Result<&'a str, PaymentError> {
    let name = String::from_utf8_lossy(name);
    if value.len() > MAX_PAYMENT_HEADER {
        return Err(PaymentError::payload(format!("the {name} header is longer than 16384 bytes")));
    }
    if !value.is_ascii() {
        return Err(PaymentError::payload(format!("the {name} header holds bytes that are not ASCII")));
    }
    core::str::from_utf8(value)
        .map(str::trim)
        .map_err(|_| PaymentError::payload(format!("the {name} header is not text")))
}

fn once<'a>(slot: &mut Option<&'a str>, value: &'a str, name: &str) -> Result<(), PaymentError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(PaymentError::payload(format!(
            "the {name} header was sent more than once: send one payment"
        ))),
    }
}

fn from_payment_signature(value: &str) -> Result<Payment, PaymentError> {
    let (text, object) = encoded_object(value, "PAYMENT-SIGNATURE")?;
    match version(&object)? {
        2 => v2::payment(text, &object),
        _ => Err(PaymentError::payload(
            "PAYMENT-SIGNATURE takes x402Version 2: send a payment of x402Version 1 in X-PAYMENT",
        )),
    }
}

fn from_x_payment(value: &str) -> Result<Payment, PaymentError> {
    if value.starts_with('{') {
        let object = object(value.as_bytes(), "X-PAYMENT")?;
        version(&object)?;
        return libertai::payment(value.to_owned(), &object);
    }
    let (text, object) = encoded_object(value, "X-PAYMENT")?;
    match version(&object)? {
        1 => v1::payment(text, &object),
        // Shapes tell more than versions: LibertAI's form in base64 is still LibertAI's.
        _ if !object.contains_key("accepted") => libertai::payment(text, &object),
        _ => Err(PaymentError::payload(
            "X-PAYMENT takes x402Version 1: send a payment of x402Version 2 in PAYMENT-SIGNATURE",
        )),
    }
}

fn encoded_object(value: &str, header: &str) -> Result<(String, Map<String, Value>), PaymentError> {
    let bytes = base64(value).ok_or_else(|| PaymentError::payload(format!("the {header} header is not base64")))?;
    let object = object(&bytes, header)?;
    let text = String::from_utf8(bytes).map_err(|_| PaymentError::payload(format!("the {header} header is not UTF-8")))?;
    Ok((text, object))
}

fn object(text: &[u8], header: &str) -> Result<Map<String, Value>, PaymentError> {
    let value = json::parse(text).map_err(|why| PaymentError::payload(format!("the {header} header cannot be read: {why}")))?;
    let Value::Object(object) = value else {
        return Err(PaymentError::payload(format!("the {header} header must hold a JSON object")));
    };
    // Extensions are the client's own, and are passed on unread.
    let twins = object
        .iter()
        .filter(|(key, _)| *key != "extensions")
        .any(|(_, value)| json::has_case_twins(value));
    if twins || json::keys_have_case_twins(&object) {
        return Err(PaymentError::payload(format!(
            "the {header} header has two keys in one object that differ in case alone"
        )));
    }
    Ok(object)
}

fn version(object: &Map<String, Value>) -> Result<u64, PaymentError> {
    match object.get("x402Version").and_then(Value::as_u64) {
        Some(version @ (1 | 2)) => Ok(version),
        _ => Err(PaymentError::new(Refusal::InvalidVersion, "x402Version must be the number 1 or 2")),
    }
}

/// What v1 and LibertAI have in common.
///
/// ```json
/// {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": {}}
/// ```
fn v1_shape(dialect: super::Dialect, text: String, object: &Map<String, Value>) -> Result<Payment, PaymentError> {
    let fields = Fields::new("", object);
    let scheme = fields.text("scheme")?;
    let network = fields.network("network")?;
    Ok(Payment {
        dialect,
        scheme: scheme.into(),
        payload: fields.object("payload")?.payload(&network)?,
        network: Some(network),
        accepted: None,
        resource_url: None,
        extensions: None,
        terms: None,
        text: text.into(),
    })
}
