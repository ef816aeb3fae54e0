//! What a request costs: route matching, money, prices, quotes.
//!
//! Knows requests as bytes and bodies as facts; nothing of payments, which are held against the offers elsewhere.

#[cfg(test)]
mod computed_tests;
mod dynamic;
pub mod expression;
mod flow;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod flow_tests;
mod former;
mod glob;
mod host;
mod matcher;
mod minutes;
mod money;
mod offer;
mod path;
mod quote;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod quote_tests;
mod rate;
mod reading;
mod readings;
#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "bounded by the generators")]
mod rewritten_tests;
mod route;
mod routes;
#[cfg(test)]
mod routes_tests;
mod select;
mod tokens;

pub use dynamic::Dynamic;
pub(crate) use dynamic::{MAX_MULTIPLIERS, Multiplier};
pub use flow::{Charged, Delivery, End, ExposureLimits, Flow, MeteredTerms, MissingUsage, OnBackendFailure, OnClientAbort, Start};
pub use former::Former;
pub use glob::Glob;
pub(crate) use host::Host;
pub use matcher::Matcher;
pub(crate) use matcher::PathPattern;
pub use minutes::PerMinute;
pub use money::{Decimal, MoneyError};
pub use offer::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer, in_dollars};
pub(crate) use path::without_query;
pub use path::{Ambiguity, Normal, normalise, readings, resource_path};
pub use quote::{Basis, Quote, QuoteRefusal};
pub(crate) use rate::Rates;
pub use reading::Reading;
pub use route::{Price, Route};
pub use routes::Routes;
pub use select::{Condition, Located, Place, RequestFacts, Selection};
pub(crate) use tokens::TokenTable;
pub use tokens::{InputEstimate, PerToken, TokenQuote};
