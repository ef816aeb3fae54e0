//! Dialects: from headers to a [`Payment`], each with its own rules.

mod fields;
mod libertai;
mod plain;
mod v1;
mod v2;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Refusal;
use super::json::{self, Json, Object};
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
    // Most are in the standard alphabet: to look for signs of the other one first takes as long as to decode.
    if let Ok(bytes) = LENIENT.decode(text) {
        return Some(bytes);
    }
    let standard = text.bytes().map(|byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    });
    LENIENT.decode(standard.collect::<Vec<u8>>()).ok()
}

fn is_payment_header(name: &[u8]) -> bool {
    name == b"payment-signature" || (name.starts_with(b"x-payment") && (name == b"x-payment" || plain::Headers::knows(name)))
}

fn text<'a>(name: &[u8], value: &'a [u8]) -> Result<&'a str, PaymentError> {
    let wrong = |how: &str| {
        let name = String::from_utf8_lossy(name);
        PaymentError::payload(format!("the {name} header {how}"))
    };
    if value.len() > MAX_PAYMENT_HEADER {
        return Err(wrong("is longer than 16384 bytes"));
    }
    if !value.is_ascii() {
        return Err(wrong("holds bytes that are not ASCII"));
    }
    core::str::from_utf8(value).map(str::trim).map_err(|_| wrong("is not text"))
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
    let text = decoded(value, "PAYMENT-SIGNATURE")?;
    let object = object(&text, "PAYMENT-SIGNATURE")?;
    match version(&object)? {
        2 => v2::payment(object).map(|payment| payment.with_text(text)),
        _ => Err(PaymentError::payload(
            "PAYMENT-SIGNATURE takes x402Version 2: send a payment of x402Version 1 in X-PAYMENT",
        )),
    }
}

fn from_x_payment(value: &str) -> Result<Payment, PaymentError> {
    if value.starts_with('{') {
        let object = object(value, "X-PAYMENT")?;
        version(&object)?;
        return libertai::payment(&object).map(|payment| payment.with_text(value));
    }
    let text = decoded(value, "X-PAYMENT")?;
    let object = object(&text, "X-PAYMENT")?;
    let payment = match version(&object)? {
        1 => v1::payment(&object),
        // Shapes tell more than versions: LibertAI's form in base64 is still LibertAI's.
        _ if !object.contains_key("accepted") => libertai::payment(&object),
        _ => Err(PaymentError::payload(
            "X-PAYMENT takes x402Version 1: send a payment of x402Version 2 in PAYMENT-SIGNATURE",
        )),
    };
    payment.map(|payment| payment.with_text(text))
}

fn decoded(value: &str, header: &str) -> Result<String, PaymentError> {
    let bytes = base64(value).ok_or_else(|| PaymentError::payload(format!("the {header} header is not base64")))?;
    String::from_utf8(bytes).map_err(|_| PaymentError::payload(format!("the {header} header is not UTF-8")))
}

fn object<'t>(text: &'t str, header: &str) -> Result<Object<'t>, PaymentError> {
    let value = json::parse(text).map_err(|why| PaymentError::payload(format!("the {header} header cannot be read: {why}")))?;
    let Json::Object(object) = value else {
        return Err(PaymentError::payload(format!("the {header} header must hold a JSON object")));
    };
    // Extensions are the client's own, and are passed on unread.
    let twins = object
        .iter()
        .filter(|(key, _)| key != "extensions")
        .any(|(_, value)| value.has_case_twins());
    if twins || object.keys_have_case_twins() {
        return Err(PaymentError::payload(format!(
            "the {header} header has two keys in one object that differ in case alone"
        )));
    }
    Ok(object)
}

fn version(object: &Object<'_>) -> Result<u64, PaymentError> {
    match object.get("x402Version").and_then(Json::whole) {
        Some(version @ (1 | 2)) => Ok(version),
        _ => Err(PaymentError::new(Refusal::InvalidVersion, "x402Version must be the number 1 or 2")),
    }
}

/// What v1 and LibertAI have in common.
///
/// ```json
/// {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": {}}
/// ```
fn v1_shape(dialect: super::Dialect, object: &Object<'_>) -> Result<Payment, PaymentError> {
    let fields = Fields::new(object);
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
        text: Box::default(),
    })
}
