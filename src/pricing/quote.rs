//! Quotes: what one request costs, in each of its route's offers.
//!
//! The same request is quoted the same, on the challenge and on the paid retry: a quote depends on the route and the request
//! alone. It owns all that it needs, so that it outlives the callback in which it was made.

use std::borrow::Cow;

use super::minutes::PerMinute;
use super::offer::{Atomic, Offer};
use super::route::{Price, Route};
use super::routes::Routes;
use super::select::RequestFacts;
use super::tokens::TokenQuote;
use crate::metering::Usage;
use crate::reader::BodyFacts;

/// What one request costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// An amount for each of the route's offers; `None`: what the offers say.
    amounts: Option<Box<[Atomic]>>,
    pub(super) basis: Basis,
}

/// What a quote was computed from, and so what can be metered against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The quote is the price, whatever the answer.
    Fixed,
    /// The quote is a maximum; tokens decide.
    Tokens(TokenQuote),
    /// The quote is a maximum; time decides.
    Minutes,
}

/// Why a request cannot be quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteRefusal {
    /// The price depends on the body and no reader looked at it.
    NeedsBody,
    /// The reader looked at it, but for another configuration.
    FactsMissing,
    /// The price depends on the body and there is none.
    NoBody,
    /// The price depends on the body and it cannot be read.
    Unreadable,
    /// The model has no price.
    UnknownModel,
    /// The body refers to input elsewhere, and `max_input` does not bound it.
    ExternalInput,
    /// The cost is more than 128 bits can hold.
    TooLarge,
}

impl QuoteRefusal {
    /// What is wrong, for the caller.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NeedsBody | Self::FactsMissing => "",
            Self::NoBody => "a JSON body is asked for: the price depends on it",
            Self::Unreadable => "the body cannot be read",
            Self::UnknownModel => "the body's model is not one that is sold here",
            Self::ExternalInput => {
                "the body refers to input that is not in it (an image, a file, audio, a hosted tool or an earlier response), which is not sold here"
            }
            Self::TooLarge => "the body asks for more than can be quoted",
        }
    }
}

impl Quote {
    /// The quote of a price that the request does not change.
    pub fn fixed() -> Self {
        Self {
            amounts: None,
            basis: Basis::Fixed,
        }
    }

    /// What it was computed from.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The route's offers with their amounts for this request, in the route's order. Allocates only where the request matters.
    pub fn offers<'r>(&self, route: &'r Route) -> Cow<'r, [Offer]> {
        match &self.amounts {
            None => Cow::Borrowed(&route.offers),
            Some(amounts) => route
                .offers
                .iter()
                .zip(amounts)
                .map(|(offer, amount)| priced(offer, *amount))
                .collect(),
        }
    }

    /// One of them.
    pub fn offer<'r>(&self, route: &'r Route, index: usize) -> Option<Cow<'r, Offer>> {
        let offer = route.offers.get(index)?;
        match &self.amounts {
            None => Some(Cow::Borrowed(offer)),
            Some(amounts) => Some(Cow::Owned(priced(offer, *amounts.get(index)?))),
        }
    }

    /// What an offer amounts to for this request.
    pub fn amount(&self, route: &Route, index: usize) -> Option<Atomic> {
        match &self.amounts {
            None => route.offers.get(index).map(|offer| offer.amount),
            Some(amounts) => amounts.get(index).copied(),
        }
    }

    /// What is to be settled for the tokens that were used, in the offer at an index: rounded up once, never above the quote.
    ///
    /// The whole quote where tokens do not decide. `None` if the route has no such offer.
    pub fn settle_tokens(&self, route: &Route, index: usize, usage: &Usage) -> Option<Atomic> {
        let quoted = self.amount(route, index)?;
        match (&route.price, &self.basis) {
            (Price::PerToken(price), Basis::Tokens(tokens)) => {
                Some(price.cost(tokens, index, usage).map_or(quoted, |cost| cost.min(quoted)))
            }
            _ => Some(quoted),
        }
    }

    /// Whether that usage costs more than was quoted, so that settling it is capped.
    pub fn exceeded_by(&self, route: &Route, index: usize, usage: &Usage) -> bool {
        let Some(quoted) = self.amount(route, index) else { return false };
        match (&route.price, &self.basis) {
            (Price::PerToken(price), Basis::Tokens(tokens)) => price.cost(tokens, index, usage).is_none_or(|cost| cost > quoted),
            _ => false,
        }
    }

    /// What is to be settled for an answer that took this long, in the offer at an index: by begun minutes, never above the quote.
    ///
    /// The whole quote where time does not decide. `None` if the route has no such offer.
    pub fn settle_minutes(&self, route: &Route, index: usize, duration_ms: u64) -> Option<Atomic> {
        let quoted = self.amount(route, index)?;
        let cost = |price: &PerMinute| price.cost(index, price.minutes(duration_ms));
        match (&route.price, &self.basis) {
            (Price::PerMinute(price), Basis::Minutes) => Some(cost(price).map_or(quoted, |cost| cost.min(quoted))),
            _ => Some(quoted),
        }
    }
}

fn priced(offer: &Offer, amount: Atomic) -> Offer {
    Offer { amount, ..offer.clone() }
}

impl Routes {
    /// What a request costs on the route that [`Routes::select`] chose.
    ///
    /// # Errors
    ///
    /// Where it cannot be known, or is not sold: to be refused, never free.
    pub fn quote(&self, route: usize, request: &RequestFacts<'_>) -> Result<Quote, QuoteRefusal> {
        match self.by_index(route) {
            Some(route) => route.quote(request),
            None => Err(QuoteRefusal::FactsMissing),
        }
    }
}

impl Route {
    /// What a request costs on this route.
    ///
    /// # Errors
    ///
    /// Where it cannot be known, or is not sold: to be refused, never free.
    pub fn quote(&self, request: &RequestFacts<'_>) -> Result<Quote, QuoteRefusal> {
        match &self.price {
            Price::Free | Price::PerRequest => Ok(Quote::fixed()),
            Price::PerMinute(_) => Ok(Quote {
                amounts: None,
                basis: Basis::Minutes,
            }),
            Price::PerToken(price) => {
                let facts = match request.body {
                    None => return Err(QuoteRefusal::NeedsBody),
                    Some(BodyFacts::None) => return Err(QuoteRefusal::NoBody),
                    Some(BodyFacts::Unreadable(_)) => return Err(QuoteRefusal::Unreadable),
                    Some(BodyFacts::Json(facts)) => facts,
                };
                let (amounts, tokens) = price.quote(facts)?;
                Ok(Quote {
                    amounts: Some(amounts.into()),
                    basis: Basis::Tokens(tokens),
                })
            }
            Price::Dynamic(price) => Ok(Quote {
                amounts: Some(price.quote(request)?.into()),
                basis: Basis::Fixed,
            }),
        }
    }
}
