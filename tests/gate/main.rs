//! The gate, event by event. One program: to link one for each of its parts takes longer than to run them all.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)] // tests

#[path = "../support/mod.rs"]
mod support;

mod credits;
mod flows;
mod former;
mod limits;
mod machine;
mod metered;
mod redelivery;
mod settlements;
mod shared;
