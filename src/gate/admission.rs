//! What a request takes together with its claim, and gives back with it: the payment's identifier, and the payer's share of what one
//! payer may ask for.

use std::cell::Cell;

use super::env::Env;
use super::sale::{Sale, short_hash};
use super::trust;
use crate::replay::{Bound, ClaimKey, Counted, Meaning, RateLimits, TooMuch};
use crate::x402::Refusal;

/// Why a request is not let in, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Denied {
    pub(super) refusal: Refusal,
    /// After how many seconds it may be sent again, if that is known.
    pub(super) seconds: Option<u32>,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, seconds: None }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Admission {
    /// What the payment is called, and what that stands for.
    identifier: Option<(ClaimKey, Meaning)>,
    /// The payer, its limits, and what this request costs in millionths.
    rate: Option<(ClaimKey, RateLimits, u64)>,
    /// Whether this request was the first to call a payment so.
    named: Cell<bool>,
    /// How this request is counted, if it is.
    counted: Cell<Option<Counted>>,
}

impl Admission {
    /// What goes with a payment that its payer has signed, by what was found here or by the facilitator's word.
    pub(super) fn of(sale: &Sale, env: &Env<'_>) -> Self {
        // Where one payment buys several requests they go by one name.
        let several = sale.route(env).is_some_and(|route| route.requests_per_payment > 1);
        let request = sale.request.filter(|_| !several).unwrap_or_default();
        let identifier = sale.identifier.as_ref().map(|identifier| {
            let key = ClaimKey::identifier(env.secret, &sale.payer, identifier);
            (key, short_hash(&[&sale.identity(), &request]))
        });
        Self {
            identifier,
            rate: trust::rate(sale, env),
            ..Self::default()
        }
    }

    /// Whether the payment is called as another one is.
    pub(super) fn conflicts(&self, env: &Env<'_>) -> bool {
        let identifier = self.identifier.as_ref();
        identifier.is_some_and(|(key, meaning)| {
            env.identifiers()
                .meaning(env.store, key, env.now)
                .is_some_and(|other| other != *meaning)
        })
    }

    /// Lets the payment's identifier stand for it. Only while its claim is held: who gives the name back must not take it from another
    /// request with the same payment.
    pub(super) fn name(&self, env: &Env<'_>) -> Result<(), Denied> {
        let Some((key, meaning)) = &self.identifier else { return Ok(()) };
        let until = env.now.plus(env.config.pre_check.max_validity);
        match env.identifiers().bind(env.store, key, meaning, until, env.now) {
            Ok(Bound::New) => {
                self.named.set(true);
                Ok(())
            }
            Ok(Bound::Same) => Ok(()),
            Ok(Bound::Other) => Err(Refusal::IdentifierConflict.into()),
            Err(_) => Err(Refusal::ClaimsUnavailable.into()),
        }
    }

    /// Counts the request.
    pub(super) fn count(&self, env: &Env<'_>) -> Result<(), Denied> {
        let Some((payer, limits, amount)) = &self.rate else { return Ok(()) };
        if self.counted.get().is_some() {
            return Ok(());
        }
        match env.rates().count(env.store, payer, limits, *amount, env.now_ms) {
            Ok(Ok(counted)) => {
                self.counted.set(Some(counted));
                Ok(())
            }
            Ok(Err(TooMuch { again_in_ms })) => Err(Denied {
                refusal: Refusal::PayerLimitExceeded,
                seconds: Some(u32::try_from(again_in_ms.div_ceil(1000)).unwrap_or(u32::MAX)),
            }),
            Err(_) => Err(Refusal::ClaimsUnavailable.into()),
        }
    }

    /// Nothing is paid. What cannot be given back is gone with its time.
    pub(super) fn give_back(&self, env: &Env<'_>) {
        if let (Some((key, meaning)), true) = (&self.identifier, self.named.take()) {
            let _ = env.identifiers().forget(env.store, key, meaning, env.now);
        }
        if let Some((_, _, amount)) = &self.rate {
            self.refund(*amount, env);
            self.counted.set(None);
        }
    }

    /// The request was not served, and its payer is not to blame: it counts as never made.
    pub(super) fn uncount(&self, env: &Env<'_>) {
        if let (Some((payer, _, amount)), Some(counted)) = (&self.rate, self.counted.take()) {
            let _ = env.rates().uncount(env.store, payer, *amount, counted, env.now_ms);
        }
    }

    /// So many millionths less were paid than this request was counted for.
    pub(super) fn refund(&self, amount: u64, env: &Env<'_>) {
        if let (Some((payer, ..)), Some(counted)) = (&self.rate, self.counted.get()) {
            let _ = env.rates().refund(env.store, payer, amount, counted, env.now_ms);
        }
    }
}
