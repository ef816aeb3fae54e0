//! Prepaid credits: a request with an API key spends from a balance that the ledger keeps.
//!
//! ```text
//!            reserved                     backend's headers            stream's end
//!  ────► Reserving ─────────► Spending: Sent ─────────► Fixed, Metered ─────────► capture of what is due, 0 of nothing
//!            │ challenge, 401, 429, …         │ 400 up: nothing is due
//!            ▼                                ▼
//!         Answered                         Fixed(0)
//! ```
//!
//! The quote's maximum is reserved before the backend is asked, in one atomic step of the ledger, and what is due is captured when the
//! stream has ended. Payments that top the balance up are the ledger's affair: it has a disk, so that no crash here can lose a credit that
//! was paid for. The key itself never leaves Envoy: its SHA-256 does.

mod capture;
mod leases;
mod reserving;
mod spending;
mod wire;

pub(super) use capture::Again;
pub use capture::Capture;
pub use leases::Leases;
pub use reserving::Reserving;
pub use spending::Spending;

pub(super) use reserving::Asking;

use sha2::{Digest, Sha256};

use super::edits::Edits;
use super::effects::{Call, Endpoint};
use super::env::Env;
use super::keys::{self, Key};
use super::order::Order;
use super::request::Request;
use crate::config::Config;
use crate::pricing::{Atomic, Price, in_dollars};
use crate::replay::{ClaimKey, Limits, Opened, Trust};
use std::cell::Cell;

/// What trust in requests with a key is kept under.
const CREDITS: &str = "credits";

/// How long what was not heard of stays open, in seconds: longer than answers take, and than it is told.
const TRUSTED_SECONDS: u64 = 7_200;

/// Whether a request is paid from a balance: it has an API key, and credits are sold here. Not if nothing is to be paid for it.
pub fn pays_by_credit(config: &Config, headers: &[(&[u8], &[u8])]) -> bool {
    config.access.credits.is_some() && keys::key(&config.access, headers) == Key::Real && !keys::bypassed(&config.access, headers)
}

/// What one request holds of a balance.
pub(super) struct Tab {
    pub(super) order: Order,
    /// Index of the offer in whose asset the price is computed: the first in dollars.
    pub(super) offer: usize,
    /// The reservation's name, made here so that it can be given up before its answer has come.
    pub(super) id: String,
    /// What is reserved at most, in millionths of a dollar.
    pub(super) quoted: u64,
    /// SHA-256 of the API key, in hexadecimal.
    key: String,
    /// Whether a payment came along.
    pays: bool,
    /// What is open of it, where the ledger could not be asked.
    trusted: Cell<Option<Opened>>,
    /// The lease that it was taken from, if it was.
    lease: Option<String>,
    /// The lease that was asked for besides, by the name that it was given here.
    wanted: Option<String>,
}

impl Tab {
    /// `None` cannot happen: a configuration with credits has a price in dollars on every priced route, and the request has a key.
    pub(super) fn open(order: Order, request: &Request<'_>, env: &Env<'_>) -> Option<Self> {
        let (_, route) = order.route(env)?;
        let offer = in_dollars(&route.offers)?;
        let quoted = micros(order.deal.quote.amount(route, offer)?, route.offers.get(offer)?.asset.decimals)?;
        Some(Self {
            order,
            offer,
            id: hex::encode((env.random)()),
            quoted,
            key: key_hash(env, request.headers)?,
            pays: !Edits::payment(request.headers).is_empty(),
            trusted: Cell::new(None),
            lease: None,
            wanted: None,
        })
    }

    /// Takes it from a lease that the worker has; the tenant. Not with a payment, which is the ledger's to take.
    fn take_from_lease(&mut self, env: &Env<'_>) -> Option<String> {
        if self.pays {
            return None;
        }
        let (id, tenant) = env.leases.borrow_mut().take(&self.key, self.quoted, env.now_ms)?;
        self.lease = Some(id);
        Some(tenant)
    }

    /// How much is worth leasing besides, in millionths of a dollar.
    fn wants_lease(&self, env: &Env<'_>) -> Option<u64> {
        let most = env.config.access.credits.as_ref().map_or(0, |credits| credits.lease);
        // One that no request fits into would be of no use.
        let is_of_use = most > 0 && most >= self.quoted && !self.pays;
        (is_of_use && env.leases.borrow_mut().is_busy(&self.key, env.now_ms)).then_some(most)
    }

    /// Lets the request be served though the ledger could not be asked, as long as not too much is open of such requests. Not one with a
    /// payment: the ledger may have settled it, and has to say so.
    fn trust(&self, env: &Env<'_>) -> bool {
        let most = env.config.access.credits.as_ref().map_or(0, |credits| credits.allow_up_to);
        if most == 0 || self.pays {
            return false;
        }
        let trust = Trust {
            payer: ClaimKey::payer(env.secret, "", CREDITS, &self.key),
            all: ClaimKey::all_payers(env.secret, "", CREDITS),
            amount: self.quoted,
            expiry: env.now.plus(TRUSTED_SECONDS),
        };
        let limits = Limits {
            payer: None,
            total: Some(most),
        };
        let opened = env.exposure().open(env.store, &trust, &limits, env.now).ok();
        let is_trusted = opened.is_some();
        self.trusted.set(opened);
        is_trusted
    }

    /// How long an answer that is priced by the minute may take.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        match &self.order.route(env)?.1.price {
            Price::PerMinute(price) => Some(price.longest_ms()),
            _ => None,
        }
    }

    /// The call that reserves it.
    fn reserve(&mut self, request: &Request<'_>, env: &Env<'_>) -> Option<Call> {
        let ledger = env.config.ledger.as_ref()?;
        let payment = Edits::payment(request.headers);
        // A top-up waits for the chain.
        let timeout_ms = if payment.is_empty() {
            ledger.verify_timeout_ms
        } else {
            ledger.settle_timeout_ms
        };
        let lease = self.wants_lease(env);
        // As random as the reservation's, and another one.
        self.wanted = lease.map(|_| self.id.chars().rev().collect());
        let (_, route) = self.order.route(env)?;
        let body = wire::Reserve {
            id: &self.id,
            key: &self.key,
            amount: self.quoted.to_string(),
            route: &route.name,
            resource: &self.order.resource,
            description: &route.description,
            mime_type: &route.mime_type,
            origin: self.order.hints.origin,
            browser: self.order.hints.browser,
            limits: env.config.account_limits.as_ref().map(wire::Limits::of),
            headers: payment,
            lease: self.wanted.as_deref().zip(lease).map(|(id, amount)| wire::Lease {
                id,
                amount: amount.to_string(),
            }),
        };
        Some(call(Endpoint::Reserve, serde_json::to_vec(&body).ok()?, timeout_ms, env))
    }

    /// Ends it: `due` of it is charged, the rest is given back. What the ledger has to hear of that, if anything.
    fn end(&self, due: u64, env: &Env<'_>) -> Option<Capture> {
        match &self.lease {
            None => Some(self.capture(due, env)),
            Some(id) => {
                let over = env.leases.borrow_mut().give_back(id, self.quoted, due);
                over.map(|over| capture(&over.id, over.spent, None, None, env))
            }
        }
    }

    /// Whether a lease was granted is not known: it goes back, by its name.
    fn give_lease_up(&mut self, env: &mut Env<'_>) {
        if let Some(id) = self.wanted.take() {
            let capture = capture(&id, 0, None, None, env);
            env.notes.captures.push(capture);
        }
    }

    /// The call that ends it.
    fn capture(&self, due: u64, env: &Env<'_>) -> Capture {
        let trusted = self.trusted.take();
        // It has not heard of the request, or has not said so.
        let key = trusted.as_ref().map(|_| &*self.key);
        capture(&self.id, due, key, trusted, env)
    }
}

/// The call that ends a reservation.
fn capture(id: &str, due: u64, key: Option<&str>, trusted: Option<Opened>, env: &Env<'_>) -> Capture {
    let amount = due.to_string();
    let timeout_ms = env.config.ledger.as_ref().map_or(1000, |ledger| ledger.verify_timeout_ms);
    let body = serde_json::to_vec(&wire::Capture { id, amount, key }).unwrap_or_default();
    Capture::new(call(Endpoint::Capture, body, timeout_ms, env), due, trusted)
}

/// Ends the leases whose time is over: all of them where the worker is about to end.
pub fn end_leases(all: bool, env: &mut Env<'_>) {
    let over = env.leases.borrow_mut().end(if all { u64::MAX } else { env.now_ms });
    for over in over {
        let capture = capture(&over.id, over.spent, None, None, env);
        env.notes.captures.push(capture);
    }
}

fn call(endpoint: Endpoint, body: Vec<u8>, timeout_ms: u32, env: &Env<'_>) -> Call {
    Call {
        intent: None,
        facilitator: env.config.ledger_index(),
        endpoint,
        body,
        timeout_ms,
    }
}

/// The SHA-256 of the request's key, in hexadecimal.
fn key_hash(env: &Env<'_>, headers: &[(&[u8], &[u8])]) -> Option<String> {
    let key = keys::real(&env.config.access, headers)?;
    Some(hex::encode(Sha256::digest(key)))
}

/// An amount of an asset that is a dollar, in millionths of one, rounded up.
fn micros(amount: Atomic, decimals: u8) -> Option<u64> {
    let shift = |places: u8| 10u128.checked_pow(u32::from(places));
    let micros = match decimals.checked_sub(6) {
        Some(finer) => amount.0.div_ceil(shift(finer)?),
        None => amount.0.checked_mul(shift(6u8.saturating_sub(decimals))?)?,
    };
    // The ledger counts in signed numbers of 64 bits.
    i64::try_from(micros).ok().and_then(|micros| u64::try_from(micros).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_become_millionths_rounded_up() {
        assert_eq!(micros(Atomic(10_000), 6), Some(10_000));
        assert_eq!(micros(Atomic(1), 18), Some(1));
        assert_eq!(micros(Atomic(1_000_000_000_001), 18), Some(2));
        assert_eq!(micros(Atomic(3), 2), Some(30_000));
        assert_eq!(micros(Atomic(0), 6), Some(0));
        assert_eq!(micros(Atomic(u128::MAX), 6), None);
        assert_eq!(micros(Atomic(u128::MAX), 0), None);
    }
}
