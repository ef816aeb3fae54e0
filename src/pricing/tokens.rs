//! `per_token`: what a completion can cost at most, known from its request, and what it did cost, known from its usage.

use super::glob::Glob;
use super::offer::Atomic;
use super::quote::QuoteRefusal;
use super::rate::Rates;
use crate::metering::{Usage, estimate::tokens_estimate};
use crate::reader::{Api, Facts, Rewrite, TokenFacts};

/// A price per token.
///
/// ```yaml
/// price: {per_token: {input: "$0.0000025", output: "$0.00001", max_output: 4096}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerToken {
    /// What each model costs; the first whose glob fits, which is the most specific one.
    pub(crate) models: Vec<(Glob, TokenTable)>,
    /// What the others cost; `None`: they are not sold.
    pub(crate) other: Option<TokenTable>,
    /// The most tokens that one completion may have; zero where the answer has none (embeddings).
    pub(crate) max_output: u64,
    /// What the input of a body that refers to input elsewhere is taken to be; `None`: such a body is refused.
    pub(crate) max_input: Option<u64>,
    pub(crate) estimate: InputEstimate,
}

/// The rates of one model, for each of the route's offers in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenTable {
    /// `input`, `cached_input`, `output`, `reasoning`.
    pub(crate) rates: Vec<Rates<4>>,
}

/// How many tokens a body can have at most: `overhead + size × tokens / bytes`, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputEstimate {
    /// Tokens in this many bytes; the numerator.
    pub(crate) tokens: u128,
    /// Bytes; the denominator, at least 1.
    pub(crate) bytes: u128,
    /// Tokens that a backend adds of its own: templates, default system prompts.
    pub(crate) overhead: u64,
}

impl Default for InputEstimate {
    /// A tokenizer makes of a text at most one token a byte; chat templates add their own.
    fn default() -> Self {
        Self {
            tokens: 1,
            bytes: 1,
            overhead: 100,
        }
    }
}

/// What a quote per token was computed from: what metering needs later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenQuote {
    /// Which table of rates: an index into the models, or the one for all others.
    pub(crate) table: Option<usize>,
    /// Input tokens that were quoted.
    pub input: u64,
    /// Input tokens that the request probably has: what is charged if the backend does not count them. At most `input`.
    pub likely_input: u64,
    /// Output tokens that were quoted, over all choices.
    pub output: u64,
    /// Whose protocol the request speaks.
    pub api: Api,
    /// Whether the answer will be a stream.
    pub stream: bool,
    /// `stream_options.include_usage`, if the client said.
    pub include_usage: Option<bool>,
}

impl InputEstimate {
    /// The most tokens that a body can have; token ids count for themselves.
    pub(crate) fn bound(&self, size: u64, token_ids: u64) -> Option<u64> {
        let scaled = u128::from(size).checked_mul(self.tokens)?.div_ceil(self.bytes.max(1));
        let text = u64::try_from(scaled).ok()?;
        // One id takes two bytes at least: where a byte counts for half a token or more, they are counted already.
        let ids = if self.tokens.checked_mul(2)? >= self.bytes { 0 } else { token_ids };
        text.checked_add(ids)?.checked_add(self.overhead)
    }
}

impl PerToken {
    /// What a request is quoted.
    pub(crate) fn quote(&self, facts: &Facts) -> Result<(Vec<Atomic>, TokenQuote), QuoteRefusal> {
        let tokens = facts.tokens.as_ref().ok_or(QuoteRefusal::FactsMissing)?;
        let (table, rates) = self.table_for(facts.model.as_deref()).ok_or(QuoteRefusal::UnknownModel)?;
        let input = match (tokens.external_input, self.max_input) {
            (true, None) => return Err(QuoteRefusal::ExternalInput),
            (true, Some(max_input)) => Some(max_input),
            (false, None) => self.bound(facts, tokens),
            (false, Some(max_input)) => self.bound(facts, tokens).map(|bound| bound.min(max_input)),
        };
        let input = input.ok_or(QuoteRefusal::TooLarge)?;
        let output = self.limit(tokens).checked_mul(tokens.choices).ok_or(QuoteRefusal::TooLarge)?;
        let at_most = Usage {
            input,
            cached_input: 0,
            output,
            reasoning: 0,
        };
        // A request that can use nothing but free tokens still takes a payment: one unit, of which nothing is settled.
        let least = |amount: Atomic| amount.max(Atomic(1));
        let amounts: Option<Vec<Atomic>> = rates.rates.iter().map(|rates| most(rates, &at_most).map(least)).collect();
        let quote = TokenQuote {
            table,
            input,
            likely_input: self.likely(facts, tokens).min(input),
            output,
            api: tokens.api,
            stream: tokens.stream,
            include_usage: tokens.include_usage,
        };
        Ok((amounts.ok_or(QuoteRefusal::TooLarge)?, quote))
    }

    fn bound(&self, facts: &Facts, tokens: &TokenFacts) -> Option<u64> {
        self.estimate.bound(u64::try_from(facts.size).ok()?, tokens.token_ids)
    }

    fn likely(&self, facts: &Facts, tokens: &TokenFacts) -> u64 {
        if tokens.external_input {
            return u64::MAX;
        }
        let size = u64::try_from(facts.size).unwrap_or(u64::MAX);
        // Ids are tokens already, of which some have one digit only.
        tokens_estimate(size).max(tokens.token_ids).saturating_add(self.estimate.overhead)
    }

    /// The most tokens that one choice of an answer can have.
    fn limit(&self, tokens: &TokenFacts) -> u64 {
        match tokens.api {
            Api::Embeddings => 0,
            _ => tokens.max_output.map_or(self.max_output, |asked| asked.min(self.max_output)),
        }
    }

    /// What has to be written into a request so that its quote cannot be exceeded and its usage is told.
    pub(crate) fn rewrite(&self, tokens: &TokenFacts) -> Rewrite {
        let counts = tokens.api != Api::Embeddings && self.max_output > 0;
        let within = tokens.max_output.is_some_and(|asked| asked <= self.max_output);
        Rewrite {
            set_max_output: (counts && !within).then_some(self.max_output),
            include_usage: tokens.stream && tokens.api.has_stream_options() && tokens.include_usage != Some(true),
        }
    }

    /// What was used costs, for the offer at an index; `None` if there is no such offer or 128 bits cannot hold it.
    pub(crate) fn cost(&self, quote: &TokenQuote, offer: usize, usage: &Usage) -> Option<Atomic> {
        let table = match quote.table {
            Some(index) => self.models.get(index).map(|(_, table)| table),
            None => self.other.as_ref(),
        };
        let cached = usage.cached_input.min(usage.input);
        let reasoning = usage.reasoning.min(usage.output);
        let counts = [
            usage.input.saturating_sub(cached),
            cached,
            usage.output.saturating_sub(reasoning),
            reasoning,
        ];
        table?.rates.get(offer)?.cost(counts)
    }

    /// Whether any output costs something.
    pub(crate) fn charges_output(&self) -> bool {
        let costs = |rates: &Rates<4>| matches!(rates.numerators, [_, _, output, reasoning] if output > 0 || reasoning > 0);
        self.tables().any(|table| table.rates.iter().any(costs))
    }

    /// Whether reasoning has a rate of its own.
    pub(crate) fn charges_reasoning(&self) -> bool {
        let differs = |rates: &Rates<4>| matches!(rates.numerators, [_, _, output, reasoning] if output != reasoning);
        self.tables().any(|table| table.rates.iter().any(differs))
    }

    fn tables(&self) -> impl Iterator<Item = &TokenTable> {
        self.models.iter().map(|(_, table)| table).chain(&self.other)
    }

    /// The most that one request with the given input can cost in each offer, whatever the model: for warnings.
    pub(crate) fn highest(&self, offers: usize) -> Vec<Atomic> {
        let input = self.max_input.unwrap_or(self.estimate.overhead);
        let at_most = Usage {
            input,
            output: self.max_output,
            ..Usage::default()
        };
        let highest = |offer: usize| self.tables().filter_map(|table| most(table.rates.get(offer)?, &at_most)).max();
        (0..offers).map(|offer| highest(offer).unwrap_or_default()).collect()
    }

    fn table_for(&self, model: Option<&str>) -> Option<(Option<usize>, &TokenTable)> {
        let named = model.and_then(|model| {
            let fits = |(_, (glob, _)): &(usize, &(Glob, TokenTable))| glob.matches(model.as_bytes());
            self.models.iter().enumerate().find(fits)
        });
        match named {
            Some((index, (_, table))) => Some((Some(index), table)),
            None => self.other.as_ref().map(|table| (None, table)),
        }
    }
}

/// The most that tokens can cost: each at the dearer rate that it may turn out to have.
fn most(rates: &Rates<4>, usage: &Usage) -> Option<Atomic> {
    let [input, cached, output, reasoning] = rates.numerators;
    let dearest = Rates {
        numerators: [input.max(cached), output.max(reasoning)],
        divisor: rates.divisor,
    };
    dearest.cost([usage.input, usage.output])
}
