//! What a condition can see of a request.

use crate::pricing::RequestFacts;

/// A request, as conditions see it.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `request.method`, as sent.
    pub method: &'a [u8],
    /// `:path` as sent, with the query.
    pub path: &'a [u8],
    /// Every header, in any order.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// `request.size`: bytes of the body as sent.
    pub size: u64,
}

impl<'a> Scope<'a> {
    /// A request without a body, or whose body no condition looks at.
    pub fn without_body(request: &RequestFacts<'a>) -> Self {
        Self {
            method: request.place.method,
            path: request.place.path,
            headers: request.headers,
            size: 0,
        }
    }
}
