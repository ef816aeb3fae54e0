//! Waiting for /verify: before the request goes on, or while the backend is at work.

use super::Gate;
use super::admission::Admission;
use super::answer::{deny, refuse};
use super::credit::Asking;
use super::delivery::Delivery;
use super::edits::Edits;
use super::effects::{Call, CalloutReply, CalloutToken, Endpoint, RequestEffect, ResponseEffect, VerifiedEffect};
use super::env::{Env, Note};
use super::prepaid::Prepaid;
use super::response::{Forwarding, Kept, Response};
use super::sale::Sale;
use super::settlement::Settlement;
use super::tries::Tries;
use crate::pricing::{Flow, Offer, Start};
use crate::x402::Refusal;
use crate::x402::facilitator::{Verify, parse_verify};

/// A call to /verify, or to the ledger, that has yet to be sent. Nothing is paused, and nothing goes on, before it is.
pub struct Dispatch {
    call: Call,
    waiting: Waiting,
}

/// What waits for the call.
pub struct Waiting(For);

enum For {
    /// The facilitator's verdict.
    Verdict { sale: Box<Sale>, stage: Stage },
    /// The ledger's reservation.
    Reservation(Box<Asking>),
}

/// Where the request is meanwhile.
enum Stage {
    /// Held back; it goes on with these changes.
    Held(Edits),
    /// It is about to go to the backend, with these changes: as soon as the call is sent.
    Leaving(Edits),
    /// The backend has it, and may have answered.
    Sent(Option<Kept>),
}

/// Lets a payment that passed the pre-check go its route's way.
pub(super) fn proceed(sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    let (flow, start) = sale
        .route(env)
        .map_or((Flow::default(), Start::Verified), |route| (route.flow.clone(), route.start));
    // What nobody can vouch for here is verified before anything else happens: nothing may be had for a made-up signature.
    let start = if sale.proven { start } else { Start::Verified };
    match (flow, start) {
        _ if sale.resumes => settle_first(sale, edits, env),
        (Flow::Upfront, _) if sale.proven => settle_first(sale, edits, env),
        (_, Start::Checked) => go_on(sale, edits, env),
        (_, Start::Meanwhile) => {
            let Some(edits) = told(&sale, edits, env) else {
                return unavailable(&sale, env);
            };
            Dispatch::verify(sale, Stage::Leaving(edits), env)
        }
        (_, Start::Verified) => Dispatch::verify(sale, Stage::Held(edits), env),
    }
}

/// The request goes to the backend, and nothing is known to be wrong with its payment.
fn go_on(sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    match told(&sale, edits, env) {
        Some(edits) => (Gate::Forwarding(Box::new(Forwarding::new(sale))), RequestEffect::Forward(edits)),
        None => unavailable(&sale, env),
    }
}

/// The request goes to the backend, and was paid for before.
pub(super) fn serve(delivery: Delivery, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    match told(delivery.sale(), edits, env) {
        Some(edits) => {
            let gate = Gate::Prepaid(Box::new(Prepaid::new(delivery)));
            (gate, RequestEffect::Forward(edits))
        }
        None => unavailable(delivery.sale(), env),
    }
}

/// The money moves before anything else does.
pub(super) fn settle_first(sale: Sale, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    match told(&sale, edits, env) {
        Some(edits) => {
            let tries = if sale.resumes { Tries::in_doubt() } else { Tries::first() };
            Settlement::upfront(sale, edits, tries, env)
        }
        None => unavailable(&sale, env),
    }
}

/// Tells the backend, and the access log, who pays what. `None` cannot happen: the offer is there.
fn told(sale: &Sale, edits: Edits, env: &mut Env<'_>) -> Option<Edits> {
    let offer = sale.offer(env)?;
    let offer: &Offer = &offer;
    let edits = edits.tell_backend(&sale.payer, offer, env.mark.into());
    env.notes.attribute("payer", sale.payer.clone());
    env.notes.attribute("network", offer.asset.network.as_str().to_owned());
    env.notes.attribute("asset", String::from(&*offer.asset.symbol));
    env.notes.attribute("amount", offer.amount.0.to_string());
    Some(match sale.terms(env) {
        Some(_) => edits.unencoded(),
        None => edits,
    })
}

impl Dispatch {
    fn verify(sale: Sale, stage: Stage, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        match sale.call(Endpoint::Verify, None, env) {
            Some(call) => {
                let waiting = Waiting(For::Verdict {
                    sale: Box::new(sale),
                    stage,
                });
                (Gate::Done, RequestEffect::Verify(Box::new(Self { call, waiting })))
            }
            None => unavailable(&sale, env),
        }
    }

    /// The facilitator was of no use. Verifying moves no money, so that the next one may be asked at once.
    fn verify_elsewhere(mut sale: Sale, stage: Stage, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        match sale.offer(env).and_then(|offer| env.supported.next(&offer, &sale.ready)) {
            Some(ready) => {
                sale.ready = ready;
                Self::verify(sale, stage, env)
            }
            None => unavailable(&sale, env),
        }
    }

    /// A call to the ledger.
    pub(super) fn reserve(call: Call, asking: Box<Asking>) -> Self {
        Self {
            call,
            waiting: Waiting(For::Reservation(asking)),
        }
    }

    /// The call, and what waits for it.
    pub fn split(self) -> (Call, Waiting) {
        (self.call, self.waiting)
    }
}

impl Waiting {
    /// The call was sent: its answer will come. The request may be paused, unless there are changes with which it is to go on.
    pub fn sent(self, token: CalloutToken) -> (Gate, Option<Edits>) {
        let (sale, stage) = match self.0 {
            For::Verdict { sale, stage } => (*sale, stage),
            For::Reservation(asking) => return (asking.sent(token), None),
        };
        let (stage, edits) = match stage {
            Stage::Leaving(edits) => (Stage::Sent(None), Some(edits)),
            stage => (stage, None),
        };
        (Gate::Verifying(Box::new(Verifying { token, sale, stage })), edits)
    }

    /// The call could not be sent and no answer will come.
    pub fn not_sent(self, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        match self.0 {
            For::Verdict { sale, stage } => Dispatch::verify_elsewhere(*sale, stage, env),
            For::Reservation(asking) => asking.not_sent(env),
        }
    }
}

/// A request whose payment is being verified.
pub struct Verifying {
    token: CalloutToken,
    sale: Sale,
    stage: Stage,
}

impl Verifying {
    pub(super) fn waits_for(&self, token: CalloutToken) -> bool {
        self.token == token
    }

    /// Whether the request waits for the verdict, rather than its answer.
    pub(super) fn holds_request(&self) -> bool {
        !matches!(self.stage, Stage::Sent(_))
    }

    /// How long an answer that is priced by the minute may take.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        self.sale.longest_ms(env)
    }

    pub(super) fn answered(self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> (Gate, VerifiedEffect) {
        let verdict = match reply {
            CalloutReply::Answered { status, body } => parse_verify(*status, body),
            CalloutReply::NotSent => Verify::Unusable {
                why: "it cannot be reached".into(),
            },
            CalloutReply::Lost => Verify::Unusable {
                why: "it did not answer".into(),
            },
        };
        let request = |(gate, effect)| (gate, VerifiedEffect::Request(effect));
        match verdict {
            Verify::Valid { payer } => self.valid(payer, env),
            // It was found good here. A facilitator that cannot reach its node says so, and so does one whose token has another EIP-712
            // domain than the configuration says: neither is the payer's fault.
            Verify::Refused {
                refusal: Refusal::InvalidSignature,
                reason,
            } if self.sale.proven => {
                env.notes.event(Note::Verified("contradicted"));
                env.notes
                    .warnings
                    .push(contradiction(self.sale.facilitator(env), Endpoint::Verify, &reason));
                request(Dispatch::verify_elsewhere(self.sale, self.stage, env))
            }
            Verify::Refused { reason, refusal } => {
                env.notes.event(Note::Verified("refused"));
                env.notes.attribute("payer", self.sale.payer.clone());
                // A payment that was not claimed may be in other hands meanwhile, and refused because it is being settled.
                let answer = match self.sale.hold.is_free(env) {
                    Ok(()) => refuse(env, &self.sale.order, refusal, Some(&reason), ""),
                    Err(refusal) => refuse(env, &self.sale.order, refusal, None, ""),
                };
                // The ledger has heard it before.
                if let Some(share) = self.sale.hold.share() {
                    share.forget();
                }
                self.sale.hold.release(env);
                request((Gate::Answered, RequestEffect::Answer(answer.into())))
            }
            Verify::Unusable { why } => {
                env.notes
                    .warnings
                    .push(format!("facilitator {}: /verify: {why}", self.sale.facilitator(env)));
                request(Dispatch::verify_elsewhere(self.sale, self.stage, env))
            }
        }
    }

    fn valid(self, payer: Option<String>, env: &mut Env<'_>) -> (Gate, VerifiedEffect) {
        let Self { mut sale, stage, .. } = self;
        env.notes.event(Note::Verified("valid"));
        if !sale.proven {
            // Only where the payment itself does not say who pays (Solana) is the facilitator's word taken for it.
            if sale.payer.is_empty() {
                sale.payer = payer.unwrap_or_default();
            }
            let admission = Admission::of(&sale, env);
            sale.hold.admit(admission);
        }
        if let Err(denied) = sale.hold.confirm(env) {
            let answer = deny(env, &sale.order, denied);
            return (Gate::Answered, VerifiedEffect::Request(RequestEffect::Answer(answer.into())));
        }
        let edits = match stage {
            Stage::Held(edits) | Stage::Leaving(edits) => edits,
            Stage::Sent(None) => return (Gate::Forwarding(Box::new(Forwarding::new(sale))), VerifiedEffect::Nothing),
            Stage::Sent(Some(kept)) => {
                let (gate, effect) = kept.with(|response| Forwarding::new(sale).answered(response, env));
                return (gate, VerifiedEffect::Response(effect));
            }
        };
        let (gate, effect) = match sale.route(env).map(|route| &route.flow) {
            Some(Flow::Upfront) => settle_first(sale, edits, env),
            _ => go_on(sale, edits, env),
        };
        (gate, VerifiedEffect::Request(effect))
    }

    /// An answer came before the verdict.
    pub(super) fn overtaken(mut self: Box<Self>, response: &Response<'_>, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if let Stage::Sent(kept) = &mut self.stage {
            if response.is_paid_for() {
                *kept = Some(Kept::of(response));
                return (Gate::Verifying(self), ResponseEffect::Wait);
            }
            // An error costs nothing, whatever the verdict will be.
            return Forwarding::new(self.sale).answered(response, env);
        }
        if response.from_backend {
            // The request was held back: only a plugin that is configured as the reader's lets this happen.
            self.sale.hold.release(env);
            let answer = refuse(env, &self.sale.order, Refusal::GateMisconfigured, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        // A local reply (a timeout, a full buffer): the payment was not used.
        self.gone(env);
        (Gate::Passing, ResponseEffect::Pass)
    }

    pub(super) fn gone(self, env: &mut Env<'_>) {
        env.notes.event(Note::Released);
        env.notes.attribute("outcome", "gone_while_verifying");
        self.sale.hold.release(env);
    }
}

/// What to tell an operator whose facilitator refuses a signature that was found good here.
pub(super) fn contradiction(facilitator: &str, endpoint: Endpoint, reason: &str) -> String {
    format!(
        "facilitator {facilitator}: {}: {reason}, of a signature that was found good here: its node is down, or the token's EIP-712 name or version is not what the configuration says",
        endpoint.path()
    )
}

/// No verdict: the payment is not at fault and may be sent again.
fn unavailable(sale: &Sale, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    env.notes.event(Note::Verified("unavailable"));
    sale.hold.uncount(env);
    sale.hold.release(env);
    let answer = refuse(env, &sale.order, Refusal::FacilitatorUnavailable, None, "");
    (Gate::Answered, RequestEffect::Answer(answer.into()))
}
