//! What both roles of the module look at first, and what the reader hands on to the gate.

use super::abi::{self, Map};
use crate::config::Config;
use crate::pricing::Place;

/// The property in which a body's facts travel: set by the reader, read by the gate; no client can.
pub(super) const BODY_PROPERTY: &str = "x402_body";

/// The few headers that tell whether a request is priced at all.
pub(super) struct Head {
    method: Vec<u8>,
    authority: Vec<u8>,
    path: Vec<u8>,
    envoy_route: Option<Vec<u8>>,
    is_cors_preflight: bool,
}

impl Head {
    pub(super) fn read(config: &Config) -> Self {
        let get = |name| abi::header(Map::Request, name);
        let method = get(":method").unwrap_or_default();
        let options = method.eq_ignore_ascii_case(b"options");
        Self {
            is_cors_preflight: options && get("origin").is_some() && get("access-control-request-method").is_some(),
            method,
            authority: get(":authority").unwrap_or_default(),
            path: get(":path").unwrap_or_default(),
            envoy_route: config
                .routes
                .use_envoy_route()
                .then(|| abi::property(&["xds", "route_name"]).unwrap_or_default()),
        }
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            envoy_route: self.envoy_route.as_deref(),
            is_cors_preflight: self.is_cors_preflight,
        }
    }
}
