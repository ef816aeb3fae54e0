//! x402-envoy: an Envoy filter that makes any HTTP backend payable with x402.
//!
//! Everything but `host` is native Rust without I/O, clocks or globals; `host` is the only code that knows proxy-wasm.

pub mod config;
pub mod evm;
pub mod gate;
pub mod precheck;
pub mod pricing;
pub mod reader;
pub mod replay;
pub mod x402;
