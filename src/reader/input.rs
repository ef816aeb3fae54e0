//! The user's input: how long it is, wherever the usual protocols keep it.

use crate::json::Json;

/// Names of the fields that hold what a user asks, in bodies.
const FIELDS: [&str; 3] = ["prompt", "input", "query"];

/// The same in the query of a URL.
const PARAMETERS: [&[u8]; 4] = [b"prompt", b"input", b"query", b"q"];

/// Characters (Unicode scalar values) of the user's input: of the last user message, or of `prompt`, `input` or `query`; of the
/// longest where a body has several.
pub fn query_length(body: &Json<'_>) -> u64 {
    let fields = FIELDS.iter().filter_map(|name| body.get(name)).map(length);
    let messages = body.get("messages").map(length_of_messages);
    fields.chain(messages).max().unwrap_or(0)
}

/// The same of a URL's query parameters `prompt`, `input`, `query` and `q`, percent-decoded.
pub fn url_query_length(path: &[u8]) -> u64 {
    let query = path
        .iter()
        .position(|byte| *byte == b'?')
        .and_then(|at| path.get(at..))
        .unwrap_or_default();
    let pairs = query.split(|byte| matches!(byte, b'&' | b'?'));
    let lengths = pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at.saturating_add(1)..)?);
        let named = PARAMETERS.iter().any(|known| decoded(name).eq_ignore_ascii_case(known));
        named.then(|| characters(&String::from_utf8_lossy(&decoded(value))))
    });
    lengths.max().unwrap_or(0)
}

/// The last message that a user says; without one, the last message.
fn length_of_messages(messages: &Json<'_>) -> u64 {
    let is_users = |message: &&Json<'_>| message.get("role").and_then(Json::text) == Some("user");
    let items = messages.items();
    let last = items.iter().rev().find(is_users).or_else(|| items.last());
    last.map_or(0, length)
}

/// Of a text, of a message's content, of the parts or texts of a list, of the last user message of a conversation.
fn length(value: &Json<'_>) -> u64 {
    match value {
        Json::Text(text) => characters(text),
        Json::List(items) if items.iter().any(|item| item.get("role").is_some()) => length_of_messages(value),
        Json::List(items) => items.iter().map(length).fold(0, u64::saturating_add),
        Json::Object(_) => {
            let inner = ["content", "text"].iter().filter_map(|name| value.get(name));
            inner.map(length).max().unwrap_or(0)
        }
        // The id of a token stands for a character at least.
        number if number.is_number() => 1,
        _ => 0,
    }
}

fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| Some((digit(after.first())?, digit(after.get(1))?)))
            .flatten();
        let value = escaped.and_then(|(high, low)| u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok());
        out.push(value.unwrap_or(*first));
        rest = if value.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_found_where_the_protocols_keep_it() {
        for (body, expected) in [
            (r#"{"query":"héllo"}"#, 5),
            (r#"{"prompt":["ab","cde"]}"#, 5),
            (r#"{"prompt":[1,2,3]}"#, 3),
            (r#"{"input":"\ud83d\ude00"}"#, 1),
            (
                r#"{"messages":[{"role":"user","content":"first one"},{"role":"assistant","content":"long answer"},{"role":"user","content":"abc"},{"role":"assistant","content":"x"}]}"#,
                3,
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"c"}]}]}"#,
                3,
            ),
            (r#"{"messages":[{"role":"system","content":"abcd"}]}"#, 4),
            (r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"abcde"}]}]}"#, 5),
            (r#"{"query":"ab","prompt":"abcd"}"#, 4),
            (r#"{"other":"abc"}"#, 0),
            ("{}", 0),
        ] {
            assert_eq!(query_length(&Json::for_tests(body)), expected, "{body}");
        }
    }

    #[test]
    fn so_it_is_in_a_url() {
        for (path, expected) in [
            ("/search?q=a+b", 3),
            ("/search?query=h%C3%A9llo&q=x", 5),
            ("/search?x=aaaa", 0),
            ("/search", 0),
            ("/search?q=%zz", 3),
            ("/search?%71=ab", 2),
        ] {
            assert_eq!(url_query_length(path.as_bytes()), expected, "{path}");
        }
    }
}
