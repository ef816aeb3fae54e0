//! Input that is not text in the body: its tokens cannot be bounded by the body's bytes.
//!
//! What may be such is listed by what may not: parts of a message are inline text only if their type is known to be. Names are
//! compared without case, since backends in Go read them so.

use super::spelling::is_spelled;
use crate::json::Json;

/// Types of parts, items and blocks whose text is in the body (OpenAI chat and responses, Anthropic messages).
const INLINE_TYPES: [&str; 25] = [
    "text",
    "input_text",
    "output_text",
    "summary_text",
    "reasoning_text",
    "refusal",
    "message",
    "reasoning",
    "thinking",
    "redacted_thinking",
    "function",
    "function_call",
    "function_call_output",
    "custom",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_call",
    "tool_use",
    "tool_result",
    "ephemeral",
    "json_object",
    "json_schema",
    "auto",
    "grammar",
    "allowed_tools",
];

/// Fields that refer to something, wherever they are in the input.
const REFERENCES: [&str; 17] = [
    "image_url",
    "image_file",
    "input_image",
    "input_audio",
    "video_url",
    "audio_url",
    "file",
    "file_id",
    "file_ids",
    "file_url",
    "file_data",
    "images",
    "vector_store_ids",
    "item_reference",
    "media",
    "inline_data",
    "multimodal_data",
];

/// Fields of the body itself that bring in input, make more of it than there is, or have the backend fetch it.
const TOP_LEVEL: [&str; 14] = [
    "previous_response_id",
    "conversation",
    "audio",
    "web_search_options",
    "data_sources",
    "mcp_servers",
    "container",
    "attachments",
    "files",
    "plugins",
    "documents_ids",
    "cached_content",
    "context",
    "chat_template",
];

/// Where input is.
const INPUT: [&str; 5] = ["messages", "input", "prompt", "system", "instructions"];

/// Whether a body may refer to input elsewhere, or holds some that is not text.
pub(super) fn has_external_input(body: &Json<'_>) -> bool {
    let named = |key: &str, names: &[&str]| names.iter().any(|name| is_spelled(key, name));
    let fields = || body.fields().iter().filter(|(_, value)| *value != Json::Null);
    fields().any(|(key, value)| {
        let refers = named(key, &TOP_LEVEL) || named(key, &REFERENCES);
        // A stored prompt is an object with an id.
        let stored = key.eq_ignore_ascii_case("prompt") && matches!(value, Json::Object(_));
        let hosted = is_spelled(key, "tools") && value.items().iter().any(is_hosted);
        refers || stored || hosted || (named(key, &INPUT) && is_external(value))
    })
}

/// A tool that the backend runs itself, and whose results become input.
fn is_hosted(tool: &Json<'_>) -> bool {
    let kind = tool.fields().iter().find(|(key, _)| key.eq_ignore_ascii_case("type"));
    kind.is_some_and(|(_, kind)| !matches!(kind.text(), Some("function" | "custom")))
}

/// Recursion is bounded by the depth of a body that can be read.
fn is_external(value: &Json<'_>) -> bool {
    match value {
        Json::List(items) => items.iter().any(is_external),
        Json::Object(fields) => fields.iter().filter(|(_, value)| *value != Json::Null).any(|(key, value)| {
            let refers = REFERENCES.iter().any(|name| is_spelled(key, name));
            let kind = key.eq_ignore_ascii_case("type");
            let unknown = kind && !value.text().is_some_and(|text| INLINE_TYPES.contains(&text));
            // What a model wrote for a tool is text, whatever it is named.
            let inline = key.eq_ignore_ascii_case("arguments") || key.eq_ignore_ascii_case("input");
            refers || unknown || (!inline && is_external(value)) || (inline && matches!(value, Json::List(_)) && is_external(value))
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(body: &str) -> bool {
        has_external_input(&Json::for_tests(body))
    }

    #[test]
    fn text_is_not_external() {
        for body in [
            r#"{"messages":[{"role":"user","content":"see https://example.com/image_url"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]}"#,
            r#"{"messages":[{"role":"assistant","content":null,"audio":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}]}"#,
            r#"{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"file":"a.txt","type":"any"}}]}]}"#,
            r#"{"tools":[{"type":"function","function":{"name":"file","parameters":{"type":"object","properties":{"file_id":{"type":"string"}}}}},{"name":"f","input_schema":{}}]}"#,
            r#"{"input":"text","previous_response_id":null,"conversation":null,"instructions":"be brief"}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call_output","call_id":"c","output":"o"}]}"#,
            r#"{"input":[1,2,3]}"#,
            r#"{"prompt":["a","b"]}"#,
            r#"{"response_format":{"type":"json_schema"},"metadata":{"file_id":"x"}}"#,
        ] {
            assert!(!external(body), "{body}");
        }
    }

    #[test]
    fn whatever_may_be_elsewhere_is() {
        for body in [
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":""}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"u"}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","file_id":"f"}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"Type":"image"}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":["text"]}]}]}"#,
            r#"{"messages":[{"role":"user","content":"a","images":["b64"]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image"}]}]}]}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}"#,
            r#"{"input":[{"type":"item_reference","id":"i"}]}"#,
            r#"{"input":"a","previous_response_id":"r"}"#,
            r#"{"input":"a","conversation":"c"}"#,
            r#"{"prompt":{"id":"pmpt_1"}}"#,
            r#"{"input":"a","tools":[{"type":"web_search"}]}"#,
            r#"{"messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
            r#"{"messages":[],"web_search_options":{}}"#,
            r#"{"messages":[],"mcp_servers":[{}]}"#,
            r#"{"messages":[],"chat_template":"{% for i in range(9999) %}x{% endfor %}"}"#,
            r#"{"prompt":[{"prompt_string":"a","multimodal_data":["b64"]}]}"#,
            r#"{"me\u017f\u017fages":[{"content":[{"type":"image"}]}]}"#,
            r#"{"messages":[{"role":"user","content":"a","image\u017f":["b64"]}]}"#,
        ] {
            assert!(external(body), "{body}");
        }
    }
}
