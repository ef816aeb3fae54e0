//! What a request costs: route matching, money, offers.
//!
//! Knows requests as bytes and bodies as facts; nothing of payments, which are held against the offers elsewhere.

mod glob;
mod host;
mod matcher;
mod money;
mod offer;
mod path;
mod readings;
mod route;
mod routes;
#[cfg(test)]
mod routes_tests;
mod select;

pub use glob::Glob;
pub(crate) use host::Host;
pub use matcher::Matcher;
pub(crate) use matcher::PathPattern;
pub use money::{Decimal, MoneyError};
pub use offer::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer};
pub use path::{Ambiguity, Normal, normalise, readings, resource_path};
pub use route::{Price, Route};
pub use routes::Routes;
pub use select::{Condition, Located, Place, RequestFacts, Selection};
