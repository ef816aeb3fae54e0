//! A request that was paid for before it went to the backend.

use super::Gate;
use super::delivery::Delivery;
use super::edits::Edits;
use super::effects::ResponseEffect;
use super::env::Env;
use super::response::Response;

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
        self.delivery.failed(false, env);
        (Gate::Passing, ResponseEffect::Edit(edits))
    }

    /// The stream ended before any answer came.
    pub(super) fn gone(self, env: &mut Env<'_>) {
        self.delivery.failed(false, env);
    }
}
