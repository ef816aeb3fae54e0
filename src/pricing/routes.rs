//! All routes, indexed for lookup.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::matcher::PathForms;
use super::path::{Ambiguity, fold, normalise, readings};
use super::route::Route;
use super::select::{Condition, Located, Place, RequestFacts, Selection};
use crate::reader::BodyFacts;
use crate::sorting::sort;

/// An ambiguous path longer than this is refused without looking at its readings: they cost too much.
const LONGEST_READ: usize = 4096;

/// All routes of a configuration; the first that matches wins.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Route>,
    deny_unmatched: bool,
    /// Routes whose path has no `*`, by that path without case; indices ascend.
    exact: BTreeMap<Box<[u8]>, Vec<usize>>,
    /// The other routes, by [`PathPattern::directory`](super::matcher::PathPattern::directory); indices ascend.
    globs: BTreeMap<Box<[u8]>, Vec<usize>>,
    uses_body: bool,
    uses_envoy_route: bool,
}

impl Routes {
    /// Indexes routes, in order of precedence. `deny_unmatched`: what no route takes is [`Selection::Denied`].
    pub fn new(routes: Vec<Route>, deny_unmatched: bool) -> Self {
        let mut exact: BTreeMap<Box<[u8]>, Vec<usize>> = BTreeMap::new();
        let mut globs: BTreeMap<Box<[u8]>, Vec<usize>> = BTreeMap::new();
        for (index, route) in routes.iter().enumerate() {
            let path = &route.matcher.path;
            match path.exact() {
                Some(path) => exact.entry(path.into()).or_default().push(index),
                None => globs.entry(path.directory().into()).or_default().push(index),
            }
        }
        Self {
            // Found once: both are asked at each request, whatever it is for.
            uses_body: routes.iter().any(|route| route.matcher.model.is_some() || route.price.needs_body()),
            uses_envoy_route: routes.iter().any(|route| route.matcher.envoy_route.is_some()),
            routes,
            deny_unmatched,
            exact,
            globs,
        }
    }

    /// The route at an index that [`Routes::select`] gave.
    pub fn by_index(&self, i: usize) -> Option<&Route> {
        self.routes.get(i)
    }

    /// Every route, in order of precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        self.routes.iter_mut()
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether requests that no route takes go on.
    pub fn passes_unmatched(&self) -> bool {
        !self.deny_unmatched
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether any route's conditions or price depend on the body.
    pub fn use_body(&self) -> bool {
        self.uses_body
    }

    /// Whether any route's place depends on Envoy's name for its route.
    pub fn use_envoy_route(&self) -> bool {
        self.uses_envoy_route
    }

    /// Which routes are at a place, whatever their conditions.
    ///
    /// Does not allocate where the path is plain and lower-case and no route is there.
    pub fn locate(&self, where_: &Place<'_>) -> Located {
        if where_.is_cors_preflight && where_.method == b"OPTIONS" {
            return Located::Preflight;
        }
        let normal = normalise(where_.path);
        if normal.ambiguity == Ambiguity::Open {
            return if self.deny_unmatched || self.any_reading_priced(where_) {
                Located::Ambiguous
            } else {
                Located::Nowhere
            };
        }
        let at = self.at(where_, &normal.path);
        // A priced path with another reading is priced all the same; a free one may be priced in the other.
        let all_priced = !at.is_empty() && at.iter().all(|index| self.is_priced(*index));
        if normal.is_ambiguous() && !all_priced && self.any_reading_priced(where_) {
            return Located::Ambiguous;
        }
        if at.is_empty() { Located::Nowhere } else { Located::At(at) }
    }

    /// Which route takes a request: the first one whose place and conditions all fit.
    pub fn select(&self, request: &RequestFacts<'_>) -> Selection {
        self.select_at(self.locate(&request.place), request)
    }

    /// The same, for a request whose place is known.
    pub fn select_at(&self, located: Located, request: &RequestFacts<'_>) -> Selection {
        let at = match located {
            Located::Preflight => return Selection::Preflight,
            Located::Ambiguous => return Selection::Ambiguous,
            Located::Nowhere => return self.unmatched(),
            Located::At(at) => at,
        };
        let guarded = self.deny_unmatched || at.iter().any(|index| self.is_priced(*index));
        let mut failed = None;
        for (index, route) in at.iter().filter_map(|index| Some((*index, self.routes.get(*index)?))) {
            let condition = match route.matcher.failed_header(request.headers) {
                Some(condition) => condition,
                None => match body_condition(route, request.body) {
                    Verdict::Holds if route.is_priced() => return Selection::Priced(index),
                    Verdict::Holds => return Selection::Free(index),
                    Verdict::Unseen if guarded => return Selection::NeedsBody,
                    Verdict::Unreadable if guarded => return Selection::UnreadableBody { route: index },
                    Verdict::Unseen | Verdict::Unreadable => Condition::Body,
                    Verdict::Fails(condition) => condition,
                },
            };
            if route.is_priced() && failed.is_none() {
                failed = Some(Selection::ConditionFailed { route: index, condition });
            }
        }
        failed.unwrap_or_else(|| self.unmatched())
    }

    /// Whether a request's body has to be read before a route can be chosen, or before what it charges is known.
    pub fn needs_body(&self, where_: &Place<'_>, headers: &[(&[u8], &[u8])]) -> bool {
        let request = RequestFacts {
            place: *where_,
            headers,
            body: None,
        };
        match self.select(&request) {
            Selection::NeedsBody => true,
            Selection::Priced(index) => self.by_index(index).is_some_and(|route| route.price.needs_body()),
            _ => false,
        }
    }

    fn unmatched(&self) -> Selection {
        if self.deny_unmatched {
            Selection::Denied
        } else {
            Selection::Unmatched
        }
    }

    fn is_priced(&self, index: usize) -> bool {
        self.routes.get(index).is_some_and(Route::is_priced)
    }

    fn any_reading_priced(&self, where_: &Place<'_>) -> bool {
        where_.path.len() > LONGEST_READ
            || readings(where_.path)
                .iter()
                .any(|path| self.at(where_, path).iter().any(|index| self.is_priced(*index)))
    }

    /// Indices of the routes at a place, taking the path to be this one.
    fn at(&self, where_: &Place<'_>, plain: &[u8]) -> Vec<usize> {
        let folded: Cow<'_, [u8]> = fold(plain);
        let path = PathForms { plain, folded: &folded };
        let is_at = |index: &&usize| {
            self.routes
                .get(**index)
                .is_some_and(|route| route.matcher.is_at(where_.method, where_.authority, path, where_.envoy_route))
        };
        let mut at: Vec<usize> = self.candidates(&folded).filter(is_at).copied().collect();
        sort(&mut at, usize::lt);
        at
    }

    /// Indices of the routes whose path may match, in no order: those of the path itself, and of each directory above it.
    fn candidates<'a>(&'a self, folded: &'a [u8]) -> impl Iterator<Item = &'a usize> {
        let ends = folded.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let directories = ends.chain([folded.len()]).filter_map(|end| folded.get(..end));
        // The path "*" has no slash and still is in the root.
        let root = (!folded.starts_with(b"/")).then_some(&b""[..]);
        let globs = root
            .into_iter()
            .chain(directories)
            .filter_map(|directory| self.globs.get(directory));
        self.exact.get(folded).into_iter().chain(globs).flatten()
    }

    /// The routes, earlier than the one at `index`, that might take all that it takes; the first few, if there are many.
    pub(crate) fn rivals(&self, index: usize) -> impl Iterator<Item = &Route> {
        const MOST: usize = 256;
        let path = self.by_index(index).map(|route| &route.matcher.path);
        let at = path
            .map(|path| path.exact().unwrap_or_else(|| path.directory()))
            .unwrap_or_default();
        let earlier = self.candidates(at).filter(move |other| **other < index).take(MOST);
        earlier.filter_map(|other| self.by_index(*other))
    }
}

enum Verdict {
    Holds,
    Fails(Condition),
    Unreadable,
    Unseen,
}

fn body_condition(route: &Route, body: Option<&BodyFacts>) -> Verdict {
    let Some(glob) = &route.matcher.model else { return Verdict::Holds };
    match body {
        None => Verdict::Unseen,
        Some(BodyFacts::None) => Verdict::Fails(Condition::Body),
        Some(BodyFacts::Unreadable(_)) => Verdict::Unreadable,
        Some(BodyFacts::Json(facts)) => match &facts.model {
            Some(model) if glob.matches(model.as_bytes()) => Verdict::Holds,
            _ => Verdict::Fails(Condition::Model),
        },
    }
}
