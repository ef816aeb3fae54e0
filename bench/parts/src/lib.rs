//! The parts that a payment's pre-check is made of, each to be run many times: the sources are the filter's own.
//!
//! They are compiled in from `src/` rather than linked as a crate, because the filter's crate brings an entry point for Envoy along, and a
//! module can have only one.

#![allow(dead_code, unused_imports)] // of what only the rest of the filter uses

#[path = "../../../src/breaker/mod.rs"]
pub mod breaker;
#[path = "../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../src/doubles.rs"]
mod doubles;
#[path = "../../../src/evm/mod.rs"]
pub mod evm;
#[path = "../../../src/json.rs"]
pub mod json;
#[path = "../../../src/metering/mod.rs"]
pub mod metering;
#[path = "../../../src/precheck/mod.rs"]
pub mod precheck;
#[path = "../../../src/pricing/mod.rs"]
pub mod pricing;
#[path = "../../../src/reader/mod.rs"]
pub mod reader;
#[path = "../../../src/replay/mod.rs"]
pub mod replay;
#[path = "../../../src/sorting.rs"]
mod sorting;
#[path = "../../../src/supported/mod.rs"]
pub mod supported;
#[path = "../../../src/x402/mod.rs"]
pub mod x402;

#[cfg(target_family = "wasm")]
mod host;
mod parts;

pub use parts::{PARTS, Parts};
