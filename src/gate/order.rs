//! An order: which route a request is for, what it costs there, and who asks.

use std::borrow::Cow;

use super::env::Env;
use super::keys::{self, Key};
use super::request::Request;
use crate::pricing::{Basis, Offer, Quote, Route, resource_path};
use crate::x402::{Hints, Resource, resource_url};

/// What was asked for, at what price, and what kind of client an answer must suit.
pub(super) struct Order {
    /// Index of the route.
    route: usize,
    /// What this request costs.
    pub(super) quote: Quote,
    /// The resource's URL, as this filter derives it: never from what a payment says.
    pub(super) resource: String,
    pub(super) hints: Hints,
}

impl Order {
    pub(super) fn new(request: &Request<'_>, route: usize, quote: Quote, env: &Env<'_>) -> Self {
        let config = env.config;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = resource_path(request.place.path);
        let value = |name: &[u8]| request.headers.iter().find(|(sent, _)| *sent == name).map(|(_, value)| text(value));
        let (accept, user_agent) = (value(b"accept").unwrap_or_default(), value(b"user-agent").unwrap_or_default());
        Self {
            route,
            quote,
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

    /// The route, and its index. `None` cannot happen while the configuration that the stream began with is in use.
    pub(super) fn route<'a>(&self, env: &Env<'a>) -> Option<(usize, &'a Route)> {
        env.config.routes.by_index(self.route).map(|route| (self.route, route))
    }

    /// What the quote was computed from.
    pub(super) fn basis(&self) -> &Basis {
        self.quote.basis()
    }

    /// The route's offers with their amounts for this request, in order of preference.
    pub(super) fn offers<'a>(&self, env: &Env<'a>) -> Cow<'a, [Offer]> {
        match self.route(env) {
            Some((_, route)) => self.quote.offers(route),
            None => Cow::Borrowed(&[]),
        }
    }

    /// One of them.
    pub(super) fn offer<'a>(&self, index: usize, env: &Env<'a>) -> Option<Cow<'a, Offer>> {
        let (_, route) = self.route(env)?;
        self.quote.offer(route, index)
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
