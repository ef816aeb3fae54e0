//! What both roles of the module look at first, and what the reader hands on to the gate.

use super::abi::{self, Map};
use crate::config::Config;
use crate::pricing::Place;

/// The property in which a body's facts travel, after 8 bytes for the former configuration that the reader had in mind: set by the reader,
/// read by the gate; no client can.
pub(super) const BODY_PROPERTY: &str = "x402_body";

/// Names and values of headers, as Envoy has them.
pub(super) type Pairs<'h> = [(&'h [u8], &'h [u8])];

/// A request's headers: fetched at once, for each fetch of a single one costs as much as that of all.
pub(super) struct Head {
    headers: Vec<u8>,
    envoy_route: Option<Vec<u8>>,
}

impl Head {
    pub(super) fn read(config: &Config) -> Self {
        Self {
            headers: abi::header_bytes(Map::Request),
            envoy_route: config
                .routes
                .use_envoy_route()
                .then(|| abi::property(&["xds", "route_name"]).unwrap_or_default()),
        }
    }

    /// In order, names in lower case.
    pub(super) fn headers(&self) -> Vec<(&[u8], &[u8])> {
        abi::pairs(&self.headers)
    }

    /// What tells whether the request is priced at all. `headers`: [`Head::headers`].
    pub(super) fn place<'h>(&'h self, headers: &Pairs<'h>) -> Place<'h> {
        let method = first(headers, b":method").unwrap_or_default();
        let has = |name| first(headers, name).is_some();
        Place {
            method,
            authority: first(headers, b":authority").unwrap_or_default(),
            path: first(headers, b":path").unwrap_or_default(),
            envoy_route: self.envoy_route.as_deref(),
            is_cors_preflight: method.eq_ignore_ascii_case(b"options") && has(b"origin") && has(b"access-control-request-method"),
        }
    }
}

/// The first value of a header.
pub(super) fn first<'h>(headers: &Pairs<'h>, name: &[u8]) -> Option<&'h [u8]> {
    headers.iter().find(|(sent, _)| *sent == name).map(|(_, value)| *value)
}
