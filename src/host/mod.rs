//! Envoy through proxy-wasm: the only code that knows it. It turns callbacks into events and carries out effects; it decides nothing.
//!
//! The module plays two roles, told apart by the plugin's `root_id`: `x402-reader` and, under any other name, the gate.

mod abi;
mod callout;
mod calls;
mod configured;
mod ending;
mod former;
mod gate_root;
mod gate_stream;
mod head;
mod metrics;
#[cfg(feature = "panic-switch")]
mod panic_switch;
mod reader_root;
mod shared_stream;
mod store;
mod worker;

use proxy_wasm::traits::RootContext;
use proxy_wasm::types::LogLevel;

/// The `root_id` of the reader.
const READER: &[u8] = b"x402-reader";

/// What the SDK calls when Envoy has loaded the module.
pub(crate) fn start() {
    // Also installs the SDK's panic hook, which writes the panic's message to the log before the VM is gone.
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_root_context(new_root);
}

fn new_root(context: u32) -> Box<dyn RootContext> {
    match abi::property(&["plugin_root_id"]).as_deref() {
        Some(READER) => Box::new(reader_root::ReaderRoot::default()),
        _ => Box::new(gate_root::GateRoot::new(context)),
    }
}
