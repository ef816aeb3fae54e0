//! A route: which requests it takes, and what it charges them.

use super::matcher::Matcher;
use super::offer::Offer;

/// What a route charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Price {
    /// Nothing.
    Free,
    /// The amount of the offer that the client takes.
    Charged,
}

/// A configured route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique, `[A-Za-z0-9_-]{1,64}`: fit for metric names and logs.
    pub name: Box<str>,
    /// Which requests it takes.
    pub matcher: Matcher,
    /// Whether it charges.
    pub price: Price,
    /// The ways to pay, in order of preference, amounts filled in; empty when free.
    pub offers: Vec<Offer>,
    /// What is sold, for people; at most 500 bytes without control characters; may be empty.
    pub description: Box<str>,
    /// Type of the paid answer; may be empty.
    pub mime_type: Box<str>,
}

impl Route {
    /// Whether the route charges.
    pub fn is_priced(&self) -> bool {
        self.price == Price::Charged
    }
}
