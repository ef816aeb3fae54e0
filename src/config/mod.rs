//! Configuration: the schema, its checks, and the immutable form that every request shares.
//!
//! Knows what may be configured and what goes with what; nothing of requests.

mod compiled;
mod error;
mod secret;

pub use compiled::{Access, BodyStyle, Bypass, ChallengeStyle, Config, Facilitator, PreCheck, SmartWalletPolicy};
pub use error::ConfigError;
pub use secret::Secret;

/// Parses and checks a configuration (JSON). Every mistake is reported, not only the first.
pub fn parse(json: &[u8]) -> Result<Config, Vec<ConfigError>> {
    let _ = json;
    Err(Vec::new())
}
