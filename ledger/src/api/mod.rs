//! The HTTP API.
//!
//! Three kinds of callers: Envoy's filter (`/internal`, a shared token), tenants (`/v1/billing`, their API keys), operators (`/admin`, a
//! token of its own). The OpenAPI description is made from what is written here.

mod admin;
mod answer;
mod auth;
mod billing;
mod data_path;
mod facilitate;
pub mod fund;
mod operations;
mod router;
mod transactions;
pub mod webhook;

pub(crate) use admin::signed_micros;
pub use auth::Tokens;
pub use router::{App, openapi, router};
pub(crate) use transactions::{csv, quoted};
