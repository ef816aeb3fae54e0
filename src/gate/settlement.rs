//! A settlement: the one call that moves money, and what each of its ends means.
//!
//! It belongs to the root context, so that its outcome is known and its claim ended when the client has left.

use super::Gate;
use super::answer::refuse;
use super::delivery::Delivery;
use super::edits::Edits;
use super::effects::{Call, CalloutReply, EndEffect, Endpoint, LastWords, Released, RequestEffect, ResponseEffect};
use super::env::{Env, Note};
use super::prepaid::Prepaid;
use super::sale::Sale;
use super::share::Report;
use super::tries::Tries;
use super::trust;
use super::verifying::contradiction;
use crate::breaker::Class;
use crate::metering::Place;
use crate::pricing::Atomic;
use crate::x402::facilitator::{Settle, Settled, parse_settle};
use crate::x402::{Answer, Refusal};

/// A payment that is being settled, with what waits for it.
pub struct Settlement {
    sale: Sale,
    amount: Atomic,
    waits: Waits,
    call: Call,
    tries: Tries,
}

/// What waits for a settlement.
enum Waits {
    /// The request: it goes on with these changes once it is paid for.
    Request(Edits),
    /// The whole answer: it leaves with these changes once it is paid for.
    Headers(Edits),
    /// The end of a metered answer, the rest of which the client has had. `place`: it is a stream of events, and takes a last comment.
    End { place: Option<Place> },
}

/// What an answer that was delivered still needs.
pub(super) enum Due {
    /// Nothing: it cost nothing, or what it cost cannot be asked for.
    Nothing(EndEffect),
    /// To be settled.
    Settlement(Box<Settlement>),
}

impl Settlement {
    fn new(sale: Sale, amount: Atomic, waits: Waits, call: Call, tries: Tries) -> Box<Self> {
        Box::new(Self {
            sale,
            amount,
            waits,
            call,
            tries,
        })
    }

    /// Before the backend is asked.
    pub(super) fn upfront(sale: Sale, edits: Edits, tries: Tries, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        let amount = sale.offer(env).map_or(Atomic(0), |offer| offer.amount);
        match sale.call(Endpoint::Settle, None, env) {
            Some(call) => {
                env.notes.attribute("outcome", "settling");
                let settlement = Self::new(sale, amount, Waits::Request(edits), call, tries);
                (Gate::Paying, RequestEffect::Settle(settlement))
            }
            None => (Gate::Answered, RequestEffect::Answer(not_sent(&sale, env).into())),
        }
    }

    /// Before the answer leaves.
    pub(super) fn begin(sale: Sale, amount: Atomic, mut edits: Edits, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if sale.hold.has_lapsed(env) {
            // The backend took so long that the payment has run out: it cannot be settled, and its claim may be gone.
            sale.hold.release(env);
            env.notes.event(Note::Settled("refused"));
            let answer = refuse(env, &sale.order, Refusal::ValidBefore, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        if amount.0 == 0 {
            sale.hold.release(env);
            env.notes.attribute("outcome", "nothing_due");
            free(env);
            edits.set.extend(sale.receipt("", Some("0"), None, env));
            return (Gate::Passing, ResponseEffect::Edit(edits));
        }
        match sale.call(Endpoint::Settle, Some(amount), env) {
            Some(call) => {
                // What the access log says if the client leaves before the outcome is known.
                env.notes.attribute("outcome", "settling");
                let settlement = Self::new(sale, amount, Waits::Headers(edits), call, Tries::first());
                (Gate::Settling, ResponseEffect::Settle(settlement))
            }
            None => (Gate::Answered, ResponseEffect::Answer(not_sent(&sale, env))),
        }
    }

    /// After the answer was delivered.
    pub(super) fn after(sale: Sale, amount: Atomic, place: Option<Place>, env: &mut Env<'_>) -> Due {
        if amount.0 == 0 {
            sale.hold.release(env);
            free(env);
            let receipt = sale.receipt("", Some("0"), None, env);
            return Due::Nothing(EndEffect::Finish(LastWords::of(receipt, place)));
        }
        match sale.call(Endpoint::Settle, Some(amount), env) {
            Some(mut call) => {
                // Whoever else comes with this payment has had nothing of it.
                if let Some(intent) = &mut call.intent {
                    intent.push_str(";delivered");
                }
                Due::Settlement(Self::new(sale, amount, Waits::End { place }, call, Tries::first()))
            }
            // Cannot happen: the same call was made for /verify.
            None => Due::Nothing(unsettled(&sale, amount, "no facilitator", env)),
        }
    }

    /// The client left before the call was sent, or sent again. Gives the settlement back if it is to be sent all the same, because the
    /// client has had what it pays for, or because it was sent before; else the payment is given back.
    pub fn abandon(self: Box<Self>, env: &mut Env<'_>) -> Option<Box<Self>> {
        match self.waits {
            Waits::End { .. } => Some(self),
            _ if self.tries.made > 0 => Some(self),
            Waits::Request(_) | Waits::Headers(_) => {
                env.notes.event(Note::Released);
                self.sale.hold.release(env);
                None
            }
        }
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

    /// What the call is worth. What a client takes up again has waited before, and can be asked for as often as it likes.
    pub fn class(&self) -> Class {
        match self.waits {
            Waits::End { .. } => Class::Owed,
            _ if self.tries.doubt && !self.tries.resumed => Class::Owed,
            Waits::Request(_) | Waits::Headers(_) => Class::Settle,
        }
    }

    /// How long the client may be kept waiting for the outcome, in milliseconds; `None`: until it is known.
    pub fn patience_ms(&self, env: &Env<'_>) -> Option<u32> {
        match self.waits {
            Waits::Request(_) | Waits::Headers(_) => None,
            Waits::End { .. } => Some(self.sale.terms(env).map_or(0, |terms| terms.receipt_wait_ms)),
        }
    }

    /// The name of the trailer that is to carry the receipt of a metered answer.
    pub fn receipt_name(&self) -> &'static str {
        self.sale.receipt_name()
    }

    /// The facilitator answered, or the call failed: ends the claim and says what becomes of the answer, or that it is to be sent again.
    ///
    /// Must be called exactly once for each sending, client or no client.
    pub fn settled(mut self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> Released {
        self.tries.made = self.tries.made.saturating_add(1);
        let outcome = match reply {
            CalloutReply::NotSent if !self.tries.doubt => return self.not_acted("it cannot be reached", env),
            // Nothing was done for this request, and its client can send it again: it is not kept waiting for a facilitator that is not there.
            CalloutReply::NotSent if self.tries.resumed && self.tries.made == 1 => return self.unknown("it cannot be reached", None, env),
            CalloutReply::NotSent => Settle::Unknown {
                why: "it cannot be reached".into(),
                transaction: None,
            },
            CalloutReply::Lost => Settle::Unknown {
                why: "it did not answer".into(),
                transaction: None,
            },
            CalloutReply::Answered { status, body } => match self.sale.offer(env) {
                Some(offer) => parse_settle(*status, body, &offer.asset.network, false),
                None => Settle::Unknown {
                    why: "the offer is gone".into(),
                    transaction: None,
                },
            },
        };
        match outcome {
            Settle::Settled(settled) => self.paid(&settled, "settled", env),
            // What was sent before may have gone through: then the balance is gone because it was.
            Settle::Refused { reason, transaction, .. } if self.tries.doubt => match transaction {
                // Not the one that was hoped for. It fails where the nonce is used, and some facilitators have no other word for that.
                Some(reverted) if self.tries.named.as_deref() != Some(&*reverted) && self.sale.hold.share().is_none() => {
                    self.used(&reason, env)
                }
                reverted => {
                    self.tries.reverted(reverted.as_deref());
                    self.doubtful(&reason, None, env)
                }
            },
            // It was found good here: the facilitator is at fault, and has done nothing. See the same at /verify.
            Settle::Refused {
                refusal: Refusal::InvalidSignature,
                transaction: None,
                reason,
            } if self.sale.proven => {
                env.notes
                    .warnings
                    .push(contradiction(self.sale.facilitator(env), Endpoint::Settle, &reason));
                self.not_acted(&reason, env)
            }
            Settle::Refused {
                reason,
                refusal,
                transaction,
            } => {
                match (&self.waits, &transaction) {
                    (Waits::Request(_) | Waits::Headers(_), None) => self.sale.hold.release(env),
                    // A transaction that failed, for which the facilitator has paid the network: there is no reason why it should not
                    // fail again.
                    (Waits::Request(_) | Waits::Headers(_), Some(_)) => self.sale.hold.waste(env),
                    // It has bought its answer.
                    (Waits::End { .. }, _) => self.sale.hold.spend(env),
                }
                self.refused(refusal, &reason, transaction, env)
            }
            // Not where replicas share claims: the ledger would have had its receipt for this request, if it had one. Another one has.
            Settle::NonceUsed { reason, transaction } if self.tries.doubt && self.sale.hold.share().is_none() => {
                self.tries.reverted(transaction.as_deref());
                self.used(&reason, env)
            }
            // Our first attempt, answered, or the ledger's word: somebody else has spent it. The claim says so until the payment expires.
            Settle::NonceUsed { reason, transaction } => {
                match self.waits {
                    Waits::Request(_) | Waits::Headers(_) => self.sale.hold.waste(env),
                    Waits::End { .. } => self.sale.hold.spend(env),
                }
                self.refused(Refusal::NonceAlreadyUsed, &reason, transaction, env)
            }
            Settle::Unknown { why, transaction } => self.doubtful(&why, transaction, env),
        }
    }

    /// The facilitator certainly has done nothing: another one may be asked, where the payment is not bound to this one. What was
    /// delivered is worth waiting for this one.
    fn not_acted(mut self, why: &str, env: &mut Env<'_>) -> Released {
        let next = self.sale.offer(env).and_then(|offer| env.supported.next(&offer, &self.sale.ready));
        if let Some(ready) = next {
            self.sale.ready = ready;
            if let Some(call) = self.sale.call(Endpoint::Settle, Some(self.amount), env) {
                self.call = call;
                return Released::Again(Box::new(self), 0);
            }
        }
        match self.waits {
            Waits::Request(_) => {
                self.sale.hold.uncount(env);
                Released::Answer(not_sent(&self.sale, env))
            }
            Waits::Headers(_) => Released::Answer(not_sent(&self.sale, env)),
            Waits::End { .. } => match self.tries.again_in(&self.sale, env) {
                Some(ms) => Released::Again(Box::new(self), ms),
                None => Released::End(unsettled(&self.sale, self.amount, why, env)),
            },
        }
    }

    /// The money may have moved: the same settlement is sent again, as long as there is any use in it.
    fn doubtful(mut self, why: &str, transaction: Option<String>, env: &mut Env<'_>) -> Released {
        self.tries.doubt = true;
        self.tries.named = transaction.or(self.tries.named);
        match self.tries.again_in(&self.sale, env) {
            Some(ms) => {
                env.notes.event(Note::SettlementRetried);
                Released::Again(Box::new(self), ms)
            }
            None => {
                let named = self.tries.named.take();
                self.unknown(why, named, env)
            }
        }
    }

    /// The nonce has been used, after an attempt of ours without an answer: by that attempt, or by the payer, who can burn a nonce. It counts
    /// as ours if so little is at stake, once per payer and hour. Never by what an earlier request had sent: that may have been another
    /// payment, and a cheaper one, with the same nonce, unless it is known to have been this one. Nor is it proof that a transaction was named before: a payer can outbid it while it
    /// waits for a block, and where a facilitator has several instances none of them says that it failed.
    fn used(self, reason: &str, env: &mut Env<'_>) -> Released {
        let named = self.tries.named.clone();
        if (self.tries.resumed && !self.was_sent_alone(env)) || !trust::infers(&self.sale, self.amount, env) {
            return self.unknown(&format!("{reason}, perhaps by an attempt without an answer"), named, env);
        }
        let settled = Settled {
            transaction: named.unwrap_or_default(),
            payer: None,
            amount: None,
        };
        self.paid(&settled, "inferred", env)
    }

    /// Whether an earlier request has sent the settlement of this very payment, and none has sent another one's of its nonce.
    fn was_sent_alone(&self, env: &Env<'_>) -> bool {
        let (key, payment) = (self.sale.hold.key(), self.sale.identity());
        env.attempts().is_only(env.store, key, &payment, env.now)
    }

    fn paid(self, settled: &Settled, outcome: &'static str, env: &mut Env<'_>) -> Released {
        let Self { sale, amount, waits, .. } = self;
        env.notes.event(Note::Settled(outcome));
        env.notes.attribute("outcome", "paid");
        env.notes.attribute("settled", amount.0.to_string());
        env.notes.attribute("transaction", String::from(&*settled.transaction));
        if let Some(offer) = sale.offer(env) {
            let network = offer.asset.network.v1_name().into();
            let earned = amount.millionths(offer.asset.decimals);
            env.notes.event(Note::Earned(offer.asset.symbol.clone(), network, earned));
        }
        trust::refund(&sale, amount, env);
        match waits {
            Waits::Request(edits) => {
                let delivery = Delivery::first(sale, settled, amount, env);
                Released::Forward(edits, Box::new(Gate::Prepaid(Box::new(Prepaid::new(delivery)))))
            }
            Waits::Headers(edits) => {
                let delivery = Delivery::first(sale, settled, amount, env);
                Released::Edit(delivery.edit(edits, env), Box::new(Gate::Delivering(Box::new(delivery))))
            }
            Waits::End { place } => {
                sale.hold.spend(env);
                // How much it was is what the client of a metered answer wants to know, whether or not the facilitator repeats it.
                let said = settled.amount.clone().unwrap_or_else(|| amount.0.to_string());
                let receipt = sale.receipt(&settled.transaction, Some(&said), None, env);
                Released::End(EndEffect::Finish(LastWords::of(receipt, place)))
            }
        }
    }

    fn refused(self, refusal: Refusal, reason: &str, transaction: Option<String>, env: &mut Env<'_>) -> Released {
        env.notes.event(Note::Settled("refused"));
        let sale = &self.sale;
        if let Waits::End { .. } = self.waits {
            env.notes.event(Note::ServedUnsettled);
            env.notes.attribute("outcome", "served_unsettled");
            trust::ban(sale, env);
            let facilitator = sale.facilitator(env);
            env.notes.warnings.push(format!(
                "facilitator {facilitator}: /settle refused a delivered answer: {reason}; it was not paid for"
            ));
            return Released::End(EndEffect::Break);
        }
        let mut answer = refuse(env, &sale.order, refusal, Some(reason), "");
        answer
            .headers
            .extend(sale.receipt(transaction.as_deref().unwrap_or_default(), None, Some(reason), env));
        Released::Answer(answer)
    }

    /// The money may have moved: no new challenge, or an honest client would pay twice.
    fn unknown(self, why: &str, transaction: Option<String>, env: &mut Env<'_>) -> Released {
        match self.waits {
            Waits::Request(_) | Waits::Headers(_) => {
                let (hold, payment) = (&self.sale.hold, self.sale.identity());
                // Should this fail, what is heard of it later counts for nothing.
                let _ = env.attempts().note(env.store, hold.key(), &payment, hold.expiry(), env.now);
                hold.keep_pending(env);
                hold.report(Report::Pending, env);
            }
            // It has bought its answer: nobody takes it over, with whatever other payment of the same nonce.
            Waits::End { .. } => {
                self.sale.hold.keep_closed(env);
                self.sale.hold.report(Report::Due(self.amount), env);
            }
        }
        env.notes.event(Note::Settled("unknown"));
        env.notes.attribute("transaction", transaction.unwrap_or_default());
        env.notes.warnings.push(format!(
            "facilitator {}: /settle: {why}; the payment is held as pending",
            self.sale.facilitator(env)
        ));
        match self.waits {
            Waits::Request(_) | Waits::Headers(_) => Released::Answer(refuse(env, &self.sale.order, Refusal::SettlementPending, None, "")),
            Waits::End { .. } => {
                env.notes.attribute("outcome", Refusal::SettlementPending.row().reason);
                Released::End(EndEffect::Finish(None))
            }
        }
    }
}

fn free(env: &mut Env<'_>) {
    env.notes.event(Note::Released);
    env.notes.attribute("settled", "0");
}

/// The facilitator certainly did not get the request: nothing was settled, and the payment may be sent again.
fn not_sent(sale: &Sale, env: &mut Env<'_>) -> Answer {
    env.notes.event(Note::Settled("unavailable"));
    sale.hold.release(env);
    refuse(env, &sale.order, Refusal::FacilitatorUnavailable, None, "")
}

/// The facilitator certainly did nothing, and the client has had its answer: the payment buys no other one.
fn unsettled(sale: &Sale, amount: Atomic, why: &str, env: &mut Env<'_>) -> EndEffect {
    sale.hold.keep_closed(env);
    sale.hold.report(Report::Due(amount), env);
    env.notes.event(Note::Settled("unavailable"));
    env.notes.event(Note::ServedUnsettled);
    env.notes.attribute("outcome", "served_unsettled");
    let facilitator = sale.facilitator(env);
    env.notes.warnings.push(format!(
        "facilitator {facilitator}: /settle of a delivered answer: {why}; it was not paid for"
    ));
    EndEffect::Finish(None)
}
