//! What all answers of a facilitator have in common: bounds, and how their fields are read.

use serde_json::{Map, Value};

use crate::x402::json;

/// The longest answer of a facilitator that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// The longest payer or transaction that is taken over, in bytes.
const MAX_IDENTIFIER: usize = 128;

/// The fields of an answer; `None` for what is too long or no object.
pub(super) fn object(body: &[u8]) -> Option<Map<String, Value>> {
    if body.len() > MAX_ANSWER {
        return None;
    }
    match json::parse(body) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// A string, or nothing.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A word of printable ASCII; anything else is as good as nothing.
pub(super) fn identifier(fields: &Map<String, Value>, key: &str) -> Option<String> {
    let text = text(fields, key);
    let word = (1..=MAX_IDENTIFIER).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    word.then(|| text.to_owned())
}
