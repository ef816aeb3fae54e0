//! Counts of tokens, in the words of each API.
//!
//! | API | input | of it from a cache | output | of it reasoning |
//! | --- | --- | --- | --- | --- |
//! | OpenAI chat, completions, embeddings | `prompt_tokens` | `prompt_tokens_details.cached_tokens` | `completion_tokens` | `completion_tokens_details.reasoning_tokens` |
//! | OpenAI responses | `input_tokens` | `input_tokens_details.cached_tokens` | `output_tokens` | `output_tokens_details.reasoning_tokens` |
//! | Anthropic messages | `input_tokens` + `cache_read_input_tokens` + `cache_creation_input_tokens` | `cache_read_input_tokens` | `output_tokens` | `output_tokens_details.thinking_tokens` |
//!
//! Some servers leave reasoning out of `completion_tokens` but not out of `total_tokens`: what is in the total and not
//! in the input is output.

use super::scanner::Value;

/// Tokens of one answer, as the backend counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input, what was read from or written to a cache included.
    pub input: u64,
    /// Input that was read from a cache; at most `input`.
    pub cached_input: u64,
    /// All output, reasoning included.
    pub output: u64,
    /// Output that was reasoning; at most `output`.
    pub reasoning: u64,
}

/// Whether an object at this path below `usage` has counts in it.
pub(super) fn has_counts(path: &[&str]) -> bool {
    matches!(
        path,
        [] | ["prompt_tokens_details" | "input_tokens_details" | "completion_tokens_details" | "output_tokens_details"]
    )
}

/// What one or more `usage` objects of an answer say.
///
/// Counts are cumulative, so an answer that says more than once what it used means the last; the largest is taken of
/// each count, which is the same, and not less for the seller if a server sends zeros last. Only of the input that came
/// from a cache, which makes the answer cheaper, the last count is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    prompt: Option<u64>,
    input: Option<u64>,
    cached: Option<u64>,
    cache_read: Option<u64>,
    cache_written: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
}

impl Counts {
    /// Adds what a later `usage` says.
    pub(super) fn merge(&mut self, later: Self) {
        *self = Self {
            prompt: self.prompt.max(later.prompt),
            input: self.input.max(later.input),
            cached: later.cached.or(self.cached),
            cache_read: self.cache_read.max(later.cache_read),
            cache_written: self.cache_written.max(later.cache_written),
            output: self.output.max(later.output),
            reasoning: self.reasoning.max(later.reasoning),
            total: self.total.max(later.total),
        };
    }

    /// The counts in one set of words.
    pub(super) fn usage(&self) -> Usage {
        let cache_read = self.cache_read.unwrap_or(0);
        let parts = [self.input, self.cache_read, self.cache_written];
        let input = match self.prompt {
            // OpenAI's count includes the cache, also where a proxy adds Anthropic's fields to it.
            Some(prompt) => prompt.max(self.input.unwrap_or(0)),
            None => parts.into_iter().flatten().fold(0, u64::saturating_add),
        };
        let in_total = self.total.unwrap_or(0).saturating_sub(input);
        let output = self.output.unwrap_or(0).max(in_total);
        Usage {
            input,
            cached_input: self.cached.unwrap_or(0).max(cache_read).min(input),
            output,
            reasoning: self.reasoning.unwrap_or(0).min(output),
        }
    }
}

/// A `usage` object being read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statement {
    counts: Counts,
    garbage: bool,
}

impl Statement {
    /// Takes a value, its path being relative to the `usage` object.
    ///
    /// A count that is there and is neither null nor a non-negative integer spoils the statement; among the details,
    /// which are parts of the others, it is as if it were not there.
    pub(super) fn value(&mut self, path: &[&str], value: Value<'_>) {
        let counts = &mut self.counts;
        let (slot, is_detail) = match path {
            ["prompt_tokens"] => (&mut counts.prompt, false),
            ["input_tokens"] => (&mut counts.input, false),
            ["cache_read_input_tokens"] => (&mut counts.cache_read, false),
            ["cache_creation_input_tokens"] => (&mut counts.cache_written, false),
            ["completion_tokens" | "output_tokens"] => (&mut counts.output, false),
            ["total_tokens"] => (&mut counts.total, false),
            ["prompt_tokens_details" | "input_tokens_details", "cached_tokens"] => (&mut counts.cached, true),
            ["completion_tokens_details" | "output_tokens_details", "reasoning_tokens"] => (&mut counts.reasoning, true),
            ["output_tokens_details", "thinking_tokens"] => (&mut counts.reasoning, true),
            _ => return,
        };
        match value {
            Value::Number(Some(count)) => *slot = Some(slot.unwrap_or(0).max(count)),
            Value::Null => {}
            _ => self.garbage |= !is_detail,
        }
    }

    /// The counts, if this was a count of tokens at all.
    pub(super) fn counts(self) -> Option<Counts> {
        let Counts { prompt, input, output, .. } = self.counts;
        (!self.garbage && prompt.or(input).or(output).is_some()).then_some(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[(&[&str], u64)]) -> Counts {
        let mut statement = Statement::default();
        for (path, count) in values {
            statement.value(path, Value::Number(Some(*count)));
        }
        statement.counts().unwrap()
    }

    #[test]
    fn each_api_says_it_in_its_own_words() {
        let anthropic = counts(&[
            (&["input_tokens"], 3),
            (&["cache_read_input_tokens"], 100),
            (&["cache_creation_input_tokens"], 20),
            (&["output_tokens"], 7),
            (&["output_tokens_details", "thinking_tokens"], 5),
        ]);
        let usage = Usage {
            input: 123,
            cached_input: 100,
            output: 7,
            reasoning: 5,
        };
        assert_eq!(anthropic.usage(), usage);
        let proxied = counts(&[
            (&["prompt_tokens"], 123),
            (&["prompt_tokens_details", "cached_tokens"], 100),
            (&["cache_read_input_tokens"], 100),
            (&["completion_tokens"], 7),
            (&["completion_tokens_details", "reasoning_tokens"], 5),
            (&["total_tokens"], 130),
        ]);
        assert_eq!(proxied.usage(), usage);
        let reasoning_apart = counts(&[
            (&["prompt_tokens"], 32),
            (&["completion_tokens"], 9),
            (&["completion_tokens_details", "reasoning_tokens"], 94),
            (&["total_tokens"], 135),
        ]);
        assert_eq!((reasoning_apart.usage().output, reasoning_apart.usage().reasoning), (103, 94));
    }

    #[test]
    fn parts_are_never_more_than_the_whole() {
        let usage = counts(&[
            (&["prompt_tokens"], 1),
            (&["prompt_tokens_details", "cached_tokens"], 2),
            (&["completion_tokens_details", "reasoning_tokens"], 2),
        ])
        .usage();
        assert_eq!(
            usage,
            Usage {
                input: 1,
                cached_input: 1,
                output: 0,
                reasoning: 0
            }
        );
        let usage = counts(&[(&["input_tokens"], u64::MAX), (&["cache_read_input_tokens"], u64::MAX)]).usage();
        assert_eq!((usage.input, usage.cached_input), (u64::MAX, u64::MAX));
    }

    #[test]
    fn later_counts_add_to_earlier_ones() {
        let mut merged = counts(&[(&["input_tokens"], 9), (&["cache_read_input_tokens"], 4), (&["output_tokens"], 1)]);
        merged.merge(counts(&[(&["output_tokens"], 30)]));
        merged.merge(counts(&[(&["output_tokens"], 0), (&["input_tokens"], 0)]));
        assert_eq!(
            merged.usage(),
            Usage {
                input: 13,
                cached_input: 4,
                output: 30,
                reasoning: 0
            }
        );
        let cached = |count| counts(&[(&["prompt_tokens"], 9), (&["prompt_tokens_details", "cached_tokens"], count)]);
        let mut merged = cached(8);
        merged.merge(cached(2));
        assert_eq!(merged.usage().cached_input, 2);
    }

    #[test]
    fn garbage_is_no_count() {
        let with = |path: &[&str], value| {
            let mut statement = Statement::default();
            statement.value(&["prompt_tokens"], Value::Number(Some(1)));
            statement.value(path, value);
            statement.counts()
        };
        for value in [
            Value::Number(None),
            Value::Bool,
            Value::Object,
            Value::Text {
                bytes: 1,
                short: Some(b"1"),
            },
        ] {
            assert_eq!(with(&["completion_tokens"], value), None);
            assert_eq!(with(&["prompt_tokens_details", "cached_tokens"], value).unwrap().usage().input, 1);
        }
        assert!(with(&["completion_tokens"], Value::Null).is_some());
        assert_eq!(Statement::default().counts(), None);
    }
}
