//! The keys that matter in an answer, of all its APIs.

/// Which key of events or of `usage` this is; the paths in `event` and `usage` are made of them.
pub(super) fn key(name: &[u8]) -> Option<&'static str> {
    // By length first, which leaves a few to compare with.
    let keys: &[&'static str] = match name.len() {
        4 => &["type", "text"],
        5 => &["error", "delta", "usage"],
        7 => &["message", "choices", "content", "refusal"],
        8 => &["response", "function", "thinking"],
        9 => &["reasoning", "arguments"],
        10 => &["tool_calls"],
        12 => &["partial_json", "input_tokens", "total_tokens"],
        13 => &["content_block", "function_call", "prompt_tokens", "output_tokens", "cached_tokens"],
        15 => &["thinking_tokens"],
        16 => &["reasoning_tokens"],
        17 => &["reasoning_content", "completion_tokens"],
        20 => &["input_tokens_details"],
        21 => &["prompt_tokens_details", "output_tokens_details"],
        23 => &["cache_read_input_tokens"],
        25 => &["completion_tokens_details"],
        27 => &["cache_creation_input_tokens"],
        _ => &[],
    };
    keys.iter().find(|key| key.as_bytes() == name).copied()
}
