//! The configuration of a plugin, as Envoy gives it.

use std::rc::Rc;

use super::abi;
use crate::config::{self, Config};
use crate::evm::keccak256;

/// A configuration that can be used.
pub(super) struct Configured {
    pub(super) config: Rc<Config>,
    /// The same for the same configuration, and never 0.
    pub(super) fingerprint: u64,
}

/// Reads and checks the plugin's configuration, logging each error. `None`: Envoy is to refuse it.
pub(super) fn configuration() -> Option<Configured> {
    let bytes = abi::buffer(abi::Buffer::PluginConfiguration, usize::MAX);
    // Of a Struct, whose fields come in any order, this is one text.
    let text = config::json_text(&bytes);
    match config::parse(&text) {
        Ok(config) => {
            let hash = keccak256(&text);
            Some(Configured {
                config: Rc::new(config),
                fingerprint: u64::from_be_bytes(*hash.first_chunk()?).max(1),
            })
        }
        Err(errors) => {
            for error in &errors {
                abi::log(abi::Level::Error, &format!("configuration: {error}"));
            }
            abi::log(
                abi::Level::Error,
                &format!("configuration refused: {} error(s), listed above", errors.len()),
            );
            None
        }
    }
}
