//! A metered answer on its way: read as it passes, settled at its end.

use super::Gate;
use super::answer::refuse;
use super::edits::Edits;
use super::effects::{BodyEffect, Next, ResponseEffect};
use super::env::{Env, Note};
use super::overrides::{self, Told};
use super::response::Response;
use super::sale::Sale;
use super::settlement::{Due, Settlement};
use crate::metering::{AnswerKind, Meter};
use crate::pricing::{Atomic, Basis, Delivery, End};
use crate::x402::Refusal;

/// An answer that was verified and claimed before it left, and has yet to be settled.
pub struct Streaming {
    sale: Sale,
    meter: Meter,
    kind: AnswerKind,
    began_ms: u64,
    /// What the backend said is to be charged.
    told: Option<Atomic>,
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
        let told = told(&sale, response.headers, env);
        let kind = AnswerKind::of(
            every(response.headers, b"content-type").as_deref(),
            every(response.headers, b"content-encoding").as_deref(),
        );
        let streaming = Self {
            meter: Meter::new(kind, withholds_usage_of(sale.basis())),
            sale,
            kind,
            began_ms: env.now_ms,
            told,
        };
        if response.ended {
            // Without a body there is no end to wait for, and the headers can carry the receipt.
            let Charge { sale, amount } = streaming.charge(End::Complete, env);
            return Settlement::begin(sale, amount, edits, env);
        }
        // Neither a trailer nor what is added or withheld fits an announced length.
        edits.remove.push("content-length".into());
        edits.add.push(("trailer", streaming.sale.receipt_name().into()));
        env.notes.attribute("outcome", "streaming");
        (Gate::Streaming(Box::new(streaming)), ResponseEffect::Edit(edits))
    }

    /// The next bytes of the answer; `last`: none will follow.
    pub(super) fn chunk(mut self: Box<Self>, bytes: &[u8], last: bool, env: &mut Env<'_>) -> (Gate, BodyEffect) {
        let passed = self.meter.chunk(bytes);
        let unchanged = passed.len() == bytes.len() && matches!(passed, std::borrow::Cow::Borrowed(_));
        let mut bytes = (!unchanged).then(|| passed.into_owned());
        if !last {
            let next = Next::Go;
            return (Gate::Streaming(self), BodyEffect { bytes, next });
        }
        let held = self.meter.end();
        if !held.is_empty() {
            bytes = Some([&*bytes.unwrap_or_default(), &held].concat());
        }
        let (gate, next) = match self.settle(End::Complete, env) {
            Due::Nothing(end) => (Gate::Passing, Next::End(end)),
            Due::Settlement(settlement) => (Gate::Settling, Next::Settle(settlement)),
        };
        (gate, BodyEffect { bytes, next })
    }

    /// The answer has ended, in whatever way: what is to be settled for it.
    pub(super) fn settle(mut self: Box<Self>, end: End, env: &mut Env<'_>) -> Due {
        // What was held back was not delivered, but counts as far as it says what was used.
        self.meter.end();
        let place = self.meter.place();
        let outcome = match end {
            // Until its settlement is known, or there is none.
            End::Complete => "settling",
            End::ClientGone => "client_gone",
            End::BackendFailed => "backend_failed",
            End::Interrupted => "interrupted",
        };
        env.notes.attribute("outcome", outcome);
        let Charge { sale, amount } = self.charge(end, env);
        if amount.0 == 0 && end == End::Complete {
            env.notes.attribute("outcome", "nothing_due");
        }
        Settlement::after(sale, amount, place, env)
    }

    fn charge(self, end: End, env: &mut Env<'_>) -> Charge {
        let metered = self.meter.metered();
        let delivery = Delivery {
            metered,
            encoded: self.kind == AnswerKind::Encoded,
            end,
            duration_ms: env.now_ms.saturating_sub(self.began_ms),
            told: self.told,
        };
        let charged = self.sale.charge(&delivery, env);
        if charged.capped {
            env.notes.event(Note::UsageAboveQuote);
        }
        if let Some(usage) = metered.usage {
            env.notes.attribute("input_tokens", usage.input.to_string());
            env.notes.attribute("output_tokens", usage.output.to_string());
        }
        Charge {
            sale: self.sale,
            amount: charged.amount,
        }
    }
}

/// What is to be settled, and by whom.
struct Charge {
    sale: Sale,
    amount: Atomic,
}

/// What the backend says is to be charged, within the quote.
pub(super) fn told(sale: &Sale, headers: &[(&[u8], &[u8])], env: &mut Env<'_>) -> Option<Atomic> {
    let offer = sale.offer(env)?;
    match overrides::told(headers, &offer) {
        Told::Nothing => None,
        Told::Amount(amount) if amount > offer.amount => {
            env.notes.event(Note::UsageAboveQuote);
            Some(offer.amount)
        }
        Told::Amount(amount) => Some(amount),
        Told::Ignored => {
            env.notes.event(Note::OverrideIgnored);
            None
        }
    }
}

/// Whether the client gets an event less than the backend sends, because the reader has asked for it in the client's name.
pub(super) fn withholds_usage_of(basis: &Basis) -> bool {
    match basis {
        Basis::Tokens(tokens) => tokens.stream && tokens.api.has_stream_options() && tokens.include_usage != Some(true),
        Basis::Fixed | Basis::Minutes => false,
    }
}

/// All values of a header, as one.
pub(super) fn every(headers: &[(&[u8], &[u8])], name: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.iter().filter(|(sent, _)| *sent == name).map(|(_, value)| *value).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}
