//! A metered answer on its way: read as it passes, settled at its end.

use super::Gate;
use super::answer::refuse;
use super::edits::Edits;
use super::effects::{BodyEffect, Next, ResponseEffect, Unread};
use super::env::{Env, Note};
use super::metered::{self, Metered};
use super::response::Response;
use super::sale::Sale;
use super::settlement::{Due, Settlement};
use super::share::Report;
use crate::metering::Place;
use crate::pricing::{Atomic, End};
use crate::x402::Refusal;

/// An answer that was verified and claimed before it left, and has yet to be settled.
pub struct Streaming {
    sale: Sale,
    metered: Metered,
}

impl Streaming {
    /// The backend's headers are here. `edits` are what every paid answer's headers undergo.
    pub(super) fn begin(sale: Sale, response: &Response<'_>, mut edits: Edits, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if sale.longest_ms(env) == Some(0) {
            // The backend took so long that what is delivered from now on could not be settled any more.
            env.notes.event(Note::Released);
            sale.hold.release(env);
            let answer = refuse(env, &sale.order, Refusal::ValidBefore, None, "");
            return (Gate::Answered, ResponseEffect::Answer(answer));
        }
        let told = sale.offer(env).and_then(|offer| metered::told(&offer, response.headers, env));
        let streaming = Self {
            metered: Metered::begin(sale.basis(), told, response, env),
            sale,
        };
        if response.ended {
            // Without a body there is no end to wait for, and the headers can carry the receipt.
            let Charge { sale, amount, .. } = streaming.charge(End::Complete, env);
            return Settlement::begin(sale, amount, edits, env);
        }
        // Neither a trailer nor what is added or withheld fits an announced length.
        edits.remove.push("content-length".into());
        edits.add.push(("trailer", streaming.sale.receipt_name().into()));
        env.notes.attribute("outcome", "streaming");
        (Gate::Streaming(Box::new(streaming)), ResponseEffect::Edit(edits))
    }

    /// More of the answer, unless it is time to tell the ledger what is due.
    pub(super) fn pass(&mut self, bytes: &[u8], now_ms: impl FnOnce() -> u64) -> Result<Option<Vec<u8>>, Unread> {
        match self.sale.hold.share() {
            Some(share) if share.is_due(now_ms()) => Err(Unread),
            _ => Ok(self.metered.pass(bytes, false)),
        }
    }

    /// The next bytes of the answer; `last`: none will follow.
    pub(super) fn chunk(mut self: Box<Self>, bytes: &[u8], last: bool, env: &mut Env<'_>) -> (Gate, BodyEffect) {
        let bytes = self.metered.pass(bytes, last);
        if !last {
            self.report(env);
            let next = Next::Go;
            return (Gate::Streaming(self), BodyEffect { bytes, next });
        }
        let (gate, next) = match self.settle(End::Complete, env) {
            Due::Nothing(end) => (Gate::Passing, Next::End(end)),
            Due::Settlement(settlement) => (Gate::Settling, Next::Settle(settlement)),
        };
        (gate, BodyEffect { bytes, next })
    }

    /// The answer has ended, in whatever way: what is to be settled for it.
    pub(super) fn settle(self: Box<Self>, end: End, env: &mut Env<'_>) -> Due {
        let outcome = match end {
            // Until its settlement is known, or there is none.
            End::Complete => "settling",
            End::ClientGone => "client_gone",
            End::BackendFailed => "backend_failed",
            End::Interrupted => "interrupted",
        };
        env.notes.attribute("outcome", outcome);
        let Charge { sale, amount, place } = self.charge(end, env);
        if amount.0 == 0 && end == End::Complete {
            env.notes.attribute("outcome", "nothing_due");
        }
        Settlement::after(sale, amount, place, env)
    }

    /// Tells the ledger now and then what is due so far: it is settled from there if this Envoy does not live to do it.
    fn report(&mut self, env: &mut Env<'_>) {
        if !self.sale.hold.share().is_some_and(|share| share.reports(env)) {
            return;
        }
        let charged = self.sale.charge(&self.metered.so_far(env), env);
        self.sale.hold.report(Report::Used(charged.amount), env);
    }

    fn charge(mut self, end: End, env: &mut Env<'_>) -> Charge {
        let delivery = self.metered.delivery(end, env);
        let charged = self.sale.charge(&delivery, env);
        if charged.capped {
            env.notes.event(Note::UsageAboveQuote);
        }
        Charge {
            sale: self.sale,
            amount: charged.amount,
            place: self.metered.place(),
        }
    }
}

/// What is to be settled, and by whom.
struct Charge {
    sale: Sale,
    amount: Atomic,
    /// Where in a stream of events the answer has ended.
    place: Option<Place>,
}
