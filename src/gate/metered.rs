//! An answer that is read as it passes, whoever pays for it: what it used, and how it ended.

use std::borrow::Cow;

use super::env::{Env, Note};
use super::overrides::{self, Told};
use super::response::Response;
use crate::metering::{AnswerKind, Meter, Place};
use crate::pricing::{Atomic, Basis, Delivery, End, Offer};

/// See the module.
pub(super) struct Metered {
    meter: Meter,
    kind: AnswerKind,
    began_ms: u64,
    /// What the backend said is to be charged.
    told: Option<Atomic>,
}

impl Metered {
    /// The backend's headers are here.
    pub(super) fn begin(basis: &Basis, told: Option<Atomic>, response: &Response<'_>, env: &Env<'_>) -> Self {
        let kind = AnswerKind::of(
            every(response.headers, b"content-type").as_deref(),
            every(response.headers, b"content-encoding").as_deref(),
        );
        Self {
            meter: Meter::new(kind, withholds_usage(basis)),
            kind,
            began_ms: env.now_ms,
            told,
        }
    }

    /// The next bytes of the answer; `last`: none will follow. What passes in their place; `None`: they do.
    pub(super) fn pass(&mut self, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
        let passed = self.meter.chunk(bytes);
        let unchanged = passed.len() == bytes.len() && matches!(passed, Cow::Borrowed(_));
        let changed = (!unchanged).then(|| passed.into_owned());
        if !last {
            return changed;
        }
        let held = self.meter.end();
        if held.is_empty() {
            return changed;
        }
        Some([changed.as_deref().unwrap_or(bytes), &held].concat())
    }

    /// Where in a stream of events it has ended.
    pub(super) fn place(&self) -> Option<Place> {
        self.meter.place()
    }

    /// What was delivered so far, as if the client had left now.
    pub(super) fn so_far(&self, env: &Env<'_>) -> Delivery {
        self.what(End::ClientGone, env)
    }

    fn what(&self, end: End, env: &Env<'_>) -> Delivery {
        Delivery {
            metered: self.meter.metered(),
            encoded: self.kind == AnswerKind::Encoded,
            end,
            duration_ms: env.now_ms.saturating_sub(self.began_ms),
            told: self.told,
        }
    }

    /// The answer has ended, in whatever way: what was delivered of it.
    pub(super) fn delivery(&mut self, end: End, env: &mut Env<'_>) -> Delivery {
        // What was held back was not delivered, but counts as far as it says what was used.
        self.meter.end();
        let delivery = self.what(end, env);
        if let Some(usage) = delivery.metered.usage {
            env.notes.attribute("input_tokens", usage.input.to_string());
            env.notes.attribute("output_tokens", usage.output.to_string());
        }
        delivery
    }
}

/// What the backend says is to be charged, within the offer's amount.
pub(super) fn told(offer: &Offer, headers: &[(&[u8], &[u8])], env: &mut Env<'_>) -> Option<Atomic> {
    match overrides::told(headers, offer) {
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
pub(super) fn withholds_usage(basis: &Basis) -> bool {
    match basis {
        Basis::Tokens(tokens) => tokens.stream && tokens.api.has_stream_options() && tokens.include_usage != Some(true),
        Basis::Fixed | Basis::Minutes => false,
    }
}

/// All values of a header, as one.
fn every(headers: &[(&[u8], &[u8])], name: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.iter().filter(|(sent, _)| *sent == name).map(|(_, value)| *value).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}
