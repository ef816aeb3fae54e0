//! The delivery of an answer that has been paid for: what it was paid with may be used once more if it does not come to its end.

use super::edits::Edits;
use super::env::{Env, Note};
use super::sale::Sale;
use super::share::Report;
use crate::pricing::{Atomic, End};
use crate::replay::{Held, Purchase, Right, Undelivered, Wanted};
use crate::x402::Refusal;
use crate::x402::facilitator::Settled;

/// A request that was paid for, and what lets it pass.
pub struct Delivery {
    sale: Sale,
    right: Right,
    transaction: String,
    /// The amount as the facilitator said it.
    said: Option<String>,
    /// What was settled.
    amount: u128,
}

impl Delivery {
    /// The payment was settled for this very request.
    pub(super) fn first(sale: Sale, settled: &Settled, amount: Atomic, env: &mut Env<'_>) -> Self {
        let delivery = Self {
            sale,
            right: Right::First,
            transaction: settled.transaction.clone(),
            said: settled.amount.clone(),
            amount: amount.0,
        };
        let sale = &delivery.sale;
        let requests = sale.route(env).map_or(1, |route| route.requests_per_payment);
        if requests > 1 {
            let (key, expiry) = (sale.hold.key(), sale.hold.expiry());
            let (purchase, more) = (delivery.purchase(env), requests.saturating_sub(1));
            if env.entitlements().grant(env.store, key, &purchase, more, expiry, env.now).is_err() {
                warn_lost(env);
            }
        }
        // The others need not wait for this one's answer, nor will anybody know of it where the VM may end before.
        if requests > 1 || sale.hold.is_left_pending() {
            sale.hold.spend(env);
        }
        delivery
    }

    /// What is left of a payment that an earlier request has settled: nothing is settled for this one.
    ///
    /// # Errors
    ///
    /// Why this request may have none of it.
    pub(super) fn left(sale: &Sale, env: &mut Env<'_>) -> Result<(Right, Purchase), Refusal> {
        let wanted = Wanted {
            identity: sale.identity(),
            route: sale.route_hash(env),
            amount: sale.offer(env).map_or(u128::MAX, |offer| offer.amount.0),
            request: sale.request,
        };
        match env.entitlements().take(env.store, sale.hold.key(), &wanted, env.now) {
            Ok(Some(left)) => Ok(left),
            Ok(None) => Err(Refusal::NonceAlreadyUsed),
            Err(Held::InUse) => Err(Refusal::PaymentInUse),
            Err(_) => Err(Refusal::ClaimsUnavailable),
        }
    }

    /// A request that may have that.
    pub(super) fn of(sale: Sale, (right, purchase): (Right, Purchase), env: &mut Env<'_>) -> Self {
        let (label, outcome) = match right {
            Right::Again => ("again", "served_again"),
            Right::First | Right::More => ("more", "prepaid"),
        };
        env.notes.event(Note::Entitled(label));
        env.notes.attribute("outcome", outcome);
        env.notes.attribute("transaction", String::from(&*purchase.transaction));
        Self {
            sale,
            right,
            transaction: purchase.transaction,
            said: purchase.said,
            amount: purchase.amount,
        }
    }

    pub(super) fn sale(&self) -> &Sale {
        &self.sale
    }

    /// The header that tells the client of the settlement.
    pub(super) fn receipt(&self, env: &Env<'_>) -> Option<(&'static str, String)> {
        self.sale.receipt(&self.transaction, self.said.as_deref(), None, env)
    }

    /// What is remembered of it: not before it has to be.
    fn purchase(&self, env: &Env<'_>) -> Purchase {
        Purchase {
            identity: self.sale.identity(),
            route: self.sale.route_hash(env),
            amount: self.amount,
            transaction: self.transaction.clone(),
            said: self.said.clone(),
        }
    }

    /// What the headers of its answer undergo.
    pub(super) fn edit(&self, mut edits: Edits, env: &Env<'_>) -> Edits {
        edits.set.extend(self.receipt(env));
        edits
    }

    /// The stream has ended, after the answer's headers went.
    pub(super) fn ended(self, end: End, env: &mut Env<'_>) {
        self.sale.hold.report(Report::Delivered, env);
        if end != End::Complete {
            return self.failed(true, env);
        }
        match self.right {
            // Not before: a client that has lost its connection, and comes again before Envoy knows, is to wait rather than pay again.
            Right::First => self.sale.hold.spend(env),
            Right::More => {}
            // Should this fail it stays taken.
            Right::Again => {
                let _ = env.entitlements().close(env.store, self.sale.hold.key(), env.now);
            }
        }
    }

    /// It was not delivered to its end. `begun`: a part of it was.
    pub(super) fn failed(self, begun: bool, env: &mut Env<'_>) {
        // It is to be had once more, from here alone.
        self.sale.hold.report(Report::Delivered, env);
        // What was metered was settled for what there was of it, perhaps next to nothing: it does not buy the next answer in full.
        let is_metered = self.sale.terms(env).is_some();
        let undelivered = Undelivered {
            right: self.right,
            request: self.sale.request,
            begun,
            times: if is_metered { 0 } else { env.config.redeliver.times },
            until: env.now.plus(env.config.redeliver.window),
        };
        env.notes.attribute("outcome", "paid_not_delivered");
        env.notes.event(Note::Undelivered);
        let given = env
            .entitlements()
            .give_back(env.store, self.sale.hold.key(), &self.purchase(env), &undelivered, env.now);
        if given.is_err() {
            warn_lost(env);
        }
        // Only now, so that nobody finds it spent and nothing to be had for it; and for as long as there is, for a payment that does not say
        // when it expires (Solana) would be taken for a new one.
        self.sale.hold.spend_until(undelivered.until, env);
    }
}

fn warn_lost(env: &mut Env<'_>) {
    env.notes
        .warnings
        .push("what a payment still buys could not be recorded: the shared data is contended".into());
}
