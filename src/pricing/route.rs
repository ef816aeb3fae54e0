//! A route: which requests it takes, and what it charges them.

use super::dynamic::Dynamic;
use super::flow::{Flow, MeteredTerms, Start};
use super::matcher::Matcher;
use super::minutes::PerMinute;
use super::offer::{Offer, Scheme};
use super::tokens::PerToken;

/// What a route charges. What one request costs is its [`Quote`](super::Quote).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Price {
    /// Nothing.
    Free,
    /// The same for every request: the amount of the offer that the client takes.
    PerRequest,
    /// By tokens, as the request bounds them and as the backend counts them.
    PerToken(Box<PerToken>),
    /// By the minutes that the answer takes.
    PerMinute(Box<PerMinute>),
    /// By conditions on the request.
    Dynamic(Box<Dynamic>),
}

impl Price {
    /// Whether a quote depends on the body.
    pub fn needs_body(&self) -> bool {
        match self {
            Self::Free | Self::PerRequest | Self::PerMinute(_) => false,
            Self::PerToken(_) => true,
            Self::Dynamic(price) => price.uses_body(),
        }
    }
}

/// A configured route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique, `[A-Za-z0-9_-]{1,64}`: fit for metric names and logs.
    pub name: Box<str>,
    /// Which requests it takes.
    pub matcher: Matcher,
    /// What it charges.
    pub price: Price,
    /// When money moves relative to the answer.
    pub flow: Flow,
    /// When the backend may begin.
    pub start: Start,
    /// How many requests one payment buys, at a quote not above what it settled.
    pub requests_per_payment: u32,
    /// The ways to pay, in order of preference; empty when free.
    ///
    /// Their amounts are the price of any request if that is the same for all, and the quote of any request per minute.
    /// Else they are the most that a request costs as far as the configuration bounds it: what a request does cost, and what
    /// is to be shown, signed and settled, is what [`Quote::offers`](super::Quote::offers) gives.
    pub offers: Vec<Offer>,
    /// What is sold, for people; at most 500 bytes without control characters; may be empty.
    pub description: Box<str>,
    /// Type of the paid answer; may be empty.
    pub mime_type: Box<str>,
}

impl Route {
    /// Whether the route charges.
    pub fn is_priced(&self) -> bool {
        self.price != Price::Free
    }

    /// What an answer is metered by if an offer of this scheme pays for it; `None`: the quote is settled before it leaves.
    pub fn metered(&self, scheme: Scheme) -> Option<&MeteredTerms> {
        match &self.flow {
            Flow::Metered(terms) if scheme == Scheme::Upto => Some(terms),
            Flow::Metered(_) | Flow::Authorization | Flow::Upfront => None,
        }
    }
}
