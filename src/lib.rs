//! x402-envoy: an Envoy filter that makes any HTTP backend payable with x402.
//!
//! | module | owns |
//! | --- | --- |
//! | [`config`] | the schema, its validation, and the compiled form that every stream shares |
//! | [`pricing`] | route matching, money, prices, quotes |
//! | [`reader`] | what a price needs to know of a request's body, and what it changes there |
//! | [`metering`] | usage read from an LLM's answer as it passes |
//! | [`x402`] | the wire: payments in four dialects, challenges, receipts, the facilitator's API |
//! | [`evm`] | addresses, EIP-712, EIP-3009, Permit2, EIP-2612, signature recovery |
//! | [`precheck`] | all that can be decided about a payment locally, cheapest test first |
//! | [`replay`] | claims: what can be spent once, over a shared key-value store |
//! | [`breaker`] | when calls to a facilitator are held back: circuit breaker and bound |
//! | [`supported`] | what facilitators say of themselves, shared by the workers |
//! | [`gate`] | the payment state machine of one request |
//! | [`json`] | JSON from strangers, read strictly |
//! | `host` | Envoy through proxy-wasm; compiled for wasm only |
//!
//! Everything but `host` is native Rust without I/O, clocks or globals.

pub mod breaker;
pub mod config;
mod doubles;
pub mod evm;
pub mod gate;
pub mod json;
pub mod metering;
pub mod precheck;
pub mod pricing;
pub mod reader;
pub mod replay;
mod sorting;
pub mod supported;
pub mod x402;

#[cfg(target_family = "wasm")]
mod host;

#[cfg(target_family = "wasm")]
#[allow(missing_docs)] // of what the SDK's macro expands to
mod entry {
    proxy_wasm::main! {{
        crate::host::start();
    }}
}
