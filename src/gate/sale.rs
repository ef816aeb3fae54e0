//! A payment on its way: what was bought, with what, and the claim held on it.

use std::borrow::Cow;

use super::effects::{Call, Endpoint};
use super::env::Env;
use super::hold::Hold;
use super::order::{Deal, Order};
use crate::evm::keccak256;
use crate::precheck::Refused;
use crate::pricing::{Atomic, Basis, Charged, Delivery, MeteredTerms, Offer, Price, Route, Routes};
use crate::supported::Ready;
use crate::x402::facilitator::{Speaks, verify_or_settle_body};
use crate::x402::{Payable, Payment, Receipt, Refusal};

/// A payment that passed the pre-check and whose claim this request holds.
pub(super) struct Sale {
    /// What it pays for.
    pub(super) order: Order,
    /// The deal of the configuration before, if that is what is paid.
    pub(super) former: Option<Deal>,
    /// Index of the order's offer that is taken.
    pub(super) offer: usize,
    /// Who verifies and settles, and the facts in the requirements.
    pub(super) ready: Ready,
    /// What the client sent.
    pub(super) payment: Payment,
    /// The account that pays; empty until the facilitator has named it.
    pub(super) payer: String,
    /// Whether the payer's own signature was found here; else only the facilitator can vouch for it.
    pub(super) proven: bool,
    /// Whether an earlier request sent its settlement and never knew the outcome: that is to be known before anything else.
    pub(super) resumes: bool,
    /// Hash of the request that it is for; `None` if its body is not known.
    pub(super) request: Option<[u8; 16]>,
    /// What the client calls it.
    pub(super) identifier: Option<Box<str>>,
    /// The claim on it.
    pub(super) hold: Hold,
}

impl Sale {
    /// What tells this payment from any other one.
    pub(super) fn identity(&self) -> [u8; 16] {
        let name = self.identifier.as_deref().unwrap_or_default();
        short_hash(&[self.hold.key().as_bytes(), name.as_bytes(), b"/", &self.payment.signed()])
    }

    /// Whether an expired payment may have been settled for a request of another replica that died, which the ledger knows. Metered answers
    /// are settled once they have been had.
    pub(super) fn may_be_owed(&self, late: &Refused, env: &Env<'_>) -> bool {
        late.refusal == Refusal::ValidBefore && self.proven && self.hold.share().is_some() && self.terms(env).is_none()
    }

    /// Nothing is to be had for it but what it has paid for.
    pub(super) fn late(self) -> Self {
        Self {
            hold: self.hold.late(),
            ..self
        }
    }

    /// What tells the route that sells from the others.
    pub(super) fn route_hash(&self, env: &Env<'_>) -> [u8; 16] {
        short_hash(&[self.route(env).map_or(&b""[..], |route| route.name.as_bytes())])
    }

    /// What is paid, and the routes that it was made for.
    fn deal<'a>(&self, env: &Env<'a>) -> Option<(&Deal, &'a Routes)> {
        match &self.former {
            None => Some((&self.order.deal, &env.config.routes)),
            Some(former) => Some((former, env.former?.routes())),
        }
    }

    /// The route that sells.
    pub(super) fn route<'a>(&self, env: &Env<'a>) -> Option<&'a Route> {
        let (deal, routes) = self.deal(env)?;
        deal.route(routes).map(|(_, route)| route)
    }

    /// What the quote was computed from.
    pub(super) fn basis(&self) -> &Basis {
        self.former.as_ref().unwrap_or(&self.order.deal).quote.basis()
    }

    /// The offer that is taken, over the amount that was quoted.
    pub(super) fn offer<'a>(&self, env: &Env<'a>) -> Option<Cow<'a, Offer>> {
        let (deal, routes) = self.deal(env)?;
        deal.offer(self.offer, routes)
    }

    /// The facilitator's cluster, for people.
    pub(super) fn facilitator<'a>(&self, env: &Env<'a>) -> &'a str {
        let facilitator = env.config.facilitators.get(self.ready.facilitator);
        facilitator.map_or("", |facilitator| &facilitator.cluster)
    }

    /// The call to the facilitator, in the payment's own version of the protocol unless only the other one is spoken.
    ///
    /// `amount` is what is to be settled, if that is not the quote.
    pub(super) fn call(&self, endpoint: Endpoint, amount: Option<Atomic>, env: &Env<'_>) -> Option<Call> {
        let (route, offer) = (self.route(env)?, self.offer(env)?);
        let facilitator = env.config.facilitators.get(self.ready.facilitator)?;
        let payable = Payable {
            offer: &offer,
            facts: self.ready.facts(),
        };
        // A facilitator that has not been heard of yet is taken at the payment's word.
        let speaks = env
            .supported
            .known(self.ready.facilitator)
            .map(|supported| supported.speaks(&offer));
        let speaks = speaks
            .filter(|speaks| speaks.v1 || speaks.v2)
            .unwrap_or(Speaks { v1: true, v2: true });
        let listing = self.order.listing(route);
        let body = verify_or_settle_body(&self.payment, &payable, &listing, amount.unwrap_or(offer.amount), speaks).ok()?;
        let timeout_ms = match endpoint {
            Endpoint::Settle => facilitator.settle_timeout_ms,
            _ => facilitator.verify_timeout_ms,
        };
        Some(Call {
            facilitator: self.ready.facilitator,
            endpoint,
            body,
            timeout_ms,
            intent: self
                .hold
                .share()
                .map(|share| share.of_call(self.ready.facilitator, self.hold.key(), self.hold.expiry())),
        })
    }

    /// How long the payment is still valid, in seconds, by its own word.
    pub(super) fn seconds_left(&self, env: &Env<'_>) -> u64 {
        let skew = env.config.pre_check.clock_skew;
        self.hold.expiry().since(env.now).saturating_sub(skew)
    }

    /// How long its answer may take from now, in milliseconds: as long as its price goes on, and if it is metered, as long as it can be
    /// settled after that. `None`: as long as it likes.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        let priced = match &self.route(env)?.price {
            Price::PerMinute(price) => Some(price.longest_ms()),
            _ => None,
        };
        let metered = self.terms(env).map(|_| {
            let facilitator = env.config.facilitators.get(self.ready.facilitator);
            let settling = facilitator.map_or(0, |facilitator| u64::from(facilitator.settle_timeout_ms));
            self.seconds_left(env).saturating_mul(1000).saturating_sub(settling)
        });
        priced.into_iter().chain(metered).min()
    }

    /// What its answer is metered by; `None`: it pays the quote, or what the backend says, before its answer leaves.
    pub(super) fn terms<'a>(&self, env: &Env<'a>) -> Option<&'a MeteredTerms> {
        self.route(env)?.metered(self.offer(env)?.scheme)
    }

    /// What is charged for what was delivered. Where that cannot be known, which cannot happen, nothing is.
    pub(super) fn charge(&self, delivery: &Delivery, env: &Env<'_>) -> Charged {
        let charged = || {
            let (deal, routes) = self.deal(env)?;
            let (_, route) = deal.route(routes)?;
            deal.quote.charge(route, self.offer, self.terms(env)?, delivery)
        };
        charged().unwrap_or(Charged {
            amount: Atomic(0),
            capped: false,
        })
    }

    /// The name of the header, or the trailer, in which the client gets its receipt.
    pub(super) fn receipt_name(&self) -> &'static str {
        Receipt::name(self.payment.dialect)
    }

    /// The header that tells the client of its settlement, `error` being why it failed.
    pub(super) fn receipt(
        &self,
        transaction: &str,
        amount: Option<&str>,
        error: Option<&str>,
        env: &Env<'_>,
    ) -> Option<(&'static str, String)> {
        let offer = self.offer(env)?;
        let receipt = Receipt {
            network: &offer.asset.network,
            payer: Some(&*self.payer).filter(|payer| !payer.is_empty()),
            transaction,
            amount,
            error,
        };
        Some(receipt.header(self.payment.dialect))
    }
}

/// A hash of these, put together.
pub(super) fn short_hash(parts: &[&[u8]]) -> [u8; 16] {
    let [short @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = keccak256(&parts.concat());
    short
}
