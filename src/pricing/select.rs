//! What is asked of the routes about a request, and what they answer.

use crate::reader::BodyFacts;

/// Where a request goes: all that route lookup needs before headers and body are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// `:method` as sent.
    pub method: &'a [u8],
    /// `:authority` as sent.
    pub authority: &'a [u8],
    /// `:path` as sent, with the query.
    pub path: &'a [u8],
    /// Envoy's name for the route it chose (`xds.route_name`).
    pub envoy_route: Option<&'a [u8]>,
    /// An OPTIONS request with `Origin` and `Access-Control-Request-Method`.
    pub is_cors_preflight: bool,
}

/// Which routes a request's place leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A CORS preflight: never priced.
    Preflight,
    /// The path has more than one reading, and one of them is priced or nothing unmatched may pass.
    Ambiguous,
    /// No route is at this place.
    Nowhere,
    /// Indices of the routes at this place, in order of configuration; never empty.
    At(Vec<usize>),
}

/// A request, as far as route selection looks at it.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Where it goes.
    pub place: Place<'a>,
    /// Every header, in any order, repeated ones as often as they were sent.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// What the reader found in the body; `None` if no reader is in front.
    pub body: Option<&'a BodyFacts>,
}

/// Which route takes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// No route is at this place, and such requests pass.
    Unmatched,
    /// No route takes the request, and `unmatched: deny`.
    Denied,
    /// A CORS preflight: passes.
    Preflight,
    /// The path has more than one reading: refuse it.
    Ambiguous,
    /// A route's conditions depend on the body and no reader looked at it.
    NeedsBody,
    /// A priced route is at this place, no route takes the request, and this is the first such route's failed condition.
    ConditionFailed {
        /// Index of the route.
        route: usize,
        /// What failed.
        condition: Condition,
    },
    /// A route's conditions depend on the body and it cannot be read.
    UnreadableBody {
        /// Index of the route.
        route: usize,
    },
    /// Index of a free route.
    Free(usize),
    /// Index of a priced route.
    Priced(usize),
}

/// A condition of a route beside its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// `match.model`.
    Model,
    /// `match.headers`; the name in lower case.
    Header(Box<str>),
    /// The body itself: there is none and the route wants one.
    Body,
}
