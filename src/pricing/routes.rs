//! All routes, indexed for lookup.

use super::route::Route;
use super::select::{Located, Place, RequestFacts, Selection};

/// All routes of a configuration; the first that matches wins.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    /// The route at an index that [`Routes::select`] gave.
    pub fn by_index(&self, i: usize) -> Option<&Route> {
        self.routes.get(i)
    }

    /// Which routes are at a place, whatever their conditions.
    pub fn locate(&self, where_: &Place<'_>) -> Located {
        let _ = where_;
        Located::Nowhere
    }

    /// Which route takes a request.
    pub fn select(&self, request: &RequestFacts<'_>) -> Selection {
        let _ = request;
        Selection::Denied
    }

    /// Whether a request's body has to be read before a route can be chosen.
    pub fn needs_body(&self, where_: &Place<'_>, headers: &[(&[u8], &[u8])]) -> bool {
        let _ = (where_, headers);
        false
    }
}
