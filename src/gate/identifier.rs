//! The `payment-identifier` extension: what it looks like in a challenge, and the identifier that a payment carries.
//!
//! Source: x402 v2, extension `payment-identifier`, as the official packages have it (`@x402/extensions` 2.27).

use serde_json::{Value, json};

use super::env::Env;
use crate::config::PaymentIdentifier;
use crate::json::Json;
use crate::x402::{Payment, Refusal};

/// The extension's name.
const NAME: &str = "payment-identifier";

/// `extensions` of a challenge; `None` if none is advertised.
///
/// ```json
/// {"payment-identifier": {"info": {"required": false}, "schema": {"type": "object", "properties": {"required": {}, "id": {}}}}}
/// ```
pub(super) fn advertised(policy: PaymentIdentifier) -> Option<Value> {
    (policy != PaymentIdentifier::Off).then(|| {
        json!({NAME: {
            "info": {"required": policy == PaymentIdentifier::Required},
            "schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {
                    "required": {"type": "boolean"},
                    "id": {"type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$"},
                },
                "required": ["required"],
            },
        }})
    })
}

/// The identifier that a payment carries, if it counts here.
///
/// # Errors
///
/// Why the payment is refused, and what is wrong with it.
pub(super) fn of<'p>(payment: &'p Payment, env: &Env<'_>) -> Result<Option<&'p str>, (Refusal, &'static str)> {
    let policy = env.config.payment_identifier;
    if policy == PaymentIdentifier::Off {
        return Ok(None);
    }
    let sent = payment.extensions.as_ref().and_then(|extensions| extensions.get(NAME));
    let info = sent.map(|sent| sent.get("info").unwrap_or(&Json::Null));
    let required = policy == PaymentIdentifier::Required;
    if info.is_some_and(|info| info.get("required").and_then(Json::truth) != Some(required)) {
        return Err((Refusal::ExtensionEchoMismatch, ""));
    }
    match info.and_then(|info| info.get("id")) {
        None | Some(Json::Null) if required => Err((Refusal::IdentifierRequired, "")),
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(id)) if is_identifier(id) => Ok(Some(id)),
        Some(_) => Err((
            Refusal::InvalidPayload,
            "extensions.payment-identifier.info.id must be 16 to 128 letters, digits, '-' and '_'",
        )),
    }
}

fn is_identifier(id: &str) -> bool {
    (16..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
