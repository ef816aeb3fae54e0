//! What a request costs: route matching, money, offers.

mod glob;
mod matcher;
mod offer;
mod route;
mod routes;
mod select;

pub use glob::Glob;
pub use matcher::Matcher;
pub use offer::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer};
pub use route::{Price, Route};
pub use routes::Routes;
pub use select::{Condition, Located, Place, RequestFacts, Selection};
