//! For tests only: a panic at a moment that a request chooses, to see what the end of a VM does to those who wait in it.
//!
//! Compiled with the feature `panic-switch` alone (`make wasm-panic`), never into a module that is shipped.

#![allow(clippy::panic)] // what this file is for

use std::cell::RefCell;
use std::collections::HashMap;

use super::abi::{self, Map};

/// The header with which a request names the moment.
const HEADER: &str = "x-x402-panic";

/// Where a panic can be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The request headers' callback, before anything is done.
    Request,
    /// The callback of the stream that brings the answer of /verify.
    Verify,
    /// The root context's callback that brings the answer of /settle.
    Settle,
    /// The callback of the answer's headers.
    Response,
    /// The root context's tick.
    Tick,
}

impl Moment {
    fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Verify => "verify",
            Self::Settle => "settle",
            Self::Response => "response",
            Self::Tick => "tick",
        }
    }
}

thread_local! {
    /// What the streams of this VM have asked for: most of these moments come when their request headers are out of reach.
    static ASKED: RefCell<HashMap<u32, Vec<u8>>> = RefCell::default();
}

/// A request has come: notes what it asks for.
pub(super) fn ask(context: u32) {
    if let Some(moment) = abi::header(Map::Request, HEADER) {
        ASKED.with_borrow_mut(|asked| asked.insert(context, moment));
    }
    reached(Moment::Request, context);
}

/// Panics if the stream has asked for this moment.
pub(super) fn reached(moment: Moment, context: u32) {
    let asked = ASKED.with_borrow(|asked| asked.get(&context).is_some_and(|found| *found == moment.name().as_bytes()));
    end_if(asked, moment);
}

/// Panics if any stream has asked for a panic in the tick, which belongs to none.
pub(super) fn ticked() {
    let asked = ASKED.with_borrow(|asked| asked.values().any(|found| *found == Moment::Tick.name().as_bytes()));
    end_if(asked, Moment::Tick);
}

fn end_if(asked: bool, moment: Moment) {
    if asked {
        panic!("{HEADER}: {}", moment.name());
    }
}
