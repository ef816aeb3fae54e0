//! The HTTP API.

pub mod webhook;
