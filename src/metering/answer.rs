//! What form an answer has, by its headers.

/// The form of an answer, which decides how it is metered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// One JSON document.
    Json,
    /// A stream of server-sent events.
    Sse,
    /// Another content type, or none: bytes are counted, usage is not found.
    Opaque,
    /// A content encoding other than `identity`: bytes are counted, and say nothing of the text.
    Encoded,
}

impl AnswerKind {
    /// The form that these headers' values name; of a repeated header, the values joined by commas.
    pub fn of(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> Self {
        let plain = |coding: &[u8]| coding.trim_ascii().is_empty() || coding.trim_ascii().eq_ignore_ascii_case(b"identity");
        if !content_encoding.is_none_or(|codings| codings.split(|byte| *byte == b',').all(plain)) {
            return Self::Encoded;
        }
        let essence = content_type
            .and_then(|value| value.split(|byte| *byte == b';').next())
            .unwrap_or_default()
            .trim_ascii()
            .to_ascii_lowercase();
        match essence.as_slice() {
            b"text/event-stream" => Self::Sse,
            b"application/json" | b"text/json" => Self::Json,
            other if other.starts_with(b"application/") && other.ends_with(b"+json") => Self::Json,
            _ => Self::Opaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_the_form() {
        for (content_type, content_encoding, kind) in [
            (Some("application/json"), None, AnswerKind::Json),
            (Some(" Application/JSON ; charset=utf-8"), Some("identity"), AnswerKind::Json),
            (Some("application/problem+json"), Some(""), AnswerKind::Json),
            (
                Some("text/event-stream; charset=utf-8"),
                Some(" Identity, identity"),
                AnswerKind::Sse,
            ),
            (Some("TEXT/EVENT-STREAM"), None, AnswerKind::Sse),
            (Some("application/x-ndjson"), None, AnswerKind::Opaque),
            (Some("audio/mpeg"), None, AnswerKind::Opaque),
            (None, None, AnswerKind::Opaque),
            (Some("application/json"), Some("gzip"), AnswerKind::Encoded),
            (Some("text/event-stream"), Some("identity, br"), AnswerKind::Encoded),
            (None, Some("zstd"), AnswerKind::Encoded),
        ] {
            let found = AnswerKind::of(content_type.map(str::as_bytes), content_encoding.map(str::as_bytes));
            assert_eq!(found, kind, "{content_type:?} {content_encoding:?}");
        }
    }
}
