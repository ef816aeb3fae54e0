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
//! A metered answer streams between Forwarding and Settling: the settlement then holds back its end alone. Where money moves up front,
//! Paying and Prepaid take the place of Verifying, Forwarding and Settling; where the backend begins before the verdict, it is its answer
//! that Verifying holds back, and where the pre-check suffices there is no Verifying.
//!
//! A gate is consumed by each event and gives back the next one with what the host has to do. Pausing is a type: the
//! effects that pause a stream ([`RequestEffect::Verify`], [`RequestEffect::Settle`], [`ResponseEffect::Settle`]) carry the call that will
//! end the pause, [`ResponseEffect::Wait`] comes only of a gate whose call was sent, and a gate that waits for /verify can only be made from
//! the token of such a call ([`Waiting::sent`]).
//!
//! Settlements outlive their streams: with [`ResponseEffect::Settle`] the gate gives all that it has to a [`Settlement`],
//! which belongs to the host's root context and ends the claim whether or not the client is still there.

mod admission;
mod answer;
mod challenges;
mod credit;
mod delivery;
mod edits;
mod effects;
mod env;
mod hold;
mod identifier;
mod keys;
mod metered;
mod order;
mod overrides;
mod prepaid;
mod redirect;
mod request;
mod response;
mod sale;
mod settlement;
mod share;
mod streaming;
mod tries;
mod trust;
mod verifying;

pub use challenges::Challenges;
pub use credit::{Capture, Leases, Reserving, Spending, end_leases, pays_by_credit};
pub use edits::{Edits, FORWARDED_HEADER, TRUSTED_HEADERS, carries_payment};
pub use effects::{
    BodyEffect, Call, CalloutReply, CalloutToken, EndEffect, Endpoint, LastWords, Next, Owed, Released, RequestEffect, ResponseEffect,
    Unread, VerifiedEffect,
};
pub use env::{Env, Note, Notes};
pub use redirect::mark;
pub use request::{Request, open, open_at};
pub use response::Response;
pub use settlement::Settlement;
pub use streaming::Streaming;
pub use verifying::{Dispatch, Verifying, Waiting};

use crate::pricing::End;
use delivery::Delivery;
use prepaid::Prepaid;
use response::{Forwarding, Keyed};
use settlement::Due;

/// The state of one request's payment.
#[derive(Default)]
pub enum Gate {
    /// Nothing is asked of this request any more: free, or released.
    #[default]
    Done,
    /// The answer of a priced route goes on, and nothing is asked of it any more.
    Passing,
    /// It was answered in the backend's place: nothing of it may reach the backend any more.
    Answered,
    /// The answer waits for a settlement, which the root context has.
    Settling,
    /// The request does: the root context has the settlement, and will have the gate that follows.
    Paying,
    /// The backend checks the caller's API key itself; its own 402 becomes a challenge.
    Keyed(Keyed),
    /// Until the facilitator has answered /verify the request is paused, or else its answer is.
    Verifying(Box<Verifying>),
    /// The backend is at work; nothing has been settled.
    Forwarding(Box<Forwarding>),
    /// The backend is at work, and has been paid for.
    Prepaid(Box<Prepaid>),
    /// The answer is metered as it passes, and settled at its end.
    Streaming(Box<Streaming>),
    /// The answer is on its way, and has been paid for.
    Delivering(Box<Delivery>),
    /// The request is paused until the ledger has reserved its price.
    Reserving(Box<Reserving>),
    /// Its price is reserved, or as much of it as is due.
    Spending(Box<Spending>),
}

impl Gate {
    /// The facilitator answered /verify, the ledger was asked to reserve and has answered, or the call failed.
    ///
    /// `None` where the token is not the one that this gate waits for: nothing is to be done then.
    pub fn on_verified(&mut self, token: CalloutToken, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> Option<VerifiedEffect> {
        match core::mem::take(self) {
            Self::Verifying(verifying) if verifying.waits_for(token) => {
                let (next, effect) = verifying.answered(reply, env);
                *self = next;
                Some(effect)
            }
            Self::Reserving(reserving) if reserving.waits_for(token) => {
                let (next, effect) = reserving.answered(reply, env);
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
            // The answer is ours, or a local reply (a timeout) that overtook a settlement.
            waiting @ (Self::Answered | Self::Passing | Self::Settling | Self::Paying | Self::Streaming(_) | Self::Delivering(_)) => {
                *self = waiting;
                ResponseEffect::Pass
            }
            // A local reply, such as a timeout of the stream: what the ledger has reserved by now goes back.
            Self::Reserving(reserving) => {
                let capture = reserving.gone(env);
                env.notes.captures.push(capture);
                *self = Self::Passing;
                ResponseEffect::Pass
            }
            Self::Spending(spending) => {
                let (next, effect) = spending.answered(response, env);
                *self = next;
                effect
            }
            Self::Keyed(keyed) => {
                let (next, effect) = keyed.answered(response, env);
                *self = next;
                effect
            }
            Self::Forwarding(forwarding) => {
                let (next, effect) = forwarding.answered(response, env);
                *self = next;
                effect
            }
            Self::Prepaid(prepaid) => {
                let (next, effect) = prepaid.answered(response, env);
                *self = next;
                effect
            }
            Self::Verifying(verifying) => {
                let (next, effect) = verifying.overtaken(response, env);
                *self = next;
                effect
            }
        }
    }

    /// Whether the request's body and trailers may go on to the backend.
    ///
    /// They are not even offered while headers are held, unless the plugin was configured with `allow_on_headers_stop_iteration`,
    /// as only the reader's may be: then letting them go on would let the headers go on too, paid for or not.
    pub fn lets_request_on(&self) -> bool {
        match self {
            Self::Verifying(verifying) => !verifying.holds_request(),
            Self::Answered | Self::Paying | Self::Reserving(_) => false,
            _ => true,
        }
    }

    /// Whether the answer's headers wait for a verdict, and so must what follows them.
    pub fn holds_response(&self) -> bool {
        matches!(self, Self::Verifying(_))
    }

    /// Whether the answer's body is to be shown to [`Gate::on_response_body`].
    pub fn reads_response(&self) -> bool {
        match self {
            Self::Streaming(_) => true,
            Self::Spending(spending) => spending.reads_response(),
            _ => false,
        }
    }

    /// A part of the answer, not its last, that only the meter has to see: what passes in its place; `None`: it does.
    ///
    /// Needs no [`Env`], which costs more than most parts do. `Err`: the part is for [`Gate::on_response_body`], and was not looked at.
    /// `now_ms` is asked for the time, in milliseconds since the epoch, only if that matters.
    pub fn pass(&mut self, bytes: &[u8], now_ms: impl FnOnce() -> u64) -> Result<Option<Vec<u8>>, Unread> {
        match self {
            Self::Streaming(streaming) => streaming.pass(bytes, now_ms),
            Self::Spending(spending) => spending.pass(bytes),
            _ => Err(Unread),
        }
    }

    /// The next bytes of the answer, whole as they came; `last`: none will follow.
    ///
    /// The end of an answer that is not metered is [`Next::Go`] like any other part of it.
    pub fn on_response_body(&mut self, bytes: &[u8], last: bool, env: &mut Env<'_>) -> BodyEffect {
        match core::mem::take(self) {
            Self::Streaming(streaming) => {
                let (next, effect) = streaming.chunk(bytes, last, env);
                *self = next;
                effect
            }
            Self::Spending(spending) => {
                let (next, effect) = spending.chunk(bytes, last);
                *self = next;
                effect
            }
            other => {
                *self = other;
                BodyEffect {
                    bytes: None,
                    next: Next::Go,
                }
            }
        }
    }

    /// What the answer's trailers lose: receipts that are not ours, and the backend's word to the filter.
    pub fn on_response_trailers(&self, trailers: &[(&[u8], &[u8])]) -> Edits {
        match self {
            Self::Done => Edits::default(),
            _ => Edits::strip_answer(trailers),
        }
    }

    /// How long the answer that is to come may take before it has to be ended, in milliseconds: its price ends there.
    pub fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        match self {
            Self::Forwarding(forwarding) => forwarding.longest_ms(env),
            Self::Prepaid(prepaid) => prepaid.longest_ms(env),
            Self::Verifying(verifying) => verifying.longest_ms(env),
            Self::Spending(spending) => spending.longest_ms(env),
            _ => None,
        }
    }

    /// Whether the answer has been sold: it is on its way to the client, or waits for its settlement.
    pub fn has_sold(&self) -> bool {
        match self {
            Self::Settling | Self::Passing | Self::Streaming(_) | Self::Delivering(_) => true,
            Self::Spending(spending) => spending.has_begun(),
            _ => false,
        }
    }

    /// It was paid for, and its stream had ended before that was known.
    pub fn on_late(&mut self, env: &mut Env<'_>) {
        match core::mem::take(self) {
            Self::Prepaid(prepaid) => prepaid.gone(env),
            Self::Delivering(delivery) => delivery.failed(false, env),
            _ => {}
        }
    }

    /// Whether the end of the stream means anything to it.
    pub fn minds_its_end(&self) -> bool {
        let ends_alone = matches!(
            self,
            Self::Done | Self::Answered | Self::Passing | Self::Settling | Self::Paying | Self::Keyed(_)
        );
        !ends_alone
    }

    /// The stream has ended; `end` is how its answer did, [`End::Complete`] only if the last of it was handed on.
    ///
    /// Whatever claim the gate still holds is released, unless its answer was metered: then
    /// what is returned has to be settled, without anybody waiting for it. Whatever is reserved is captured or given back.
    pub fn on_end(&mut self, end: End, env: &mut Env<'_>) -> Option<Owed> {
        match core::mem::take(self) {
            Self::Done | Self::Answered | Self::Passing | Self::Settling | Self::Paying | Self::Keyed(_) => {}
            Self::Prepaid(prepaid) => prepaid.gone(env),
            Self::Delivering(delivery) => delivery.ended(end, env),
            Self::Verifying(verifying) => verifying.gone(env),
            Self::Forwarding(forwarding) => forwarding.gone(env),
            Self::Reserving(reserving) => return Some(Owed::Capture(reserving.gone(env))),
            Self::Spending(spending) => return spending.ended(end, env).map(Owed::Capture),
            Self::Streaming(streaming) => {
                if let Due::Settlement(settlement) = streaming.settle(end, env) {
                    return Some(Owed::Settlement(settlement));
                }
            }
        }
        None
    }
}
