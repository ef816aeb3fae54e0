//! One server-sent event as it comes in.

use super::beginning::Beginning;
use super::found::{Found, Said};
use super::prefix::Prefix;
use super::scanner::Scanner;

/// An event as it comes in; keeps its place in it and what was found, and of its data only what others begin with too.
#[derive(Debug)]
pub(super) struct Event {
    beginning: Beginning,
    /// No data has come yet.
    is_new: bool,
    scanner: Scanner,
    done: Prefix,
    has_lines: bool,
    found: Found,
}

impl Event {
    pub(super) fn new() -> Self {
        Self {
            beginning: Beginning::new(),
            is_new: true,
            scanner: Scanner::new(),
            done: DONE,
            has_lines: false,
            found: Found::default(),
        }
    }

    /// A line of data begins.
    pub(super) fn line(&mut self) {
        if core::mem::replace(&mut self.has_lines, true) {
            self.data(b"\n");
        }
    }

    /// More of a line of data.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        self.done.take(bytes);
        let rest = if core::mem::take(&mut self.is_new) {
            self.beginning.read(bytes, &mut self.scanner, &mut self.found)
        } else {
            bytes
        };
        self.scanner.feed(rest, &mut self.found);
    }

    /// Whether it can still turn out to be [`Said::usage_only`].
    pub(super) fn may_be_usage_only(&self) -> bool {
        !self.scanner.is_broken() && !self.found.is_more_than_usage()
    }

    /// Ends the event and makes this the start of the next. An event that is not JSON says nothing, or `[DONE]`.
    pub(super) fn end(&mut self) -> Said {
        let said = if self.scanner.is_done() {
            self.found.said()
        } else {
            Said::default()
        };
        let last = said.last || core::mem::replace(&mut self.done, DONE).is_complete();
        self.scanner.restart();
        self.has_lines = false;
        self.is_new = true;
        self.found = Found::default();
        Said { last, ..said }
    }
}

/// OpenAI's SDKs end at data that begins so.
const DONE: Prefix = Prefix::new(b"[DONE]");

#[cfg(test)]
mod tests {
    use super::*;

    fn said(data: &str) -> Said {
        let mut event = Event::new();
        event.line();
        for byte in data.as_bytes() {
            event.data(&[*byte]);
        }
        event.end()
    }

    #[test]
    fn only_text_that_was_generated_is_text() {
        for (data, text) in [
            (
                r#"{"choices":[{"delta":{"content":"é\u00e9"}},{"delta":{"content":"ab"}}],"obfuscation":"xxxx"}"#,
                6,
            ),
            (r#"{"choices":[{"delta":{"role":"assistant","content":null,"refusal":"no"}}]}"#, 2),
            (
                r#"{"choices":[{"delta":{"reasoning":"abc","reasoning_content":"abc","content":""}}]}"#,
                3,
            ),
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","function":{"name":"f","arguments":"{\"a\""}}]}}]}"#,
                4,
            ),
            (r#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":"{}"}}}]}"#, 2),
            (r#"{"choices":[{"delta":{"content":[{"type":"text","text":"abc"}]}}]}"#, 3),
            (r#"{"choices":[{"text":"abc","index":0,"logprobs":{"tokens":["abc"]}}]}"#, 3),
            (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"abc"}}"#, 3),
            (
                r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
                1,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"ab"}}"#,
                2,
            ),
            (
                r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"abcd"}}"#,
                0,
            ),
            (r#"{"type":"content_block_start","content_block":{"type":"text","text":"a"}}"#, 1),
            (r#"{"type":"response.output_text.delta","delta":"abc"}"#, 3),
            (r#"{"delta":"abc","type":"response.audio.delta"}"#, 0),
            (r#"{"type":"response.output_text.done","text":"abc"}"#, 0),
            (r#"{"choices":[{"delta":{"content":"abc"}}]"#, 0),
            (r#"{"choices":[{"delta":{"content":"abc"}}]}}"#, 0),
        ] {
            assert_eq!(said(data).text, text, "{data}");
        }
    }

    #[test]
    fn usage_is_where_the_type_of_the_event_has_it() {
        for (data, is_counted) in [
            (r#"{"usage":{"prompt_tokens":1}}"#, true),
            (r#"{"type":"message_delta","usage":{"output_tokens":1}}"#, true),
            (r#"{"type":"message_start","message":{"usage":{"input_tokens":1}}}"#, true),
            (r#"{"message":{"usage":{"input_tokens":1}}}"#, false),
            (r#"{"type":"content_block_delta","message":{"usage":{"input_tokens":1}}}"#, false),
            (r#"{"response":{"usage":{"input_tokens":1}},"type":"response.completed"}"#, true),
            (r#"{"response":{"usage":{"input_tokens":1}}}"#, false),
            (
                r#"{"response":{"output":[{"usage":{"input_tokens":1}}]},"type":"response.completed"}"#,
                false,
            ),
            (r#"{"choices":[{"usage":{"prompt_tokens":1}}]}"#, false),
            (r#"{"choices":[{"delta":{"usage":{"prompt_tokens":1}}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":"{\"usage\":{\"prompt_tokens\":1}}"}}]}"#, false),
            (r#"{"usage":{"prompt_tokens":1}"#, false),
        ] {
            assert_eq!(said(data).counts.is_some(), is_counted, "{data}");
        }
    }

    #[test]
    fn the_last_event_is_known() {
        for data in [
            "[DONE]",
            "[DONE] ",
            r#"{"type":"message_stop"}"#,
            r#"{"type":"response.incomplete"}"#,
        ] {
            assert!(said(data).last, "{data}");
        }
        for data in [
            "[DONE",
            "",
            "{}",
            r#"{"type":"response.failed"}"#,
            r#"{"x":"[DONE]"}"#,
            r#"{"type":"message_stop""#,
        ] {
            assert!(!said(data).last, "{data}");
        }
    }

    #[test]
    fn a_chunk_with_usage_and_nothing_else_is_known() {
        for data in [
            r#"{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":1},"obfuscation":"x"}"#,
            r#"{"usage":{},"choices":[ ],"error":null}"#,
        ] {
            assert!(said(data).usage_only, "{data}");
        }
        for data in [
            r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
            r#"{"choices":[],"usage":null}"#,
            r#"{"choices":[],"usage":1}"#,
            r#"{"choices":[],"usage":[]}"#,
            r#"{"choices":null,"usage":{}}"#,
            r#"{"choices":{},"usage":{}}"#,
            r#"{"usage":{}}"#,
            r#"{"choices":[{"delta":{}}],"usage":{}}"#,
            r#"{"choices":[],"choices":[0],"usage":{}}"#,
            r#"{"choices":[],"usage":{},"error":{"message":"x"}}"#,
            r#"{"choices":[],"usage":{}"#,
            r#"[{"choices":[],"usage":{}}]"#,
        ] {
            assert!(!said(data).usage_only, "{data}");
        }
    }

    #[test]
    fn what_cannot_be_usage_alone_is_known_early() {
        for start in [
            "[",
            "x",
            r#"{"id":"c","choices":[{"#,
            r#"{"usage":n"#,
            r#"{"usage":null"#,
            r#"{"error":{"#,
        ] {
            let mut event = Event::new();
            event.data(start.as_bytes());
            assert_eq!(event.may_be_usage_only(), start.ends_with('n'), "{start}");
        }
    }
}
