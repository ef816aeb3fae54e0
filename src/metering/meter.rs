//! The meter of one answer.

use std::borrow::Cow;

use super::answer::AnswerKind;
use super::body::Body;
use super::estimate::tokens_estimate;
use super::sse::Sse;
use super::tail::{Place, Tail};
use super::usage::Usage;

/// What is known of an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metered {
    /// What the backend said it used; of several counts, the largest of each kind.
    pub usage: Option<Usage>,
    /// Bytes of the answer that were given out to be passed on.
    pub delivered_bytes: u64,
    /// Bytes of generated text in what was passed on, as UTF-8: of whole events for SSE, every byte for other answers.
    pub delivered_text_bytes: u64,
    /// The part of `delivered_text_bytes` that `usage` cannot include, because it came later: all of it without `usage`.
    pub uncounted_text_bytes: u64,
    /// The part of `delivered_text_bytes` that came since the count of output last rose: a running count that stands still has not
    /// counted the text beside it.
    pub stale_text_bytes: u64,
    /// The answer came to its own end: `[DONE]`, `message_stop`, `response.completed` or `response.incomplete`, or the
    /// close of a JSON document. Never for [`AnswerKind::Opaque`] and [`AnswerKind::Encoded`].
    pub finished: bool,
}

impl Metered {
    /// The same for an answer that was cut off, whose last count need not be meant as the last.
    #[must_use]
    pub fn cut_off(self) -> Self {
        Self {
            uncounted_text_bytes: self.stale_text_bytes.max(self.uncounted_text_bytes),
            ..self
        }
    }

    /// Tokens to charge for: the backend's count, and an estimate for text it did not count.
    ///
    /// `input_estimate` stands in for the input if the backend counted nothing.
    pub fn tokens(&self, input_estimate: u64) -> Usage {
        let counted = self.usage.unwrap_or(Usage {
            input: input_estimate,
            ..Usage::default()
        });
        Usage {
            output: counted.output.saturating_add(tokens_estimate(self.uncounted_text_bytes)),
            ..counted
        }
    }
}

/// Reads an answer as it passes.
///
/// Its memory is bounded, whatever the answer: a place in it and counts, and, if usage is withheld, at most the SSE
/// event in progress, of at most 256 KiB; a longer one is metered all the same, and passed on whatever it is.
#[derive(Debug)]
pub struct Meter {
    reader: Reader,
    delivered_bytes: u64,
    tail: Tail,
}

#[derive(Debug)]
enum Reader {
    Sse(Box<Sse>),
    Json(Box<Body>),
    Bytes,
}

impl Meter {
    /// A meter for an answer of this kind.
    ///
    /// `withhold_usage`: of an SSE answer, the event with which OpenAI's chat and legacy completions report usage is not
    /// passed on, because the client did not ask for it: one whose data has `choices: []`, a `usage` that is an object,
    /// and no `error`. With it, an event is held back until it is known not to be that one, which it mostly is at its
    /// first choice; without it, nothing is ever delayed or changed.
    pub fn new(kind: AnswerKind, withhold_usage: bool) -> Self {
        let reader = match kind {
            AnswerKind::Sse => Reader::Sse(Box::new(Sse::new(withhold_usage))),
            AnswerKind::Json => Reader::Json(Box::new(Body::new())),
            AnswerKind::Opaque | AnswerKind::Encoded => Reader::Bytes,
        };
        Self {
            reader,
            delivered_bytes: 0,
            tail: Tail::default(),
        }
    }

    /// Takes the next bytes of the answer and gives those to pass on now: borrowed, unless bytes were left out between
    /// them or held back before them.
    pub fn chunk<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let passed = match &mut self.reader {
            Reader::Sse(sse) => sse.chunk(bytes),
            Reader::Json(body) => {
                body.feed(bytes);
                Cow::Borrowed(bytes)
            }
            Reader::Bytes => Cow::Borrowed(bytes),
        };
        self.deliver(&passed);
        passed
    }

    /// Ends the answer, whether it is complete or was cut off, and gives the bytes to pass on last: what was held back,
    /// if anything. It also counts an SSE event that lacks the blank line at its end, so call it before
    /// [`Meter::metered`] for good.
    pub fn end(&mut self) -> Vec<u8> {
        let tail = match &mut self.reader {
            Reader::Sse(sse) => sse.end(),
            Reader::Json(_) | Reader::Bytes => Vec::new(),
        };
        self.deliver(&tail);
        tail
    }

    /// What is known by now.
    pub fn metered(&self) -> Metered {
        let (counts, delivered_text_bytes, uncounted_text_bytes, stale_text_bytes, finished) = match &self.reader {
            Reader::Sse(sse) => {
                let heard = sse.heard();
                (heard.counts, heard.text, heard.uncounted, heard.stale, heard.finished)
            }
            Reader::Json(body) => {
                let uncounted = if body.counts().is_some() { 0 } else { self.delivered_bytes };
                (body.counts(), self.delivered_bytes, uncounted, uncounted, body.is_finished())
            }
            Reader::Bytes => (None, self.delivered_bytes, self.delivered_bytes, self.delivered_bytes, false),
        };
        Metered {
            usage: counts.map(|counts| counts.usage()),
            delivered_bytes: self.delivered_bytes,
            delivered_text_bytes,
            uncounted_text_bytes,
            stale_text_bytes,
            finished,
        }
    }

    /// Where what was passed on leaves a stream of events; `None` if the answer is none.
    pub fn place(&self) -> Option<Place> {
        matches!(self.reader, Reader::Sse(_)).then(|| self.tail.place())
    }

    /// Bytes of the answer that are held back now.
    pub fn held_bytes(&self) -> usize {
        match &self.reader {
            Reader::Sse(sse) => sse.held_bytes(),
            Reader::Json(_) | Reader::Bytes => 0,
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        self.tail.passed(bytes);
        self.delivered_bytes = self.delivered_bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_is_estimated() {
        let usage = Usage {
            input: 9,
            output: 1,
            ..Usage::default()
        };
        let cut_off = Metered {
            usage: Some(usage),
            uncounted_text_bytes: 9,
            ..Metered::default()
        };
        assert_eq!(cut_off.tokens(100), Usage { output: 4, ..usage });
        assert_eq!(
            Metered { usage: None, ..cut_off }.tokens(100),
            Usage {
                input: 100,
                output: 3,
                ..Usage::default()
            }
        );
    }

    #[test]
    fn answers_without_usage_have_bytes() {
        for (kind, finished) in [(AnswerKind::Json, true), (AnswerKind::Opaque, false), (AnswerKind::Encoded, false)] {
            let mut meter = Meter::new(kind, true);
            assert_eq!(*meter.chunk(b"{\"a\""), *b"{\"a\"");
            assert_eq!(*meter.chunk(b":1}"), *b":1}");
            assert!(meter.end().is_empty());
            let expected = Metered {
                usage: None,
                delivered_bytes: 7,
                delivered_text_bytes: 7,
                uncounted_text_bytes: 7,
                stale_text_bytes: 7,
                finished,
            };
            assert_eq!(meter.metered(), expected);
        }
    }
}
