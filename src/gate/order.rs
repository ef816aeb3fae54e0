//! An order: which route a request is for, what it costs there, and who asks.

use std::borrow::Cow;

use super::env::Env;
use super::keys::{self, Key};
use super::request::Request;
use crate::pricing::{Offer, Quote, Route, Routes, resource_path};
use crate::x402::{Hints, Resource, resource_url};

/// A route, by its index, and what a request costs there.
pub(super) struct Deal {
    pub(super) route: usize,
    pub(super) quote: Quote,
}

impl Deal {
    /// The route, and its index. `None` cannot happen with the routes that the deal was made for.
    pub(super) fn route<'r>(&self, routes: &'r Routes) -> Option<(usize, &'r Route)> {
        routes.by_index(self.route).map(|route| (self.route, route))
    }

    /// The route's offers with their amounts for this request, in order of preference.
    pub(super) fn offers<'r>(&self, routes: &'r Routes) -> Cow<'r, [Offer]> {
        match self.route(routes) {
            Some((_, route)) => self.quote.offers(route),
            None => Cow::Borrowed(&[]),
        }
    }

    /// One of them.
    pub(super) fn offer<'r>(&self, index: usize, routes: &'r Routes) -> Option<Cow<'r, Offer>> {
        let (_, route) = self.route(routes)?;
        self.quote.offer(route, index)
    }
}

/// What a request tells of its client.
pub(super) fn hints(request: &Request<'_>, env: &Env<'_>) -> Hints {
    let value = |name: &[u8]| request.headers.iter().find(|(sent, _)| *sent == name).map(|(_, value)| *value);
    Hints {
        origin: value(b"origin").is_some(),
        browser: Hints::is_browser(value(b"accept").unwrap_or_default(), value(b"user-agent").unwrap_or_default()),
        api_key: keys::key(&env.config.access, request.headers) == Key::Real,
    }
}

/// What was asked for, at what price, and what kind of client an answer must suit.
pub(super) struct Order {
    /// What it costs now.
    pub(super) deal: Deal,
    /// The resource's URL, as this filter derives it: never from what a payment says.
    pub(super) resource: String,
    pub(super) hints: Hints,
}

impl Order {
    pub(super) fn new(request: &Request<'_>, deal: Deal, env: &Env<'_>) -> Self {
        Self::of(request, deal, hints(request, env), env)
    }

    /// The same, for a client of whom that much is known.
    pub(super) fn of(request: &Request<'_>, deal: Deal, hints: Hints, env: &Env<'_>) -> Self {
        let resource = resource_url(
            env.config.public_url.as_deref(),
            &String::from_utf8_lossy(request.scheme),
            &String::from_utf8_lossy(request.place.authority),
            &resource_path(request.place.path),
        );
        Self { deal, resource, hints }
    }

    /// The route, and its index. `None` cannot happen while the configuration that the stream began with is in use.
    pub(super) fn route<'a>(&self, env: &Env<'a>) -> Option<(usize, &'a Route)> {
        self.deal.route(&env.config.routes)
    }

    /// The route's offers with their amounts for this request, in order of preference.
    pub(super) fn offers<'a>(&self, env: &Env<'a>) -> Cow<'a, [Offer]> {
        self.deal.offers(&env.config.routes)
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
