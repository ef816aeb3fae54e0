//! A request's hold on what its payment can spend once.

use std::cell::Cell;

use super::admission::{Admission, Denied};
use super::env::{Env, Note};
use super::share::{Report, Share};
use crate::replay::{self, Change, ClaimKey, Contended, Held, UnixSeconds};
use crate::replay::{Exceeded, Limits, Opened, Trust};
use crate::x402::Refusal;

/// A claim, and whether this request has it.
pub(super) struct Hold {
    key: ClaimKey,
    expiry: UnixSeconds,
    state: State,
    /// What it takes with it.
    admission: Admission,
    /// What is delivered before it is settled, and the most of that.
    trust: Option<(Trust, Limits)>,
    /// The trust that was given, until it is ended.
    opened: Cell<Option<Opened>>,
    /// What the ledger knows of it, where the replicas share claims.
    share: Option<Share>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits, perhaps for the facilitator's word: see [`Claiming::OnceVerified`](crate::precheck::Claiming::OnceVerified).
    Wanted,
    /// This request has the claim.
    Held,
    /// It was left pending, because nobody may be there to end it.
    LeftPending,
}

impl Hold {
    /// A claim that nobody has taken yet.
    pub(super) fn new(key: ClaimKey, expiry: UnixSeconds) -> Self {
        Self {
            key,
            expiry,
            state: State::Wanted,
            admission: Admission::default(),
            trust: None,
            opened: Cell::default(),
            share: None,
        }
    }

    /// The same, where the replicas share claims.
    pub(super) fn shared(mut self, env: &Env<'_>) -> Self {
        self.share = Share::new(env);
        self
    }

    /// The payment has run out: the ledger is asked for nothing but what it has paid for.
    pub(super) fn late(mut self) -> Self {
        if let Some(share) = &mut self.share {
            share.late = true;
        }
        self
    }

    /// What the ledger knows of it.
    pub(super) fn share(&self) -> Option<&Share> {
        self.share.as_ref()
    }

    /// Tells the ledger, if it knows of this.
    pub(super) fn report(&self, report: Report, env: &mut Env<'_>) {
        if let Some(share) = &self.share {
            share.report(report, env);
        }
    }

    /// What is claimed.
    pub(super) fn key(&self) -> &ClaimKey {
        &self.key
    }

    /// What the claim takes with it.
    pub(super) fn admit(&mut self, admission: Admission) {
        self.admission = admission;
    }

    /// When the claim expires: the payment, and the clock's skew.
    pub(super) fn expiry(&self) -> UnixSeconds {
        self.expiry
    }

    /// The trust that the claim takes with it.
    pub(super) fn entrust(&mut self, trust: Option<(Trust, Limits)>) {
        self.trust = trust;
    }

    /// Takes the claim, unless this request has it already.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now.
    pub(super) fn take(&mut self, env: &mut Env<'_>) -> Result<(), Denied> {
        if self.state != State::Wanted {
            return Ok(());
        }
        match env.claims.claim(env.store, &self.key, self.expiry, env.now) {
            Ok(change) => note(Ok(change), env),
            Err(_) if self.admission.conflicts(env) => return Err(Refusal::IdentifierConflict.into()),
            Err(held) => return Err(refusal_of(held).into()),
        }
        self.state = State::Held;
        self.enter(env)
    }

    /// Takes what goes with the claim, which this request has. What is refused for another reason is not counted.
    fn enter(&self, env: &mut Env<'_>) -> Result<(), Denied> {
        let entered = self.admission.name(env).and_then(|()| self.admission.count(env));
        entered.inspect_err(|_| self.release(env))
    }

    /// Takes over a claim whose settlement is pending, to find out about it; one request at a time can.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now.
    pub(super) fn resume(&mut self, env: &mut Env<'_>) -> Result<(), Denied> {
        let change = env.claims.retake(env.store, &self.key, self.expiry, env.now).map_err(refusal_of)?;
        self.state = State::Held;
        note(Ok(change), env);
        self.admission.name(env).inspect_err(|_| self.release(env))
    }

    /// The facilitator has vouched for the payment: takes the claim, unless this request has it already, and the trust that goes with it.
    /// Not before, or people without money could use up what all payers have together.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now; it is given back then.
    pub(super) fn confirm(&mut self, env: &mut Env<'_>) -> Result<(), Denied> {
        self.take(env)?;
        self.enter(env)?;
        let Some((trust, limits)) = &self.trust else { return Ok(()) };
        match env.exposure().open(env.store, trust, limits, env.now) {
            Ok(opened) => {
                self.opened.set(Some(opened));
                Ok(())
            }
            Err(exceeded) => {
                self.uncount(env);
                self.release(env);
                Err(refusal(exceeded).into())
            }
        }
    }

    /// Whether the claim could be taken now: what others make of the same payment is looked at, and nothing is changed.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now.
    pub(super) fn is_free(&self, env: &Env<'_>) -> Result<(), Refusal> {
        if self.state != State::Wanted {
            return Ok(());
        }
        match env.claims.state(env.store, &self.key, env.now) {
            None => Ok(()),
            Some(replay::State::InUse | replay::State::Retaken) => Err(Refusal::PaymentInUse),
            Some(replay::State::Pending | replay::State::Left) => Err(Refusal::SettlementPending),
            Some(replay::State::Spent) => Err(Refusal::NonceAlreadyUsed),
        }
    }

    /// Whether there is trust for the claim now: nobody need be asked about a payment that there is none for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn check(&self, env: &Env<'_>) -> Result<(), Denied> {
        let Some((trust, limits)) = &self.trust else { return Ok(()) };
        env.exposure()
            .check(env.store, trust, limits, env.now)
            .map_err(|exceeded| refusal(exceeded).into())
    }

    /// Ends the trust that went with the claim, once. Where that fails it ends with the payment's expiry.
    fn close(&self, env: &Env<'_>) {
        if let Some(opened) = self.opened.take() {
            let _ = env.exposure().close(env.store, opened, env.now);
        }
    }

    /// Whether the claim may have been forgotten by now: the payment itself has run out, and is not to be settled. From then on another
    /// payment with the same nonce may hold it, and it is not for this request to give back, or to leave to others.
    pub(super) fn has_lapsed(&self, env: &Env<'_>) -> bool {
        env.now > self.expiry
    }

    /// Gives the payment back: the client may send it again.
    pub(super) fn release(&self, env: &mut Env<'_>) {
        self.close(env);
        self.admission.give_back(env);
        self.report(Report::Released, env);
        match self.state {
            State::Wanted => {}
            // The claim has ended by itself. If there is one, somebody else has it: nonces of Permit2 and EIP-2612 can be signed anew.
            _ if self.has_lapsed(env) => {}
            State::Held => note(env.claims.release(env.store, &self.key, env.now), env),
            State::LeftPending => note(env.claims.forgive(env.store, &self.key, env.now), env),
        }
    }

    /// The request could not be served, by no fault of its payer, and nobody has worked for it: it counts as never made.
    pub(super) fn uncount(&self, env: &Env<'_>) {
        self.admission.uncount(env);
    }

    /// Leaves the claim as pending for the case that this request cannot end it: the VM may be gone before it can.
    pub(super) fn leave_pending(&mut self, env: &mut Env<'_>) {
        if self.state == State::Held {
            self.keep_closed(env);
            self.state = State::LeftPending;
        }
    }

    /// Whether it was.
    pub(super) fn is_left_pending(&self) -> bool {
        self.state == State::LeftPending
    }

    /// The settlement's outcome is not known: nobody may use the payment until it is, and what was delivered for it stays open.
    pub(super) fn keep_pending(&self, env: &mut Env<'_>) {
        if self.has_lapsed(env) {
            return;
        }
        note(env.claims.mark_pending(env.store, &self.key, self.expiry, env.now), env);
    }

    /// The same, and nobody may take it over to find out.
    pub(super) fn keep_closed(&self, env: &mut Env<'_>) {
        if self.has_lapsed(env) {
            return;
        }
        note(env.claims.mark_left(env.store, &self.key, self.expiry, env.now), env);
    }

    /// So many millionths less were paid than the quote.
    pub(super) fn refund(&self, amount: u64, env: &Env<'_>) {
        self.admission.refund(amount, env);
    }

    /// The payment can buy nothing any more, and has bought nothing: what its claim took is given back.
    pub(super) fn waste(&self, env: &mut Env<'_>) {
        self.admission.give_back(env);
        self.spend(env);
    }

    /// The money has moved: the payment buys nothing any more.
    pub(super) fn spend(&self, env: &mut Env<'_>) {
        self.spend_until(self.expiry, env);
    }

    /// The same, and it is known so long at least.
    pub(super) fn spend_until(&self, until: UnixSeconds, env: &mut Env<'_>) {
        self.close(env);
        note(env.claims.mark_spent(env.store, &self.key, self.expiry.max(until), env.now), env);
    }
}

fn refusal_of(held: Held) -> Refusal {
    match held {
        Held::InUse => Refusal::PaymentInUse,
        Held::Pending => Refusal::SettlementPending,
        Held::Spent => Refusal::NonceAlreadyUsed,
        Held::Full | Held::Contended => Refusal::ClaimsUnavailable,
    }
}

fn refusal(exceeded: Exceeded) -> Refusal {
    match exceeded {
        Exceeded::Payer | Exceeded::Total => Refusal::ExposureExceeded,
        Exceeded::Unavailable => Refusal::ClaimsUnavailable,
    }
}

/// A change that the store would not take is worth a warning: the claim then ends by its expiry.
fn note(change: Result<Change, Contended>, env: &mut Env<'_>) {
    match change {
        Ok(change) => env.notes.event(Note::Claims(change.net())),
        Err(_) => env
            .notes
            .warnings
            .push("a claim could not be updated: it stays as it is until the payment expires".into()),
    }
}
