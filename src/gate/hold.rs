//! A request's hold on what its payment can spend once.

use super::env::{Env, Note};
use crate::precheck::Claiming;
use crate::replay::{Change, ClaimKey, Contended, Held, UnixSeconds};
use crate::x402::Refusal;

/// A claim, and whether this request has it.
pub(super) struct Hold {
    key: ClaimKey,
    expiry: UnixSeconds,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits for the facilitator's word: see [`Claiming::OnceVerified`].
    Wanted,
    /// This request has the claim.
    Held,
    /// It was left pending, because nobody may be there to end it.
    LeftPending,
}

impl Hold {
    /// Takes the claim at once, unless it has to wait until the facilitator has vouched for the payment.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now.
    pub(super) fn take(key: ClaimKey, expiry: UnixSeconds, claiming: Claiming, env: &mut Env<'_>) -> Result<Self, Refusal> {
        let mut hold = Self {
            key,
            expiry,
            state: State::Wanted,
        };
        if claiming == Claiming::AtOnce {
            hold.confirm(env)?;
        }
        Ok(hold)
    }

    /// Takes the claim now if it was left until the facilitator had vouched for the payment.
    ///
    /// # Errors
    ///
    /// Why the payment cannot be used now.
    pub(super) fn confirm(&mut self, env: &mut Env<'_>) -> Result<(), Refusal> {
        if self.state != State::Wanted {
            return Ok(());
        }
        let change = env
            .claims
            .claim(env.store, &self.key, self.expiry, env.now)
            .map_err(|held| match held {
                Held::InUse => Refusal::PaymentInUse,
                Held::Pending => Refusal::SettlementPending,
                Held::Spent => Refusal::NonceAlreadyUsed,
                Held::Full | Held::Contended => Refusal::ClaimsUnavailable,
            })?;
        self.state = State::Held;
        note(Ok(change), env);
        Ok(())
    }

    /// Whether the claim may have been forgotten by now: the payment itself has run out, and is not to be settled.
    pub(super) fn has_lapsed(&self, env: &Env<'_>) -> bool {
        env.now > self.expiry
    }

    /// Gives the payment back: the client may send it again.
    pub(super) fn release(&self, env: &mut Env<'_>) {
        match self.state {
            State::Wanted => {}
            State::Held => note(env.claims.release(env.store, &self.key, env.now), env),
            State::LeftPending => note(env.claims.forgive(env.store, &self.key, env.now), env),
        }
    }

    /// Leaves the claim as pending for the case that this request cannot end it: the VM may be gone before it can.
    pub(super) fn leave_pending(&mut self, env: &mut Env<'_>) {
        if self.state == State::Held {
            self.keep_pending(env);
            self.state = State::LeftPending;
        }
    }

    /// The settlement's outcome is not known: nobody may use the payment until it is.
    pub(super) fn keep_pending(&self, env: &mut Env<'_>) {
        note(env.claims.mark_pending(env.store, &self.key, self.expiry, env.now), env);
    }

    /// The money has moved: the payment buys nothing any more.
    pub(super) fn spend(&self, env: &mut Env<'_>) {
        note(env.claims.mark_spent(env.store, &self.key, self.expiry, env.now), env);
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
