//! A claim that the replicas share: the ledger, which stands before the facilitators, knows it by the request that holds it.

use std::cell::Cell;

use super::credit::{Again, Capture};
use super::effects::{Call, Endpoint};
use super::env::Env;
use crate::pricing::Atomic;
use crate::replay::{ClaimKey, UnixSeconds};

/// How often what a metered answer has cost so far is told, in milliseconds.
const REPORT_MS: u64 = 10_000;

/// What the ledger has to hear of an intent.
#[derive(Clone, Copy)]
pub(super) enum Report {
    /// Nothing is settled: the payment may be used again.
    Released,
    /// The answer has ended, and nothing is left to be had for the payment elsewhere.
    Delivered,
    /// Its settlement's outcome is not known, and this request no longer waits for it.
    Pending,
    /// So much is due of an answer that goes on, in the token's smallest unit.
    Used(Atomic),
    /// The answer has ended, so much is due of it, and it could not be settled: that is the ledger's to do.
    Due(Atomic),
}

/// The name under which a request holds its claim.
pub(super) struct Share {
    intent: String,
    /// The facilitator in whose name the ledger was asked; `None`: it knows nothing.
    told: Cell<Option<usize>>,
    reported_ms: Cell<u64>,
    /// The payment has run out: nothing is to be had for it but what it has paid for.
    pub(super) late: bool,
}

impl Share {
    /// `None` where claims are not shared.
    pub(super) fn new(env: &Env<'_>) -> Option<Self> {
        env.config.shared_claims.then(|| Self {
            intent: hex::encode((env.random)()),
            told: Cell::new(None),
            reported_ms: Cell::new(env.now_ms),
            late: false,
        })
    }

    /// What goes with a call to a facilitator: the name, what can be spent once, and until when, in Unix seconds.
    pub(super) fn of_call(&self, facilitator: usize, key: &ClaimKey, expiry: UnixSeconds) -> String {
        self.told.set(Some(facilitator));
        let late = if self.late { ";late" } else { "" };
        format!("{};claim={};until={}{late}", self.intent, hex::encode(key.as_bytes()), expiry.0)
    }

    /// It has found out by itself.
    pub(super) fn forget(&self) {
        self.told.set(None);
    }

    /// Whether the last time is long ago. `now_ms`: milliseconds since the epoch.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.reported_ms.get()) >= REPORT_MS
    }

    /// Whether it is time to tell what is due.
    pub(super) fn reports(&self, env: &Env<'_>) -> bool {
        let due = self.is_due(env.now_ms);
        if due {
            self.reported_ms.set(env.now_ms);
        }
        due && self.told.get().is_some()
    }

    /// Tells it.
    pub(super) fn report(&self, report: Report, env: &mut Env<'_>) {
        let Some(facilitator) = self.told.get() else { return };
        let (outcome, amount, again) = match report {
            Report::Released => ("released", Atomic(0), Again::AWhile),
            // The payment would be served once more.
            Report::Delivered => ("delivered", Atomic(0), Again::Long),
            Report::Pending => ("pending", Atomic(0), Again::Long),
            // An older one must not come after a newer one.
            Report::Used(amount) => ("used", amount, Again::Never),
            Report::Due(amount) => ("due", amount, Again::Long),
        };
        // It is told once how it ended.
        if !matches!(report, Report::Used(_)) {
            self.forget();
        }
        let timeout_ms = env.config.facilitators.get(facilitator).map_or(1, |peer| peer.verify_timeout_ms);
        let body = format!(r#"{{"intent":"{}","outcome":"{outcome}","amount":"{}"}}"#, self.intent, amount.0);
        let call = Call {
            facilitator,
            endpoint: Endpoint::Report,
            body: body.into_bytes(),
            timeout_ms,
            intent: None,
        };
        env.notes.captures.push(Capture::report(call, again));
    }
}
