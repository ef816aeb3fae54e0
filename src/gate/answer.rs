//! Answers in the backend's place: refusals, with a fresh challenge where one is right.

use super::env::Env;
use super::keys::{self, Key};
use super::request::Request;
use crate::config::{BodyStyle, Config};
use crate::pricing::{Route, resource_path};
use crate::x402::{Answer, Challenge, Hints, Payable, Refusal, Resource, resource_url};

/// Seconds after which a request that could not be decided may be sent again.
const RETRY_AFTER: u32 = 5;

/// What an answer to this client depends on: what it asked for, and what kind of client it is.
pub(super) struct Audience {
    /// The resource's URL, as this filter derives it: never from what a payment says.
    pub(super) resource: String,
    pub(super) hints: Hints,
}

impl Audience {
    pub(super) fn of(request: &Request<'_>, config: &Config) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = resource_path(request.place.path);
        let value = |name: &[u8]| request.headers.iter().find(|(sent, _)| *sent == name).map(|(_, value)| text(value));
        let (accept, user_agent) = (value(b"accept").unwrap_or_default(), value(b"user-agent").unwrap_or_default());
        Self {
            resource: resource_url(
                config.public_url.as_deref(),
                &text(request.scheme),
                &text(request.place.authority),
                &path,
            ),
            hints: Hints {
                origin: value(b"origin").is_some(),
                browser: Hints::is_browser(&accept, &user_agent),
                api_key: keys::key(&config.access, request.headers) == Key::Real,
            },
        }
    }

    /// The resource as requirements name it.
    pub(super) fn listing<'a>(&'a self, route: &'a Route) -> Resource<'a> {
        Resource {
            url: &self.resource,
            description: &route.description,
            mime_type: &route.mime_type,
        }
    }
}

/// Refuses a request of a priced route. `reason` is a facilitator's, `detail` what was found wrong; both take the place of the
/// refusal's own words.
pub(super) fn refuse(env: &mut Env<'_>, audience: &Audience, route: usize, refusal: Refusal, reason: Option<&str>, detail: &str) -> Answer {
    let Some(sold) = env.config.routes.by_index(route) else {
        return refuse_plainly(env, refusal, detail);
    };
    let ways: Vec<_> = sold.offers.iter().map(|offer| (offer, env.supported.ready(offer))).collect();
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
    env.refused(refusal, Some(route));
    let style = env.config.challenge;
    Challenge {
        refusal,
        reason,
        detail: Some(detail).filter(|detail| !detail.is_empty()),
        resource: audience.listing(sold),
        offers: &offers,
        extensions: None,
        v1: style.v1,
        plain_headers: style.plain_headers,
        style: match style.body {
            BodyStyle::X402 => crate::x402::BodyStyle::X402,
            BodyStyle::Openai => crate::x402::BodyStyle::OpenAi,
        },
        hints: audience.hints,
        retry_after: Some(RETRY_AFTER),
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
