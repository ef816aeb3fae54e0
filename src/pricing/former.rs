//! The prices of the configuration before, which payers may have been quoted a moment ago.

use super::offer::{Atomic, Offer};
use super::route::Route;
use super::routes::Routes;
use super::select::{RequestFacts, Selection};

/// The routes of the configuration before, for as long as their prices are still good.
///
/// Nothing but amounts can differ from what is configured now: an offer whose scheme, token, way of transfer or recipient has
/// changed, or whose route has gone or been given another name, is not taken any more.
#[derive(Debug, Clone)]
pub struct Former {
    routes: Routes,
    until_ms: u64,
}

impl Former {
    /// The prices of `before`, for as long as `now` is in use and at most until a time in milliseconds.
    pub fn new(before: &Routes, now: &Routes, until_ms: u64) -> Self {
        let mut routes = before.clone();
        for route in routes.iter_mut() {
            let current = now.iter().find(|current| current.name == route.name);
            for offer in &mut route.offers {
                match current.and_then(|current| same(current, offer)) {
                    Some(current) => {
                        let amount = offer.amount;
                        *offer = Offer { amount, ..current.clone() };
                    }
                    // Nobody can settle it, so that it is never taken.
                    None => offer.facilitators.clear(),
                }
            }
        }
        Self { routes, until_ms }
    }

    /// The routes, if a payment may still be made at their prices.
    pub fn at(&self, now_ms: u64) -> Option<&Routes> {
        (now_ms < self.until_ms).then_some(&self.routes)
    }

    /// The routes, for what has been sold at their prices.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }
}

/// The offer of a route that differs from another one in its amount at most.
fn same<'r>(route: &'r Route, offer: &Offer) -> Option<&'r Offer> {
    route.offers.iter().find(|current| {
        current.scheme == offer.scheme
            && current.asset == offer.asset
            && current.transfer == offer.transfer
            && current.pay_to == offer.pay_to
            && current.max_timeout_seconds == offer.max_timeout_seconds
            && current.upfront == offer.upfront
    })
}

impl Routes {
    /// Whether a request costs this amount in one of the offers that it has now.
    pub fn asks(&self, request: &RequestFacts<'_>, amount: Atomic) -> bool {
        let Selection::Priced(index) = self.select(request) else {
            return false;
        };
        let (Some(route), Ok(quote)) = (self.by_index(index), self.quote(index, request)) else {
            return false;
        };
        quote.offers(route).iter().any(|offer| offer.amount == amount)
    }
}
