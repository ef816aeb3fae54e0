//! The facts of a body.

/// Longest model name that is read, in bytes.
pub const MAX_MODEL_BYTES: usize = 256;

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
    /// `model` twice, or spelled with other case.
    Duplicate,
    /// `model` is not a string, or longer than 256 bytes.
    BadModel,
}

/// What was read from a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The top-level `model`, at most 256 bytes.
    pub model: Option<String>,
    /// Bytes of the body as sent.
    pub size: usize,
    /// keccak-256 of the body as sent.
    pub digest: [u8; 32],
}
