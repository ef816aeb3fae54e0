//! The HTTP API.

pub mod fund;
pub mod webhook;
