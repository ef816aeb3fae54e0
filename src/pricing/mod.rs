//! What a request costs: route matching, money, offers.

mod offer;

pub use offer::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer};
