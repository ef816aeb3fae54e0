//! What the world looks like at the moment of an event, and what there is to say about it.

use super::challenges::Challenges;
use super::credit::{Capture, Leases};
use crate::config::Config;
use crate::evm::Payers;
use crate::pricing::Former;
use crate::replay::{Attempts, Bans, Claims, Entitlements, Exposure, Identifiers, Rates, SharedStore, UnixSeconds};
use crate::supported::Table;
use crate::x402::Refusal;
use std::borrow::Cow;
use std::cell::RefCell;

/// Time, shared data and configuration: all that a gate may look at beside the event itself.
pub struct Env<'a> {
    /// When the event happened.
    pub now: UnixSeconds,
    /// The same in milliseconds, for durations.
    pub now_ms: u64,
    /// The configuration of this stream's plugin.
    pub config: &'a Config,
    /// The prices of the configuration before, if there was one.
    pub former: Option<&'a Former>,
    /// What the facilitators have said of themselves.
    pub supported: &'a Table,
    /// Data shared by all workers.
    pub store: &'a dyn SharedStore,
    /// The claims in it.
    pub claims: &'a Claims,
    /// The secret that claim keys are hashed with.
    pub secret: &'a [u8; 16],
    /// What marks requests of this process that were let through: [`mark`](super::mark) of the secret.
    pub mark: &'a str,
    /// The keys of accounts that this worker has seen sign.
    pub payers: &'a Payers,
    /// What this worker may spend of balances without asking.
    pub leases: &'a RefCell<Leases>,
    /// Challenges that this worker has made before.
    pub challenges: &'a RefCell<Challenges>,
    /// Where names come from that nobody else has.
    pub random: fn() -> [u8; 16],
    /// Where the gate says what happened.
    pub notes: &'a mut Notes,
}

impl Env<'_> {
    /// What was delivered and is not settled.
    pub(super) fn exposure(&self) -> Exposure {
        Exposure::new(self.config.max_claims)
    }

    /// What payments that were settled still buy. Few do.
    pub(super) fn entitlements(&self) -> Entitlements {
        Entitlements::new(self.config.max_claims.div_ceil(8))
    }

    /// Whose settlement was sent and never answered.
    pub(super) fn attempts(&self) -> Attempts {
        Attempts::new(self.config.max_claims)
    }

    /// What payments are called.
    pub(super) fn identifiers(&self) -> Identifiers {
        Identifiers::new(self.config.max_claims)
    }

    /// How much payers have asked for lately.
    pub(super) fn rates(&self) -> Rates {
        Rates::new(self.config.max_claims)
    }

    /// Payers who are not served for a while.
    pub(super) fn bans(&self) -> Bans {
        Bans::new(self.config.max_claims)
    }
}

/// What happened, for metrics, access logs and Envoy's log. Holds no prompt, key or signature.
#[derive(Default, Debug)]
pub struct Notes {
    /// For metrics, in order.
    pub events: Vec<Note>,
    /// Filter state for access logs: name without the `x402_`, and value.
    pub attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// Lines for Envoy's log that an operator should see.
    pub warnings: Vec<String>,
    /// What the ledger has to hear of, by the root context.
    pub captures: Vec<Capture>,
}

/// One thing that happened, for metrics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// A challenge was answered to a request without payment; the index is the route's.
    Challenged(usize),
    /// A request was refused.
    Refused(Refusal),
    /// /verify ended: `valid`, `refused`, `contradicted`, `unavailable`.
    Verified(&'static str),
    /// /settle ended: `settled`, `inferred`, `refused`, `unknown`, `unavailable`.
    Settled(&'static str),
    /// Money came in: symbol, v1 name of the network, millionths of a token.
    Earned(Box<str>, Box<str>, u128),
    /// A payment was not settled because the backend failed or the client left before.
    Released,
    /// A metered answer was delivered and its settlement refused, or could not be asked for.
    ServedUnsettled,
    /// What the backend said it used costs more than was quoted: no more than the quote is charged.
    UsageAboveQuote,
    /// A settlement without a known outcome is sent again.
    SettlementRetried,
    /// An answer was paid for and not delivered to its end.
    Undelivered,
    /// A request was served for a payment that was settled before: `again`, `more`.
    Entitled(&'static str),
    /// A payment was taken at a price of the configuration before.
    FormerQuote,
    /// The backend's `Settlement-Overrides` could not be followed.
    OverrideIgnored,
    /// The ledger was asked to reserve: `reserved`, `answered`, `unavailable`.
    Reserved(&'static str),
    /// The ledger was told what is due: `captured`, `released`, `lapsed`, `lost`, `unreleased`.
    Captured(&'static str),
    /// So much was charged to balances, in millionths of a dollar.
    Spent(u64),
    /// Claims alive changed by this many.
    Claims(i64),
}

impl Notes {
    pub(super) fn event(&mut self, note: Note) {
        self.events.push(note);
    }

    pub(super) fn attribute(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.attributes.push((name, value.into()));
    }
}
