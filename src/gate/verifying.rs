//! Waiting for /verify.

use super::Gate;
use super::answer::refuse;
use super::edits::Edits;
use super::effects::{Call, CalloutReply, CalloutToken, Endpoint, RequestEffect, ResponseEffect};
use super::env::{Env, Note};
use super::redirect;
use super::response::{Forwarding, Response};
use super::sale::Sale;
use crate::x402::Refusal;
use crate::x402::facilitator::{Verify, parse_verify};

/// A call to /verify that has yet to be sent. Nothing is paused before it is.
pub struct Dispatch {
    call: Call,
    waiting: Waiting,
}

/// What waits for the call.
pub struct Waiting {
    sale: Sale,
    edits: Edits,
}

impl Dispatch {
    pub(super) fn verify(sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        match sale.call(Endpoint::Verify, None, env) {
            Some(call) => {
                let waiting = Waiting { sale, edits };
                (Gate::Done, RequestEffect::Verify(Box::new(Self { call, waiting })))
            }
            None => unavailable(&sale, env),
        }
    }

    /// The facilitator was of no use. Verifying moves no money, so that the next one may be asked at once.
    fn verify_elsewhere(mut sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        match sale.offer(env).and_then(|offer| env.supported.next(&offer, &sale.ready)) {
            Some(ready) => {
                sale.ready = ready;
                Self::verify(sale, edits, env)
            }
            None => unavailable(&sale, env),
        }
    }

    /// The call, and what waits for it.
    pub fn split(self) -> (Call, Waiting) {
        (self.call, self.waiting)
    }
}

impl Waiting {
    /// The call was sent: the request may be paused, its answer will come.
    pub fn sent(self, token: CalloutToken) -> Gate {
        Gate::Verifying(Box::new(Verifying {
            token,
            sale: self.sale,
            edits: self.edits,
        }))
    }

    /// The call could not be sent and no answer will come.
    pub fn not_sent(self, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        Dispatch::verify_elsewhere(self.sale, self.edits, env)
    }
}

/// A request that is paused until /verify has been answered.
pub struct Verifying {
    token: CalloutToken,
    sale: Sale,
    edits: Edits,
}

impl Verifying {
    pub(super) fn waits_for(&self, token: CalloutToken) -> bool {
        self.token == token
    }

    pub(super) fn answered(self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        let verdict = match reply {
            CalloutReply::Answered { status, body } => parse_verify(*status, body),
            CalloutReply::NotSent => Verify::Unusable {
                why: "it cannot be reached".into(),
            },
            CalloutReply::Lost => Verify::Unusable {
                why: "it did not answer".into(),
            },
        };
        match verdict {
            Verify::Valid { payer } => self.valid(payer, env),
            Verify::Refused { reason, refusal } => {
                env.notes.event(Note::Verified("refused"));
                env.notes.attribute("payer", &*self.sale.payer);
                self.sale.hold.release(env);
                (
                    Gate::Answered,
                    RequestEffect::Answer(refuse(env, &self.sale.order, refusal, Some(&reason), "")),
                )
            }
            Verify::Unusable { why } => {
                env.notes
                    .warnings
                    .push(format!("facilitator {}: /verify: {why}", self.sale.facilitator(env)));
                Dispatch::verify_elsewhere(self.sale, self.edits, env)
            }
        }
    }

    fn valid(self, payer: Option<String>, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        let Self { mut sale, edits, .. } = self;
        env.notes.event(Note::Verified("valid"));
        if let Err(refusal) = sale.hold.confirm(env) {
            return (Gate::Answered, RequestEffect::Answer(refuse(env, &sale.order, refusal, None, "")));
        }
        // Only where the payment itself does not say who pays (Solana) is the facilitator's word taken for it.
        if sale.payer.is_empty() {
            sale.payer = payer.unwrap_or_default();
        }
        let Some(offer) = sale.offer(env) else {
            return unavailable(&sale, env);
        };
        let asset = &offer.asset;
        let mut edits = edits.tell_backend(&sale.payer, &offer, redirect::mark(env.secret));
        if sale.terms(env).is_some() {
            edits = edits.unencoded();
        }
        env.notes.attribute("payer", &*sale.payer);
        env.notes.attribute("network", asset.network.as_str());
        env.notes.attribute("asset", &*asset.symbol);
        env.notes.attribute("amount", offer.amount.0.to_string());
        (Gate::Forwarding(Box::new(Forwarding::new(sale))), RequestEffect::Forward(edits))
    }

    /// An answer came before the verdict.
    pub(super) fn overtaken(self, response: &Response<'_>, env: &mut Env<'_>) -> ResponseEffect {
        if response.from_backend {
            // The request was held back: only a plugin that is configured as the reader's lets this happen.
            self.sale.hold.release(env);
            let answer = refuse(env, &self.sale.order, Refusal::GateMisconfigured, None, "");
            return ResponseEffect::Answer(answer);
        }
        // A local reply (a timeout, a full buffer): the payment was not used.
        self.gone(env);
        ResponseEffect::Pass
    }

    pub(super) fn gone(self, env: &mut Env<'_>) {
        env.notes.event(Note::Released);
        env.notes.attribute("outcome", "gone_while_verifying");
        self.sale.hold.release(env);
    }
}

/// No verdict: the payment is not at fault and may be sent again.
fn unavailable(sale: &Sale, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    env.notes.event(Note::Verified("unavailable"));
    sale.hold.release(env);
    let answer = refuse(env, &sale.order, Refusal::FacilitatorUnavailable, None, "");
    (Gate::Answered, RequestEffect::Answer(answer))
}
