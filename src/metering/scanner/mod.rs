//! JSON read as it comes in, in constant memory: reports values with their paths, and skips what nobody asks for.

mod number;
#[cfg(test)]
mod tests;

use self::number::Number;
use super::text::{Taken, Text};

/// The step of a path into an array.
pub(super) const ITEM: &str = "[]";
/// The step of a path to a key that the sink does not know.
pub(super) const OTHER: &str = "*";
/// The deepest that a sink can look; what is deeper is skipped.
const MAX_DEPTH: usize = 8;

/// A value, or the end of one that has values in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'t> {
    /// An object begins.
    Object,
    /// An array begins.
    Array,
    /// An object or array that was entered ends.
    End,
    /// A string: its decoded length in bytes of UTF-8, and the string itself if it is short.
    Text { bytes: u64, short: Option<&'t [u8]> },
    /// A number; only those that are written as non-negative integers have a value, at most `u64::MAX`.
    Number(Option<u64>),
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

/// Who is told of values.
pub(super) trait Sink {
    /// The key of this name, if it is one that paths are made of; any other key is a step that equals none of these.
    fn key(name: &[u8]) -> Option<&'static str>;

    /// Whether the values in the object or array at this path are wanted.
    fn enters(&self, path: &[&str]) -> bool;

    /// A value at a path.
    fn value(&mut self, path: &[&str], value: Value<'_>);
}

/// The scanner's place in a document.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    text: Text,
    /// Whether each object or array around the place is an object.
    objects: Vec<bool>,
    /// For each of them, the step to the place.
    path: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a value; `or_end` right after `[`.
    Value {
        or_end: bool,
    },
    /// Before a key; `or_end` right after `{`.
    Key {
        or_end: bool,
    },
    Colon,
    /// After a value.
    After,
    Text {
        key: bool,
    },
    Number(Number),
    Literal {
        left: &'static [u8],
        value: Value<'static>,
    },
    /// Within a value that nobody wants; its brackets are counted, not matched.
    Skip {
        depth: u64,
        quote: Quote,
    },
    Done,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Value { or_end: false },
            text: Text::default(),
            objects: Vec::with_capacity(MAX_DEPTH),
            path: Vec::with_capacity(MAX_DEPTH),
        }
    }

    /// Makes this the start of another document, keeping the memory.
    pub(super) fn restart(&mut self) {
        self.state = State::Value { or_end: false };
        self.objects.clear();
        self.path.clear();
    }

    /// Makes this the place where another scanner is, keeping the memory.
    pub(super) fn copy(&mut self, other: &Self) {
        self.state = other.state;
        self.text.copy(&other.text);
        self.objects.clone_from(&other.objects);
        self.path.clone_from(&other.path);
    }

    /// Whether one object, array, string or literal was read to its end, and nothing but blanks since.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether what was read cannot be the start of a JSON document.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Takes the next bytes of the document.
    pub(super) fn feed<S: Sink>(&mut self, mut bytes: &[u8], sink: &mut S) {
        while let Some((byte, rest)) = bytes.split_first() {
            bytes = match self.state {
                State::Broken => return,
                State::Text { key } => match self.text.take(bytes) {
                    Taken::All => return,
                    Taken::Closed(rest) => {
                        self.close_text(key, sink);
                        rest
                    }
                    Taken::Broken => {
                        self.state = State::Broken;
                        return;
                    }
                },
                State::Skip { depth, quote } => self.skip(bytes, depth, quote),
                State::Number(number) => match number.with(*byte) {
                    Some(number) => {
                        self.state = State::Number(number);
                        rest
                    }
                    None => {
                        self.report(Value::Number(number.value()), sink);
                        bytes // the byte that ends a number belongs to what follows
                    }
                },
                _ => {
                    self.step(*byte, sink);
                    rest
                }
            };
        }
    }

    /// A byte outside of strings, numbers and what is skipped.
    fn step<S: Sink>(&mut self, byte: u8, sink: &mut S) {
        if let State::Literal { left, value } = self.state {
            match left.split_first() {
                Some((expected, [])) if *expected == byte => self.report(value, sink),
                Some((expected, left)) if *expected == byte => self.state = State::Literal { left, value },
                _ => self.state = State::Broken,
            }
            return;
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return;
        }
        self.state = match (self.state, byte) {
            (State::Value { or_end: true }, b']') | (State::Key { or_end: true }, b'}') => return self.leave(sink),
            (State::Value { .. }, b'{') => return self.enter(Value::Object, sink),
            (State::Value { .. }, b'[') => return self.enter(Value::Array, sink),
            (State::Value { .. }, b'"') => self.open_text(false),
            (State::Value { .. }, b'0') => State::Number(Number::Zero),
            (State::Value { .. }, b'1'..=b'9') => State::Number(Number::Integer(u64::from(byte & 0xf))),
            (State::Value { .. }, b'-') => State::Number(Number::Other),
            (State::Value { .. }, b'n') => literal(b"ull", Value::Null),
            (State::Value { .. }, b't') => literal(b"rue", Value::Bool),
            (State::Value { .. }, b'f') => literal(b"alse", Value::Bool),
            (State::Key { .. }, b'"') => self.open_text(true),
            (State::Colon, b':') => State::Value { or_end: false },
            (State::After, b',') => match self.objects.last() {
                Some(true) => State::Key { or_end: false },
                _ => State::Value { or_end: false },
            },
            (State::After, b'}') if self.objects.last() == Some(&true) => return self.leave(sink),
            (State::After, b']') if self.objects.last() == Some(&false) => return self.leave(sink),
            _ => State::Broken,
        };
    }

    fn enter<S: Sink>(&mut self, value: Value<'_>, sink: &mut S) {
        sink.value(&self.path, value);
        if self.objects.len() >= MAX_DEPTH || !sink.enters(&self.path) {
            self.state = State::Skip {
                depth: 1,
                quote: Quote::Outside,
            };
            return;
        }
        let is_object = value == Value::Object;
        self.objects.push(is_object);
        self.path.push(if is_object { OTHER } else { ITEM });
        self.state = if is_object {
            State::Key { or_end: true }
        } else {
            State::Value { or_end: true }
        };
    }

    fn leave<S: Sink>(&mut self, sink: &mut S) {
        self.objects.pop();
        self.path.pop();
        self.report(Value::End, sink);
    }

    /// A value is complete.
    fn report<S: Sink>(&mut self, value: Value<'_>, sink: &mut S) {
        sink.value(&self.path, value);
        self.after();
    }

    fn after(&mut self) {
        self.state = if self.objects.is_empty() { State::Done } else { State::After };
    }

    fn open_text(&mut self, key: bool) -> State {
        self.text.restart();
        State::Text { key }
    }

    fn close_text<S: Sink>(&mut self, key: bool, sink: &mut S) {
        let short = self.text.short();
        if key {
            let known = short.and_then(S::key);
            if let Some(step) = self.path.last_mut() {
                *step = known.unwrap_or(OTHER);
            }
            self.state = State::Colon;
            return;
        }
        let bytes = self.text.bytes();
        sink.value(&self.path, Value::Text { bytes, short });
        self.after();
    }

    /// Skips bytes up to the next that matters, and gives those after it.
    fn skip<'a>(&mut self, bytes: &'a [u8], depth: u64, quote: Quote) -> &'a [u8] {
        if quote == Quote::Escaped {
            self.state = State::Skip {
                depth,
                quote: Quote::Inside,
            };
            return bytes.split_first().map_or(bytes, |(_, rest)| rest);
        }
        let matters = |byte: &u8| match quote {
            Quote::Outside => matches!(byte, b'"' | b'{' | b'}' | b'[' | b']'),
            Quote::Inside | Quote::Escaped => matches!(byte, b'"' | b'\\'),
        };
        let at = bytes.iter().position(matters).unwrap_or(bytes.len());
        let Some((byte, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
            return &[];
        };
        let (depth, quote) = match (quote, byte) {
            (Quote::Outside, b'"') => (depth, Quote::Inside),
            (Quote::Outside, b'{' | b'[') => (depth.saturating_add(1), quote),
            (Quote::Outside, _) => (depth.saturating_sub(1), quote),
            (_, b'"') => (depth, Quote::Outside),
            (_, _) => (depth, Quote::Escaped),
        };
        if depth == 0 {
            self.after();
        } else {
            self.state = State::Skip { depth, quote };
        }
        rest
    }
}

fn literal(left: &'static [u8], value: Value<'static>) -> State {
    State::Literal { left, value }
}
