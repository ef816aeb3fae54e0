//! A settlement: the one call that moves money, and what each of its ends means.
//!
//! It belongs to the root context, so that its outcome is known and its claim ended when the client has left.

use super::Gate;
use super::answer::refuse;
use super::edits::Edits;
use super::effects::{Call, CalloutReply, Endpoint, ResponseEffect};
use super::env::{Env, Note};
use super::sale::Sale;
use crate::x402::Refusal;
use crate::x402::facilitator::{Settle, Settled, parse_settle};

/// A payment that is being settled, with the answer that waits for it.
pub struct Settlement {
    sale: Sale,
    edits: Edits,
    call: Call,
}

impl Settlement {
    pub(super) fn begin(sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if sale.hold.has_lapsed(env) {
            // The backend took so long that the payment has run out: it cannot be settled, and its claim may be gone.
            env.notes.event(Note::Settled("refused"));
            let answer = refuse(env, &sale.order, Refusal::ValidBefore, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        match sale.call(Endpoint::Settle, env) {
            Some(call) => {
                // What the access log says if the client leaves before the outcome is known.
                env.notes.attribute("outcome", "settling");
                (Gate::Settling, ResponseEffect::Settle(Box::new(Self { sale, edits, call })))
            }
            None => (Gate::Answered, ResponseEffect::Answer(not_sent(&sale, env))),
        }
    }

    /// The client left before the call was sent: it is not charged for what it will not get.
    pub fn abandon(self, env: &mut Env<'_>) {
        env.notes.event(Note::Released);
        self.sale.hold.release(env);
    }

    /// The VM may end before the answer comes (Envoy does not wait for it when the module itself is replaced): then nobody knows whether
    /// the money has moved, and the claim has to say so. What is known later still counts.
    pub fn leave_pending(&mut self, env: &mut Env<'_>) {
        self.sale.hold.leave_pending(env);
    }

    /// The call to be sent.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The facilitator answered, or the call failed: ends the claim and says what becomes of the answer.
    ///
    /// Must be called exactly once for each settlement, client or no client.
    pub fn settled(self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> ResponseEffect {
        let outcome = match reply {
            CalloutReply::NotSent => return ResponseEffect::Answer(not_sent(&self.sale, env)),
            CalloutReply::Lost => Settle::Unknown {
                why: "it did not answer".into(),
                transaction: None,
            },
            CalloutReply::Answered { status, body } => match self.sale.offer(env) {
                Some(offer) => parse_settle(*status, body, &offer.asset.network, offer.amount.0 == 0),
                None => Settle::Unknown {
                    why: "the offer is gone".into(),
                    transaction: None,
                },
            },
        };
        match outcome {
            Settle::Settled(settled) => self.paid(settled, env),
            Settle::Refused {
                reason,
                refusal,
                transaction,
            } => {
                self.sale.hold.release(env);
                self.refused(refusal, &reason, transaction, env)
            }
            // Our first attempt, answered: somebody else has spent it. The claim says so until the payment expires.
            Settle::NonceUsed { reason, transaction } => {
                self.sale.hold.spend(env);
                self.refused(Refusal::NonceAlreadyUsed, &reason, transaction, env)
            }
            Settle::Unknown { why, transaction } => self.unknown(&why, transaction, env),
        }
    }

    fn paid(self, settled: Settled, env: &mut Env<'_>) -> ResponseEffect {
        let Self { sale, mut edits, .. } = self;
        sale.hold.spend(env);
        env.notes.event(Note::Settled("settled"));
        env.notes.attribute("outcome", "paid");
        env.notes.attribute("transaction", &*settled.transaction);
        if let Some(offer) = sale.offer(env) {
            let network = offer.asset.network.v1_name().into();
            env.notes.event(Note::Earned(
                offer.asset.symbol.clone(),
                network,
                offer.amount.millionths(offer.asset.decimals),
            ));
        }
        edits
            .set
            .extend(sale.receipt(&settled.transaction, settled.amount.as_deref(), None, env));
        ResponseEffect::Edit(edits)
    }

    fn refused(self, refusal: Refusal, reason: &str, transaction: Option<String>, env: &mut Env<'_>) -> ResponseEffect {
        env.notes.event(Note::Settled("refused"));
        let sale = &self.sale;
        let mut answer = refuse(env, &sale.order, refusal, Some(reason), "");
        answer
            .headers
            .extend(sale.receipt(transaction.as_deref().unwrap_or_default(), None, Some(reason), env));
        ResponseEffect::Answer(answer)
    }

    /// The money may have moved: no new challenge, or an honest client would pay twice.
    fn unknown(self, why: &str, transaction: Option<String>, env: &mut Env<'_>) -> ResponseEffect {
        self.sale.hold.keep_pending(env);
        env.notes.event(Note::Settled("unknown"));
        env.notes.attribute("transaction", transaction.unwrap_or_default());
        env.notes.warnings.push(format!(
            "facilitator {}: /settle: {why}; the payment is held as pending",
            self.sale.facilitator(env)
        ));
        ResponseEffect::Answer(refuse(env, &self.sale.order, Refusal::SettlementPending, None, ""))
    }
}

/// The facilitator certainly did not get the request: nothing was settled, and the payment may be sent again.
fn not_sent(sale: &Sale, env: &mut Env<'_>) -> crate::x402::Answer {
    env.notes.event(Note::Settled("unavailable"));
    sale.hold.release(env);
    refuse(env, &sale.order, Refusal::FacilitatorUnavailable, None, "")
}
