//! Which requests a route takes.

use super::glob::Glob;

/// Which requests a route takes: a place (host, path, method, Envoy's route) and conditions (headers, model).
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    pub(crate) model: Option<Glob>,
}
