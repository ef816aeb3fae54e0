//! `cargo +nightly fuzz run metering`: any bytes as an answer, in any chunks. `cargo test` runs the corpus.
#![no_main]

#[path = "../checks/metering.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::check(input));
