//! The answer's headers: is it the backend's, and is it paid for?

use super::Gate;
use super::answer::refuse;
use super::edits::Edits;
use super::effects::ResponseEffect;
use super::env::{Env, Note};
use super::metered;
use super::order::Order;
use super::sale::Sale;
use super::settlement::Settlement;
use super::streaming::Streaming;
use crate::x402::Refusal;

/// The headers of an answer.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    /// HTTP status.
    pub status: u16,
    /// Whether the backend gave this answer, rather than Envoy or another filter (`code_details` is `via_upstream`).
    pub from_backend: bool,
    /// Whether it has no body.
    pub ended: bool,
    /// Every header, names in lower case.
    pub headers: &'a [(&'a [u8], &'a [u8])],
}

impl Response<'_> {
    /// 2xx and 3xx are paid for. Below that is no answer yet, above it none that is worth money.
    pub(super) fn is_paid_for(&self) -> bool {
        self.from_backend && (200..400).contains(&self.status)
    }

    /// Errors pass on as they are, whoever made them.
    pub(super) fn is_failure(&self) -> bool {
        self.status >= 400
    }
}

/// The headers of an answer that waits.
pub(super) struct Kept {
    status: u16,
    from_backend: bool,
    ended: bool,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Kept {
    pub(super) fn of(response: &Response<'_>) -> Self {
        Self {
            status: response.status,
            from_backend: response.from_backend,
            ended: response.ended,
            headers: response
                .headers
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
        }
    }

    pub(super) fn with<T>(&self, event: impl FnOnce(&Response<'_>) -> T) -> T {
        let headers: Vec<(&[u8], &[u8])> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        event(&Response {
            status: self.status,
            from_backend: self.from_backend,
            ended: self.ended,
            headers: &headers,
        })
    }
}

/// A request whose API key the backend checks.
pub struct Keyed {
    order: Order,
}

impl Keyed {
    pub(super) fn new(order: Order) -> Self {
        Self { order }
    }

    /// The backend's own 402 (out of credits) becomes a challenge.
    pub(super) fn answered(self, response: &Response<'_>, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if response.from_backend && response.status == 402 {
            let answer = refuse(env, &self.order, Refusal::PaymentRequired, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        (Gate::Passing, ResponseEffect::Edit(Edits::strip_answer(response.headers)))
    }
}

/// A verified request that is with the backend.
pub struct Forwarding {
    sale: Sale,
}

impl Forwarding {
    pub(super) fn new(sale: Sale) -> Self {
        Self { sale }
    }

    pub(super) fn answered(self, response: &Response<'_>, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        let stripped = || Edits::strip_answer(response.headers);
        if response.is_paid_for() {
            let edits = stripped().private(response.headers, &self.sale);
            if self.sale.terms(env).is_some() {
                return Streaming::begin(self.sale, response, edits, env);
            }
            let offer = self.sale.offer(env);
            let told = offer.as_deref().and_then(|offer| metered::told(offer, response.headers, env));
            if let Some(amount) = told.or_else(|| Some(offer?.amount)) {
                return Settlement::begin(self.sale, amount, edits, env);
            }
        }
        env.notes.event(Note::Released);
        if !response.is_failure() {
            // Another filter's answer, or a route's own: nobody may have it for nothing, and it is not ours to sell.
            self.sale.hold.release(env);
            let answer = refuse(env, &self.sale.order, Refusal::AnswerNotSold, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        env.notes.attribute("outcome", "not_charged");
        self.sale.hold.release(env);
        (Gate::Passing, ResponseEffect::Edit(stripped()))
    }

    /// How long an answer that is priced by the minute may take.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        self.sale.longest_ms(env)
    }

    /// The stream ended before the backend's headers came: a reset, or the client left.
    pub(super) fn gone(self, env: &mut Env<'_>) {
        env.notes.event(Note::Released);
        env.notes.attribute("outcome", "gone_before_answer");
        self.sale.hold.release(env);
    }
}
