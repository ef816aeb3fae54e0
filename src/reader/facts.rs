//! The facts of a body.

use super::unpriced::Unpriced;

/// Longest model name that is read, in bytes.
pub const MAX_MODEL_BYTES: usize = 256;

/// Most conditions whose outcome is handed over.
pub const MAX_OUTCOMES: usize = 128;

/// What a request's body says that matters for its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyFacts {
    /// There is no body.
    None,
    /// There is one and it cannot be relied on to mean the same to the backend.
    Unreadable(Why),
    /// A JSON object.
    Json(Facts),
}

/// Why a body is not relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `content-encoding` is other than `identity`.
    Encoded,
    /// `content-type` is there and is not JSON.
    NotJson,
    /// Not well-formed: not UTF-8, a BOM, text after the end, too deep, or not JSON at all.
    Malformed,
    /// JSON, but not an object.
    NotAnObject,
    /// A key twice, or one that the price depends on spelled with other case.
    Duplicate,
    /// `model` is not a string, or longer than 256 bytes.
    BadModel,
    /// `max_tokens`, `n` or the like is not a whole number above zero.
    BadLimit,
    /// A key that asks for what is not priced, on a route priced per token.
    Unpriced(Unpriced),
}

/// What was read from a JSON body. Holds nothing of what a prompt says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The top-level `model`, at most 256 bytes.
    pub model: Option<String>,
    /// Bytes of the body as sent.
    pub size: usize,
    /// keccak-256 of the body as sent.
    pub digest: [u8; 32],
    /// What bounds the tokens of the request and its answer, where the route is priced by them.
    pub tokens: Option<TokenFacts>,
    /// What became of conditions over the body, where the route has any; in the order of their fingerprints.
    pub outcomes: Vec<(u64, Outcome)>,
}

/// What became of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does not hold.
    False,
    /// It holds.
    True,
    /// It could not be computed: a field is missing or of another type.
    Undecided,
}

/// What bounds the tokens of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenFacts {
    /// Whose protocol the request speaks.
    pub api: Api,
    /// Numbers where the input should be: ids of tokens.
    pub token_ids: u64,
    /// The largest maximum that is named for one choice's output tokens.
    pub max_output: Option<u64>,
    /// How many completions are asked for, at least 1: prompts × the larger of `n` and `best_of`.
    pub choices: u64,
    /// `stream: true`.
    pub stream: bool,
    /// `stream_options.include_usage`, if it is there.
    pub include_usage: Option<bool>,
    /// Whether there may be input that is not text in this body.
    pub external_input: bool,
}

/// Whose protocol a request speaks, by its path, else by its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI chat completions: `max_tokens`, `max_completion_tokens`.
    Chat,
    /// OpenAI completions: `max_tokens`.
    Completions,
    /// OpenAI responses: `max_output_tokens`.
    Responses,
    /// OpenAI embeddings: no output tokens.
    Embeddings,
    /// Anthropic messages: `max_tokens`.
    Messages,
    /// None of these: any of the names counts.
    Other,
}

impl Api {
    /// Whether `stream_options.include_usage` is part of it.
    pub fn has_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// The names under which a maximum of output tokens counts; the first is the one that is written.
    pub fn limit_names(self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["max_tokens", "max_completion_tokens"],
            Self::Completions | Self::Messages => &["max_tokens"],
            Self::Responses => &["max_output_tokens"],
            Self::Embeddings => &[],
            Self::Other => &["max_tokens", "max_completion_tokens", "max_output_tokens"],
        }
    }
}

/// What is to be changed in a body before the backend sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The most output tokens of one choice: takes the place of every larger maximum that is named, or is added.
    pub set_max_output: Option<u64>,
    /// `stream_options.include_usage` becomes true.
    pub include_usage: bool,
}

impl Rewrite {
    /// This change, with the smaller limit if another one sets one too.
    #[must_use]
    pub fn within(self, other: &Self) -> Self {
        let limits = [self.set_max_output, other.set_max_output];
        Self {
            set_max_output: limits.into_iter().flatten().min(),
            ..self
        }
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
