//! What all answers of a facilitator have in common: bounds, and how their fields are read.

use crate::json::{Json, Object};
use crate::x402::json;

/// The longest answer of a facilitator that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// The longest payer or transaction that is taken over, in bytes.
const MAX_IDENTIFIER: usize = 128;

/// The fields of an answer; `None` for what is too long or no object.
pub(super) fn object(body: &[u8]) -> Option<Object<'_>> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    match json::parse(core::str::from_utf8(body).ok()?) {
        Ok(Json::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// Whether an answer to `/verify` or `/settle` is one: a verdict or an outcome, whatever it says, or the word that the request is at fault.
/// Anybody can have a request refused: that says nothing against the facilitator.
pub fn is_answer(status: u16, body: &[u8]) -> bool {
    let says = |fields: &Object<'_>| {
        ["isValid", "success"]
            .iter()
            .any(|key| fields.get(key).is_some_and(|said| said.truth().is_some()))
    };
    matches!(status, 400 | 413 | 422) || object(body).is_some_and(|fields| says(&fields))
}

/// A string, or nothing.
pub(super) fn text<'a>(fields: &'a Object<'_>, key: &str) -> &'a str {
    fields.get(key).and_then(Json::text).unwrap_or_default()
}

/// A word of printable ASCII; anything else is as good as nothing.
pub(super) fn identifier(fields: &Object<'_>, key: &str) -> Option<String> {
    let text = text(fields, key);
    let word = (1..=MAX_IDENTIFIER).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    word.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_told_from_refusals() {
        for (status, body) in [
            (200, r#"{"isValid":true}"#),
            (200, r#"{"isValid":false,"invalidReason":"unexpected_verify_error"}"#),
            (500, r#"{"isValid":false,"invalidReason":"insufficient_funds"}"#),
            (412, r#"{"success":false,"errorReason":"permit2_allowance_required"}"#),
            (200, r#"{"success":true,"transaction":"0x1"}"#),
            (400, r#"{"error":"invalid paymentPayload"}"#),
            (422, ""),
        ] {
            assert!(is_answer(status, body.as_bytes()), "{status} {body}");
        }
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, "{}"),
            (200, "[true]"),
            (200, r#"{"isValid":"true"}"#),
            (500, r#"{"error":"database"}"#),
            (502, "bad gateway"),
            (429, r#"{"error":"slow down"}"#),
            (401, ""),
            (404, "no such page"),
        ] {
            assert!(!is_answer(status, body.as_bytes()), "{status} {body}");
        }
        let long = format!(r#"{{"isValid":true,"x":"{}"}}"#, "x".repeat(MAX_ANSWER));
        assert!(!is_answer(200, long.as_bytes()));
    }
}
