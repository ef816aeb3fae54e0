//! What an LLM's answer cost: the backend's own count of tokens, read as the answer passes.
//!
//! Bytes in, bytes out and a [`Metered`]: knows the answers of LLMs and nothing of prices, payments or Envoy.
//!
//! ```
//! use x402_envoy::metering::{AnswerKind, Meter, Usage};
//! let kind = AnswerKind::of(Some(b"text/event-stream"), None);
//! let mut meter = Meter::new(kind, true);
//! let text = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n";
//! assert_eq!(*meter.chunk(text), *text);
//! let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n";
//! assert!(meter.chunk(usage).is_empty());
//! assert_eq!(*meter.chunk(b"data: [DONE]\n\n"), *b"data: [DONE]\n\n");
//! assert!(meter.end().is_empty());
//! assert_eq!(meter.metered().usage, Some(Usage { input: 5, output: 1, ..Usage::default() }));
//! assert!(meter.metered().finished);
//! ```

mod answer;
mod beginning;
mod body;
mod bytes;
pub mod estimate;
mod event;
mod found;
mod frames;
mod hold;
mod keys;
mod meter;
mod prefix;
mod scanner;
mod sse;
mod tail;
mod text;
mod usage;

pub use answer::AnswerKind;
pub use meter::{Meter, Metered};
pub use tail::Place;
pub use usage::Usage;
