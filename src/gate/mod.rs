//! The gate: the payment state machine of one request. Events in, effects out, no I/O, no clock, no globals.
//!
//! ```text
//!  headers, body facts     pre-check ok,
//!                          claim held                    verified               settled
//!  ────► (request) ───────────────────► Verifying ──────────────► Forwarding ──────────► Settling ──► Done
//!           │ no payment,                  │ refused, unusable       │ 400 up, or not      │ refused: 402
//!           │ bad payment                  ▼                         ▼ the backend's       ▼ unknown: pending, 503
//!         Answered                      Answered                  Done, claim released   Answered
//! ```
//!
//! A gate is consumed by each event and gives back the next one with what the host has to do. Pausing is a type: the only
//! effects that pause a stream ([`RequestEffect::Verify`], [`ResponseEffect::Settle`]) carry the call that will end the pause,
//! and a gate that waits for /verify can only be made from the token of a call that was sent ([`Waiting::sent`]).
//!
//! Settlements outlive their streams: with [`ResponseEffect::Settle`] the gate gives all that it has to a [`Settlement`],
//! which belongs to the host's root context and ends the claim whether or not the client is still there.

mod answer;
mod edits;
mod effects;
mod env;
mod keys;
mod request;
mod response;
mod sale;
mod settlement;
mod verifying;

pub use edits::{Edits, TRUSTED_HEADERS};
pub use effects::{Call, CalloutReply, CalloutToken, Endpoint, RequestEffect, ResponseEffect};
pub use env::{Env, Note, Notes};
pub use request::{Request, open};
pub use response::Response;
pub use settlement::Settlement;
pub use verifying::{Dispatch, Verifying, Waiting};

use response::{Forwarding, Keyed};

/// The state of one request's payment.
#[derive(Default)]
pub enum Gate {
    /// Nothing is asked of this request any more: free, answered, released, or handed to a settlement.
    #[default]
    Done,
    /// The backend checks the caller's API key itself; its own 402 becomes a challenge.
    Keyed(Keyed),
    /// Paused until the facilitator has answered /verify.
    Verifying(Box<Verifying>),
    /// The backend is at work; nothing has been settled.
    Forwarding(Box<Forwarding>),
}

impl Gate {
    /// The facilitator answered /verify, or the call failed.
    ///
    /// `None` where the token is not the one that this gate waits for: nothing is to be done then.
    pub fn on_verified(&mut self, token: CalloutToken, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> Option<RequestEffect> {
        match core::mem::take(self) {
            Self::Verifying(verifying) if verifying.waits_for(token) => {
                let (next, effect) = verifying.answered(reply, env);
                *self = next;
                Some(effect)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// The answer's headers are here: the backend's, or a local reply's.
    pub fn on_response(&mut self, response: &Response<'_>, env: &mut Env<'_>) -> ResponseEffect {
        match core::mem::take(self) {
            Self::Done => ResponseEffect::Pass,
            Self::Keyed(keyed) => keyed.answered(response, env),
            Self::Forwarding(forwarding) => forwarding.answered(response, env),
            // A local reply (a timeout, a full buffer) overtook /verify: the payment was not used.
            Self::Verifying(verifying) => {
                verifying.gone(env);
                ResponseEffect::Pass
            }
        }
    }

    /// The stream has ended, however it did. Whatever claim the gate still holds is released.
    pub fn on_end(&mut self, env: &mut Env<'_>) {
        match core::mem::take(self) {
            Self::Done | Self::Keyed(_) => {}
            Self::Verifying(verifying) => verifying.gone(env),
            Self::Forwarding(forwarding) => forwarding.gone(env),
        }
    }
}
