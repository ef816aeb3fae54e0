//! Answers in the backend's place: refusals, with a fresh challenge where one is right.

use super::admission::Denied;
use super::env::Env;
use super::identifier;
use super::order::Order;
use crate::config::{BodyStyle, PaymentIdentifier};
use crate::x402::{Answer, Challenge, Hints, Payable, Refusal, Resource};

/// Seconds after which a request that could not be decided may be sent again.
const RETRY_AFTER: u32 = 5;

/// Refuses a request of a priced route. `reason` is a facilitator's, `detail` what was found wrong; both take the place of the
/// refusal's own words.
pub(super) fn refuse(env: &mut Env<'_>, order: &Order, refusal: Refusal, reason: Option<&str>, detail: &str) -> Answer {
    refuse_for(RETRY_AFTER, env, order, refusal, reason, detail)
}

/// Refuses a request that was not let in.
pub(super) fn deny(env: &mut Env<'_>, order: &Order, denied: Denied) -> Answer {
    refuse_for(denied.seconds.unwrap_or(RETRY_AFTER), env, order, denied.refusal, None, "")
}

/// The same, for a number of seconds.
pub(super) fn refuse_for(seconds: u32, env: &mut Env<'_>, order: &Order, refusal: Refusal, reason: Option<&str>, detail: &str) -> Answer {
    let Some((index, route)) = order.route(env) else {
        return refuse_plainly(env, refusal, detail);
    };
    let quoted = order.offers(env);
    let ways: Vec<_> = quoted.iter().map(|offer| (offer, env.supported.ready(offer))).collect();
    let offers: Vec<Payable<'_>> = ways
        .iter()
        .filter_map(|(offer, ready)| {
            Some(Payable {
                offer,
                facts: ready.as_ref()?.facts(),
            })
        })
        .collect();
    // A 402 without an offer would be a dead end, and offers that wait for a facilitator's facts come with the next tick.
    let refusal = match refusal {
        Refusal::PaymentRequired if offers.is_empty() => Refusal::OffersNotReady,
        other => other,
    };
    env.refused(refusal, Some(index));
    let style = env.config.challenge;
    let extensions = identifier::advertised(env.config.payment_identifier);
    // Only v2 has words for it.
    let v2_only = env.config.payment_identifier == PaymentIdentifier::Required;
    Challenge {
        refusal,
        reason,
        detail: Some(detail).filter(|detail| !detail.is_empty()),
        resource: order.listing(route),
        offers: &offers,
        extensions: extensions.as_ref(),
        v1: style.v1 && !v2_only,
        plain_headers: style.plain_headers && !v2_only,
        style: match style.body {
            BodyStyle::X402 => crate::x402::BodyStyle::X402,
            BodyStyle::Openai => crate::x402::BodyStyle::OpenAi,
        },
        hints: order.hints,
        retry_after: Some(seconds),
    }
    .answer()
}

/// Refuses a request before its price is known: no challenge.
pub(super) fn refuse_plainly(env: &mut Env<'_>, refusal: Refusal, detail: &str) -> Answer {
    env.refused(refusal, None);
    Challenge {
        refusal,
        reason: None,
        detail: Some(detail).filter(|detail| !detail.is_empty()),
        resource: Resource {
            url: "",
            description: "",
            mime_type: "",
        },
        offers: &[],
        extensions: None,
        v1: false,
        plain_headers: false,
        style: crate::x402::BodyStyle::X402,
        hints: Hints::default(),
        retry_after: Some(RETRY_AFTER),
    }
    .answer()
}
