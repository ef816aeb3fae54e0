//! A request that was paid for before it went to the backend.

use super::edits::Edits;
use super::effects::ResponseEffect;
use super::env::Env;
use super::response::Response;
use super::sale::Sale;

/// The money has moved; whatever the backend does, the client gets its receipt.
pub struct Prepaid {
    sale: Sale,
    receipt: Option<(&'static str, String)>,
}

impl Prepaid {
    pub(super) fn new(sale: Sale, receipt: Option<(&'static str, String)>) -> Self {
        Self { sale, receipt }
    }

    /// How long an answer that is priced by the minute may take.
    pub(super) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        self.sale.longest_ms(env)
    }

    pub(super) fn answered(self, response: &Response<'_>, env: &mut Env<'_>) -> ResponseEffect {
        let mut edits = Edits::strip_answer(response.headers).private(response.headers, &self.sale);
        edits.set.extend(self.receipt);
        if !response.is_paid_for() {
            env.notes.attribute("outcome", "paid_not_delivered");
        }
        ResponseEffect::Edit(edits)
    }

    /// The stream ended before any answer came.
    pub(super) fn gone(self, env: &mut Env<'_>) {
        env.notes.attribute("outcome", "paid_not_delivered");
    }
}
