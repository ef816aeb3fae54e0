//! The ledger's command line.

use clap::Parser as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use x402_ledger::cli::{Cli, run};

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("X402_LEDGER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard output is for what commands are asked for.
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                eprintln!("x402-ledger: {line}");
            }
            ExitCode::FAILURE
        }
    }
}
