//! Reading a body: keeps the facts, skips the rest, and never builds the document.

use serde::de::Deserializer as _;

use super::facts::{BodyFacts, Facts, Why};
use super::top_level::TopLevel;
use crate::evm::keccak256;
use crate::json::{Json, JsonError, parse};

/// How deep a document may be nested. serde_json's own bound does not hold for values that are skipped.
const MAX_DEPTH: usize = 128;

/// Reads what matters for the price of a request.
///
/// `body` is the whole body as sent; `content_type` and `content_encoding` are those headers' values, if present.
/// A backend must not be able to read something else in it than what is reported here: what could be read in two ways
/// is [`BodyFacts::Unreadable`].
pub fn read_body(body: &[u8], content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> BodyFacts {
    if body.is_empty() {
        return BodyFacts::None;
    }
    match model_of(body, content_type, content_encoding) {
        Ok(model) => BodyFacts::Json(Facts {
            model,
            size: body.len(),
            digest: keccak256(body),
            tokens: None,
            outcomes: Vec::new(),
        }),
        Err(why) => BodyFacts::Unreadable(why),
    }
}

/// Reads the whole of a body that [`read_body`] could read.
///
/// # Errors
///
/// A key that an object has twice. [`Why::Malformed`] for a body that could not be read.
pub fn read_document(body: &[u8]) -> Result<Json<'_>, Why> {
    let text = core::str::from_utf8(body).map_err(|_| Why::Malformed)?;
    if is_too_deep(body) {
        return Err(Why::Malformed);
    }
    parse(text, u8::MAX).map_err(|why| match why {
        JsonError::DuplicateKey => Why::Duplicate,
        JsonError::Syntax | JsonError::TooDeep => Why::Malformed,
    })
}

fn model_of(body: &[u8], content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Result<Option<String>, Why> {
    if content_encoding
        .is_some_and(|encoding| !encoding.trim_ascii().is_empty() && !encoding.trim_ascii().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Why::Encoded);
    }
    if !content_type.is_none_or(is_json) {
        return Err(Why::NotJson);
    }
    read_object(body)
}

/// `application/json` or `…+json`, in UTF-8 as far as it says.
fn is_json(content_type: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(content_type) else {
        return false;
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json =
        essence == "application/json" || essence == "text/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && parts.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
    })
}

fn read_object(body: &[u8]) -> Result<Option<String>, Why> {
    // Strings that are skipped are not checked to be UTF-8 by the JSON parser.
    let text = core::str::from_utf8(body).map_err(|_| Why::Malformed)?;
    if is_too_deep(body) {
        return Err(Why::Malformed);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut problem = None;
    let read = deserializer.deserialize_any(TopLevel { problem: &mut problem });
    let ended = deserializer.end();
    match (read, problem) {
        (_, Some(why)) => Err(why),
        (Ok(model), None) if ended.is_ok() => Ok(model),
        _ => Err(Why::Malformed),
    }
}

/// Whether brackets are nested deeper than [`MAX_DEPTH`], looking at nothing else.
fn is_too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> BodyFacts {
        read_body(body.as_bytes(), Some(b"application/json"), None)
    }

    fn model(body: &str) -> Option<String> {
        match read(body) {
            BodyFacts::Json(facts) => facts.model,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn the_top_level_model_is_found_wherever_it_is() {
        assert_eq!(model(r#"{"model":"gpt-4o"}"#).as_deref(), Some("gpt-4o"));
        assert_eq!(
            model(r#" {"messages":[{"model":"x"}],"mod\u0065l":"a\"b"} "#).as_deref(),
            Some("a\"b")
        );
        assert_eq!(model(r#"{"messages":[],"x":{"model":1}}"#), None);
        assert_eq!(model("{}"), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for (body, why) in [
            (r#"{"model":"a","model":"a"}"#, Why::Duplicate),
            (r#"{"model":"a","m\u006fdel":"b"}"#, Why::Duplicate),
            (r#"{"Model":"a"}"#, Why::Duplicate),
            (r#"{"model":"a","MODEL":1}"#, Why::Duplicate),
            (r#"{"model":1}"#, Why::BadModel),
            (r#"{"model":null}"#, Why::BadModel),
            (r#"{"model":["a"]}"#, Why::BadModel),
            (r#"{"model":{"a":1}}"#, Why::BadModel),
            ("[]", Why::NotAnObject),
            ("[{\"model\":\"a\"}]", Why::NotAnObject),
            ("\"x\"", Why::NotAnObject),
            ("1", Why::NotAnObject),
            ("-1.5", Why::NotAnObject),
            ("null", Why::NotAnObject),
            ("\u{feff}{}", Why::Malformed),
            ("{} {}", Why::Malformed),
            ("{}x", Why::Malformed),
            ("{", Why::Malformed),
            ("{'model':'a'}", Why::Malformed),
            (r#"{"model":"a",}"#, Why::Malformed),
            (r#"{"model":"\ud800"}"#, Why::Malformed),
            (" ", Why::Malformed),
        ] {
            assert_eq!(read(body), BodyFacts::Unreadable(why), "{body}");
        }
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(257));
        assert_eq!(read(&long), BodyFacts::Unreadable(Why::BadModel));
    }

    #[test]
    fn text_that_is_skipped_has_to_be_utf8_too() {
        let body = b"{\"a\":\"\xff\",\"model\":\"x\"}";
        assert_eq!(read_body(body, None, None), BodyFacts::Unreadable(Why::Malformed));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(matches!(read(&nested(100)), BodyFacts::Json(_)));
        assert_eq!(read(&nested(200)), BodyFacts::Unreadable(Why::Malformed));
        assert_eq!(read(&nested(1_000_000)), BodyFacts::Unreadable(Why::Malformed));
        assert!(matches!(
            read(&format!("{{\"a\":\"{}\\\"\"}}", "[".repeat(500))),
            BodyFacts::Json(_)
        ));
    }

    #[test]
    fn headers_decide_whether_it_is_looked_at() {
        let facts = |kind: Option<&str>, encoding: Option<&str>| read_body(b"{}", kind.map(str::as_bytes), encoding.map(str::as_bytes));
        for kind in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/vnd.api+json",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(matches!(facts(Some(kind), Some("identity")), BodyFacts::Json(_)), "{kind}");
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-16",
            "application/jsonx",
            "",
        ] {
            assert_eq!(facts(Some(kind), None), BodyFacts::Unreadable(Why::NotJson), "{kind}");
        }
        for encoding in ["gzip", "identity, gzip", "br"] {
            assert_eq!(facts(None, Some(encoding)), BodyFacts::Unreadable(Why::Encoded), "{encoding}");
        }
        assert_eq!(read_body(b"", Some(b"text/plain"), Some(b"gzip")), BodyFacts::None);
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read_body(&body, None, None);
        }

        #[test]
        fn agrees_with_a_whole_parse(body in "[\\{\\}\\[\\]\"model:, 1a\\\\]{0,24}") {
            if let BodyFacts::Json(facts) = read_body(body.as_bytes(), None, None) {
                let value: serde_json::Value = serde_json::from_str(&body).unwrap();
                prop_assert!(value.is_object());
                prop_assert_eq!(value.get("model").and_then(|m| m.as_str()), facts.model.as_deref());
            }
        }
    }
}
