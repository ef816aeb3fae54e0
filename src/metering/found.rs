//! What the data of an event says of usage, text and the end, whichever API it is of.

use super::keys::key;
use super::scanner::{ITEM, OTHER, Sink, Value};
use super::usage::{Counts, Statement, has_counts};

/// What a whole event said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// What was used, up to and with this event.
    pub(super) counts: Option<Counts>,
    /// Generated text in it, in bytes of UTF-8.
    pub(super) text: u64,
    /// It is the answer's last.
    pub(super) last: bool,
    /// It is the chunk of an OpenAI completion that has usage and nothing else.
    pub(super) usage_only: bool,
}

/// What `type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Type {
    /// Not there, as in chat completions, or of no interest.
    #[default]
    Other,
    /// `message_start`, whose `message` has a usage.
    MessageStart,
    /// `message_stop`.
    MessageStop,
    /// `response.completed` or `response.incomplete`, whose `response` has the usage.
    ResponseEnded,
    /// Another event of the responses API.
    Response,
    /// `response.audio.delta`: what is in it is no text.
    ResponseAudio,
}

/// What was found in an event's JSON so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    of: Type,
    statement: Statement,
    /// `usage`, `response.usage` and `message.usage`.
    counts: [Option<Counts>; 3],
    has_usage: bool,
    has_empty_choices: bool,
    /// It has choices, an error, or a usage that is null.
    is_more_than_usage: bool,
    text: u64,
    /// Text that is the value of `delta`.
    delta: u64,
    /// Reasoning by its two names, which some servers both send.
    reasoning: [u64; 2],
}

impl Found {
    /// Whether it has choices, an error, or a usage that is null, and so is not [`Said::usage_only`].
    pub(super) fn is_more_than_usage(&self) -> bool {
        self.is_more_than_usage
    }

    /// What the event says, given that it is complete.
    pub(super) fn said(&self) -> Said {
        let [top, response, message] = self.counts;
        let counts = match self.of {
            Type::MessageStart => top.or(message),
            Type::ResponseEnded | Type::Response => top.or(response),
            _ => top,
        };
        let delta = if self.of == Type::ResponseAudio { 0 } else { self.delta };
        let reasoning = self.reasoning.iter().copied().max().unwrap_or(0);
        Said {
            counts,
            text: self.text.saturating_add(delta).saturating_add(reasoning),
            last: matches!(self.of, Type::MessageStop | Type::ResponseEnded),
            usage_only: self.has_usage && self.has_empty_choices && !self.is_more_than_usage,
        }
    }

    fn usage(&mut self, root: usize, path: &[&str], value: Value<'_>) {
        match (path, value) {
            ([], Value::Object) => self.statement = Statement::default(),
            ([], Value::End) => {
                if let (Some(counts), Some(slot)) = (core::mem::take(&mut self.statement).counts(), self.counts.get_mut(root)) {
                    slot.get_or_insert_default().merge(counts);
                }
            }
            _ => self.statement.value(path, value),
        }
    }

    fn text(&mut self, path: &[&str], length: u64) {
        let sum = match path {
            ["delta"] => &mut self.delta,
            ["choices", ITEM, "delta", "reasoning"] => &mut self.reasoning[0],
            ["choices", ITEM, "delta", "reasoning_content"] => &mut self.reasoning[1],
            ["choices", ITEM, "text"]
            | ["choices", ITEM, "delta", "content" | "refusal"]
            | ["choices", ITEM, "delta", "content", ITEM, "text"]
            | ["choices", ITEM, "delta", "function_call", "arguments"]
            | ["choices", ITEM, "delta", "tool_calls", ITEM, "function", "arguments"]
            | ["delta" | "content_block", "text" | "thinking" | "partial_json"] => &mut self.text,
            _ => return,
        };
        *sum = sum.saturating_add(length);
    }
}

impl Sink for Found {
    fn key(name: &[u8]) -> Option<&'static str> {
        key(name)
    }

    fn enters(&self, path: &[&str]) -> bool {
        match path {
            ["usage", inner @ ..] | ["response" | "message", "usage", inner @ ..] => has_counts(inner),
            [] | ["response" | "message" | "delta" | "content_block"] => true,
            ["choices"] | ["choices", ITEM] | ["choices", ITEM, "delta"] => true,
            ["choices", ITEM, "delta", "content" | "tool_calls" | "function_call"] => true,
            ["choices", ITEM, "delta", "content" | "tool_calls", ITEM] => true,
            ["choices", ITEM, "delta", "tool_calls", ITEM, "function"] => true,
            _ => false,
        }
    }

    fn value(&mut self, path: &[&str], value: Value<'_>) {
        // Most values are of keys that say nothing; what they are in was looked at when it began.
        if let [.., OTHER] = path {
            return;
        }
        match (path, value) {
            (["usage"], Value::Object) => self.has_usage = true,
            (["choices"], Value::Array) => self.has_empty_choices = true,
            (["choices"] | ["usage"] | [], Value::Object | Value::End) | (["error"], Value::Null) => {}
            ([] | ["choices" | "error", ..] | ["usage"], _) => self.is_more_than_usage = true,
            _ => {}
        }
        match (path, value) {
            (["usage", inner @ ..], value) => self.usage(0, inner, value),
            (["response", "usage", inner @ ..], value) => self.usage(1, inner, value),
            (["message", "usage", inner @ ..], value) => self.usage(2, inner, value),
            (["type"], Value::Text { short, .. }) => self.of = short.map_or(Type::Other, type_of),
            (path, Value::Text { bytes, .. }) => self.text(path, bytes),
            _ => {}
        }
    }
}

fn type_of(name: &[u8]) -> Type {
    match name {
        b"message_start" => Type::MessageStart,
        b"message_stop" => Type::MessageStop,
        b"response.completed" | b"response.incomplete" => Type::ResponseEnded,
        b"response.audio.delta" => Type::ResponseAudio,
        name if name.starts_with(b"response.") => Type::Response,
        _ => Type::Other,
    }
}
