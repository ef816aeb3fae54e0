//! The calls of one worker that are in flight, and which may join them.
//!
//! All of them are the root context's, so that each is known to end, exactly once, whatever has become of the stream it was made for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Weak;

use super::abi;
use super::callout::{self, Arrived};
use super::gate_stream::GateStream;
use super::worker::Worker;
use crate::breaker::{Breaker, Change, Class, Held, Pass};
use crate::config::Config;
use crate::gate::{Call, CalloutToken, Endpoint};
use crate::replay::UnixSeconds;

/// What is in flight, and what each facilitator has made of what was.
pub(super) struct Calls {
    /// The root context, while there is one.
    root: Cell<Option<u32>>,
    /// Whether the root context is at work for a stream: the SDK must not be told so again.
    at_root: Cell<bool>,
    /// By index of the facilitator; the last one's is the ledger.
    breakers: RefCell<Vec<Breaker>>,
    in_flight: RefCell<HashMap<CalloutToken, InFlight>>,
}

/// A call that was sent.
pub(super) struct InFlight {
    pub(super) facilitator: usize,
    pub(super) endpoint: Endpoint,
    /// The stream that waits for it, if one does.
    pub(super) stream: Weak<RefCell<GateStream>>,
    pass: Option<Pass>,
    sent_at: u64,
}

/// A call was not sent, and nothing will arrive; after how many seconds it is worth another try, if that is known.
pub(super) struct NotSent(pub(super) Option<u64>);

impl Calls {
    pub(super) fn new(root: u32, config: &Config) -> Self {
        Self {
            root: Cell::new(Some(root)),
            at_root: Cell::new(false),
            breakers: RefCell::new(vec![Breaker::default(); config.facilitators.len().saturating_add(1)]),
            in_flight: RefCell::default(),
        }
    }

    /// The root context is gone, and whatever is in flight with it.
    pub(super) fn end(&self) {
        self.root.set(None);
    }

    /// Something that a callback of the root context does for a stream.
    pub(super) fn at_root(&self, work: impl FnOnce()) {
        self.at_root.set(true);
        work();
        self.at_root.set(false);
    }
}

impl Worker {
    /// Sends a call, for a stream or for nobody but the root context, in one of whose callbacks this is then.
    ///
    /// `class`: what it is worth; `None`: it is neither counted nor held back. Once it is sent the root context is the effective one, for
    /// whatever else is done in this callback.
    pub(super) fn send(
        &self,
        call: &Call,
        class: Option<Class>,
        stream: Option<(u32, Weak<RefCell<GateStream>>)>,
    ) -> Result<CalloutToken, NotSent> {
        let (Some(facilitator), Some(root)) = (self.config.peer(call.facilitator), self.calls.root.get()) else {
            return Err(NotSent(None));
        };
        let now = self.now();
        let mut breakers = self.calls.breakers.borrow_mut();
        let mut breaker = breakers.get_mut(call.facilitator);
        let pass = match (class, &breaker) {
            (Some(class), Some(breaker)) => match breaker.admit(class, &facilitator.limits, now / 1_000_000) {
                Ok(pass) => Some(pass),
                Err(held) => {
                    let (reason, seconds) = match held {
                        Held::InFlight => ("in_flight", None),
                        Held::Open(left_ms) => ("breaker", left_ms.map(|ms| ms.div_ceil(1000))),
                    };
                    self.metrics.borrow_mut().held_back(&facilitator.cluster, reason);
                    return Err(NotSent(seconds));
                }
            },
            _ => None,
        };
        if stream.is_some() && !self.calls.at_root.get() {
            abi::enter_root(root);
        }
        // A call made while a stream is the effective context would belong to that stream, and end with it.
        let _ = abi::set_effective_context(root);
        let sent = callout::send(facilitator, call);
        if let (Err(_), Some((context, _))) = (&sent, &stream) {
            let _ = abi::set_effective_context(*context);
        }
        let token = sent.map_err(|_| NotSent(None))?;
        if let (Some(pass), Some(breaker)) = (pass, &mut breaker) {
            breaker.sent(pass);
        }
        let in_flight = InFlight {
            facilitator: call.facilitator,
            endpoint: call.endpoint,
            stream: stream.map(|(_, stream)| stream).unwrap_or_default(),
            pass,
            sent_at: now,
        };
        self.calls.in_flight.borrow_mut().insert(token, in_flight);
        Ok(token)
    }

    /// A call has ended: it is counted no more.
    pub(super) fn arrived(&self, token: CalloutToken, arrived: &Arrived) -> Option<InFlight> {
        let ended = self.calls.in_flight.borrow_mut().remove(&token)?;
        let now = self.now();
        self.metrics.borrow_mut().took(ended.endpoint, now.saturating_sub(ended.sent_at));
        if let Some(pass) = ended.pass {
            self.with_breaker(ended.facilitator, |breaker, config| {
                let limits = &config.peer(ended.facilitator)?.limits;
                breaker.ended(pass, arrived.has_failed(ended.endpoint), limits, now / 1_000_000)
            });
        }
        Some(ended)
    }

    /// Takes over what facilitators are known to support, whichever worker asked; that they answered is a sign of life.
    pub(super) fn listen(&self, now: UnixSeconds) {
        self.refresh_table();
        for index in 0..self.config.facilitators.len() {
            if let Some(at) = self.heard_at(index, now) {
                self.with_breaker(index, |breaker, _| breaker.heard(at.0));
            }
        }
    }

    fn with_breaker(&self, index: usize, event: impl FnOnce(&mut Breaker, &Config) -> Option<Change>) {
        let change = self
            .calls
            .breakers
            .borrow_mut()
            .get_mut(index)
            .and_then(|breaker| event(breaker, &self.config));
        let (Some(change), Some(facilitator)) = (change, self.config.peer(index)) else {
            return;
        };
        let state = match change {
            Change::Opened => {
                let limits = &facilitator.limits;
                self.warn_of_breaker(&format!(
                    "facilitator {}: {} calls in a row without a verdict: its breaker is open for {} ms",
                    facilitator.cluster, limits.failures, limits.open_ms
                ));
                "open"
            }
            Change::Reopened => "open",
            Change::Closed => {
                self.warn_of_breaker(&format!(
                    "facilitator {}: it answers again: its breaker is closed",
                    facilitator.cluster
                ));
                "closed"
            }
        };
        self.metrics.borrow_mut().breaker(&facilitator.cluster, state);
    }
}
