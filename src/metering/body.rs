//! The usage in an answer that is one JSON document, of any length.

use super::keys::key;
use super::prefix::Prefix;
use super::scanner::{Scanner, Sink, Value};
use super::usage::{Counts, Statement, has_counts};

/// A JSON answer as it passes; keeps its place in it and the counts.
#[derive(Debug)]
pub(super) struct Body {
    bom: Prefix,
    scanner: Scanner,
    found: Found,
}

/// The `usage` objects of the document's top level.
#[derive(Debug, Default)]
struct Found {
    statement: Statement,
    counts: Option<Counts>,
}

impl Body {
    pub(super) fn new() -> Self {
        Self {
            bom: Prefix::BOM,
            scanner: Scanner::new(),
            found: Found::default(),
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let text = self.bom.take(bytes);
        self.scanner.feed(text, &mut self.found);
    }

    /// What the document says it used, also if it is cut off thereafter.
    pub(super) fn counts(&self) -> Option<Counts> {
        self.found.counts
    }

    /// Whether the document is complete.
    pub(super) fn is_finished(&self) -> bool {
        self.scanner.is_done()
    }
}

impl Sink for Found {
    fn key(name: &[u8]) -> Option<&'static str> {
        key(name)
    }

    fn enters(&self, path: &[&str]) -> bool {
        match path {
            [] => true,
            ["usage", inner @ ..] => has_counts(inner),
            _ => false,
        }
    }

    fn value(&mut self, path: &[&str], value: Value<'_>) {
        match (path, value) {
            (["usage"], Value::Object) => self.statement = Statement::default(),
            (["usage"], Value::End) => {
                if let Some(counts) = core::mem::take(&mut self.statement).counts() {
                    self.counts.get_or_insert_default().merge(counts);
                }
            }
            (["usage", inner @ ..], value) => self.statement.value(inner, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metering::Usage;

    fn read(json: &str) -> (Option<Usage>, bool) {
        let mut body = Body::new();
        for byte in json.as_bytes() {
            body.feed(&[*byte]);
        }
        (body.counts().map(|counts| counts.usage()), body.is_finished())
    }

    #[test]
    fn only_the_top_level_usage_counts() {
        let usage = Some(Usage {
            input: 7,
            output: 2,
            ..Usage::default()
        });
        let real = r#""usage":{"prompt_tokens":7,"completion_tokens":2}"#;
        let lie = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        for (json, expected) in [
            (format!("{{{real}}}"), usage),
            (
                format!(" {{ \"a\" : [ 1 , {lie} , -2.5e3 , null , true ] , {real} , \"b\" : {lie} }}\r\n"),
                usage,
            ),
            (format!("{{\"text\":{},{real}}}", serde_json::to_string(lie).unwrap()), usage),
            (
                format!("{{\"us\\u0061ge\":{{\"prompt_tokens\":7,\"complet\\u0069on_tokens\":2}},\"x\":{lie}}}"),
                usage,
            ),
            (format!("\u{feff}{{{real}}}"), usage),
            (format!("{{\"choices\":[{lie}]}}"), None),
            (format!("{{\"usage\":{{\"usage\":{lie},\"extra\":{lie}}}}}"), None),
            (format!("{{\"Usage\":{lie},\"usage \":{lie},\"x\":\"\\\"\"}}"), None),
            (format!("{{\"*\":{lie},\"[]\":{lie},\"response\":{lie},\"message\":{lie}}}"), None),
            (format!("[{lie}]"), None),
            (r#"{"usage":null}"#.to_owned(), None),
            (r#"{"usage":[{"prompt_tokens":7}]}"#.to_owned(), None),
            (r#"{"usage":{"prompt_tokens":-7}}"#.to_owned(), None),
            (r#"{"usage":{"prompt_tokens":7.0}}"#.to_owned(), None),
            (r#"{"usage":{"prompt_tokens":"7"}}"#.to_owned(), None),
            (r#"{"usage":{"prompt_tokens":07}}"#.to_owned(), None),
        ] {
            assert_eq!(read(&json), (expected, true), "{json}");
        }
        assert_eq!(read(&format!("{{{real},\"x\":")), (usage, false));
        assert_eq!(read(&format!("{{{real}}} x")), (usage, false));
        assert_eq!(read(&format!("{{x,{real}}}")), (None, false));
        let huge = r#"{"usage":{"prompt_tokens":99999999999999999999999999}}"#;
        assert_eq!(read(huge).0.unwrap().input, u64::MAX);
    }

    #[test]
    fn any_depth_is_passed_over() {
        let deep = format!(
            "{{\"x\":{}{},\"usage\":{{\"input_tokens\":1}}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(read(&deep).0.unwrap().input, 1);
    }
}
