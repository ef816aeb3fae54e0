//! What must always hold (DESIGN, section 6), by what the chain, the facilitators, the backend and the clients have seen.
//!
//! Each check has a name. Functions are called by the part of the world that sees something happen, and stop the run where it must not.

mod answers;
mod calls;
mod deliveries;
mod limits;
mod settlements;
mod steps;

use std::panic::resume_unwind;

pub use answers::*;
pub use calls::*;
pub use deliveries::*;
pub use limits::*;
pub use settlements::*;
pub use steps::*;

/// What did not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub name: &'static str,
    pub why: String,
}

/// Stops the run.
pub fn violated(name: &'static str, why: impl Into<String>) -> ! {
    let why = why.into();
    // Not a panic that anybody need see: the run is played again, and then told about.
    resume_unwind(Box::new(Violation { name, why }))
}

/// Stops the run unless something holds.
macro_rules! must {
    ($holds:expr, $name:literal, $($why:tt)+) => {
        if !$holds {
            violated($name, format!($($why)+));
        }
    };
}
use must;
