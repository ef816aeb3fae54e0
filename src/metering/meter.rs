//! The meter of one answer.

use std::borrow::Cow;

use super::answer::AnswerKind;
use super::estimate::tokens_estimate;
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
    /// The answer came to its own end: `[DONE]`, `message_stop`, `response.completed` or `response.incomplete`, or the
    /// close of a JSON document. Never for [`AnswerKind::Opaque`] and [`AnswerKind::Encoded`].
    pub finished: bool,
}

impl Metered {
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
#[derive(Debug)]
pub struct Meter {
    delivered_bytes: u64,
}

impl Meter {
    /// A meter for an answer of this kind.
    ///
    /// `withhold_usage`: of an SSE answer, the chunk with which OpenAI's completions report usage and nothing else is
    /// not passed on, because the client did not ask for it.
    pub fn new(_kind: AnswerKind, _withhold_usage: bool) -> Self {
        Self { delivered_bytes: 0 }
    }

    /// Takes the next bytes of the answer and gives those to pass on now.
    pub fn chunk<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.delivered_bytes = self.delivered_bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Cow::Borrowed(bytes)
    }

    /// Ends the answer, whether it is complete or was cut off, and gives the bytes to pass on last.
    pub fn end(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What is known by now.
    pub fn metered(&self) -> Metered {
        Metered {
            delivered_bytes: self.delivered_bytes,
            ..Metered::default()
        }
    }
}
