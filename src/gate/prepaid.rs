//! A request that was paid for before it went to the backend.

use super::Gate;
use super::answer::refuse;
use super::delivery::Delivery;
use super::edits::Edits;
use super::effects::ResponseEffect;
use super::env::Env;
use super::response::Response;
use crate::x402::Refusal;

/// The money has moved; whatever the backend does, the client gets its receipt.
pub struct Prepaid {
    delivery: Delivery,
}

impl Prepaid {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self { delivery }
    }

    /// How long an answer that is priced by the minute may take.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        self.delivery.sale().longest_ms(env)
    }

    pub(super) fn answered(self, response: &Response<'_>, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        let edits = Edits::strip_answer(response.headers).private(response.headers, self.delivery.sale());
        let edits = self.delivery.edit(edits, env);
        if response.is_paid_for() {
            let gate = Gate::Delivering(Box::new(self.delivery));
            return (gate, ResponseEffect::Edit(edits));
        }
        if response.is_failure() {
            self.delivery.failed(false, env);
            return (Gate::Passing, ResponseEffect::Edit(edits));
        }
        // Another filter's answer: it is not what was sold, and whoever may come again could have any number of them.
        let detail = "the answer is not the backend's, which is what was paid for: send the same payment again";
        let mut answer = refuse(env, &self.delivery.sale().order, Refusal::AnswerNotSold, None, detail);
        answer.headers.extend(self.delivery.receipt(env));
        self.delivery.failed(false, env);
        (Gate::Answered, ResponseEffect::Answer(answer))
    }

    /// The stream ended before any answer came.
    pub(super) fn gone(self, env: &mut Env<'_>) {
        self.delivery.failed(false, env);
    }
}
