//! Which requests a route takes.

use super::glob::Glob;
use super::host::Host;
use super::select::Condition;

/// Which requests a route takes: a place (host, path, method, Envoy's route) and conditions (headers, model).
///
/// Made by `config`; the default takes every request.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// In upper case; empty for any.
    pub(crate) methods: Vec<Box<str>>,
    pub(crate) host: Option<Host>,
    pub(crate) path: PathPattern,
    /// The name that Envoy's own route must have.
    pub(crate) envoy_route: Option<Box<str>>,
    /// Names in lower case, and what every value of that header must look like.
    pub(crate) headers: Vec<(Box<str>, Glob)>,
    pub(crate) model: Option<Glob>,
}

/// A path condition, over normal paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathPattern {
    /// As configured, in normal form.
    plain: Box<[u8]>,
    /// The same without case.
    folded: Box<[u8]>,
    case_sensitive: bool,
    /// `None`: the path is exactly this.
    globs: Option<Vec<Glob>>,
}

/// A normal path, with and without case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PathForms<'a> {
    pub(crate) plain: &'a [u8],
    pub(crate) folded: &'a [u8],
}

impl Default for PathPattern {
    fn default() -> Self {
        Self::new(b"*", false)
    }
}

impl PathPattern {
    /// Compiles a pattern in normal form: `*` is any run of bytes, and `/x/*` takes `/x` too.
    pub(crate) fn new(plain: &[u8], case_sensitive: bool) -> Self {
        let folded = super::path::fold(plain).into_owned();
        let text: &[u8] = if case_sensitive { plain } else { &folded };
        let globs = plain.contains(&b'*').then(|| {
            let mut globs = vec![Glob::new(text)];
            if let Some(parent) = text.strip_suffix(b"/*") {
                globs.push(Glob::new(if parent.is_empty() { b"/" } else { parent }));
            }
            globs
        });
        Self {
            plain: plain.into(),
            folded: folded.into(),
            case_sensitive,
            globs,
        }
    }

    /// The path without case, if the pattern has no `*`.
    pub(crate) fn exact(&self) -> Option<&[u8]> {
        self.globs.is_none().then_some(&*self.folded)
    }

    /// Where the paths of a pattern with `*` are: all of them begin with this, and a `/` or nothing follows. Without case.
    pub(crate) fn directory(&self) -> &[u8] {
        let literal = self.folded.split(|byte| *byte == b'*').next().unwrap_or_default();
        let end = literal.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        literal.get(..end).unwrap_or_default()
    }

    fn matches(&self, path: PathForms<'_>) -> bool {
        let (text, own) = if self.case_sensitive {
            (path.plain, &self.plain)
        } else {
            (path.folded, &self.folded)
        };
        match &self.globs {
            None => text == &**own,
            Some(globs) => globs.iter().any(|glob| glob.matches(text)),
        }
    }

    /// Whether every path of the other is one of this: a `*` in the other's pattern can only be taken by one in this.
    fn covers(&self, other: &Self) -> bool {
        (!self.case_sensitive || other.case_sensitive)
            && self.matches(PathForms {
                plain: &other.plain,
                folded: &other.folded,
            })
    }
}

impl Matcher {
    /// Whether a request goes to this route's place. Methods are compared without case, and HEAD and OPTIONS go where GET goes.
    pub(crate) fn is_at(&self, method: &[u8], authority: &[u8], path: PathForms<'_>, envoy_route: Option<&[u8]>) -> bool {
        self.path.matches(path)
            && self.takes_method(method)
            && self.host.as_ref().is_none_or(|host| host.matches(authority))
            && self.envoy_route.as_ref().is_none_or(|name| envoy_route == Some(name.as_bytes()))
    }

    fn takes_method(&self, method: &[u8]) -> bool {
        let listed = |method: &[u8]| self.methods.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(method));
        let like_get = || method.eq_ignore_ascii_case(b"HEAD") || method.eq_ignore_ascii_case(b"OPTIONS");
        self.methods.is_empty() || listed(method) || (like_get() && listed(b"GET"))
    }

    /// The first header condition that does not hold. A header must be there, and every value of it must fit.
    pub(crate) fn failed_header(&self, headers: &[(&[u8], &[u8])]) -> Option<Condition> {
        let failed = self.headers.iter().find(|(name, glob)| {
            let mut values = headers
                .iter()
                .filter(|(sent, _)| sent.eq_ignore_ascii_case(name.as_bytes()))
                .peekable();
            values.peek().is_none() || !values.all(|(_, value)| glob.matches(value))
        });
        failed.map(|(name, _)| Condition::Header(name.clone()))
    }

    /// Whether every request of the other is one of this, as far as can be told: then the other never gets one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.path.covers(&other.path)
            && (self.methods.is_empty() || (!other.methods.is_empty() && other.methods.iter().all(|m| self.takes_method(m.as_bytes()))))
            && match (&self.host, &other.host) {
                (None, _) => true,
                (Some(host), Some(inner)) => host.covers(inner),
                (Some(_), None) => false,
            }
            && (self.envoy_route.is_none() || self.envoy_route == other.envoy_route)
            && self.headers.iter().all(|condition| other.headers.contains(condition))
            && match (&self.model, &other.model) {
                (None, _) => true,
                (Some(glob), Some(inner)) => glob.matches(&inner.pattern()),
                (Some(_), None) => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(matcher: &Matcher, method: &str, path: &str) -> bool {
        let path = path.as_bytes();
        let forms = PathForms {
            plain: path,
            folded: &super::super::path::fold(path),
        };
        matcher.is_at(method.as_bytes(), b"host", forms, None)
    }

    fn with_path(pattern: &str, case_sensitive: bool) -> Matcher {
        Matcher {
            path: PathPattern::new(pattern.as_bytes(), case_sensitive),
            ..Matcher::default()
        }
    }

    #[test]
    fn a_directory_pattern_takes_the_directory() {
        let matcher = with_path("/v1/reports/*", false);
        for path in ["/v1/reports", "/v1/reports/1", "/V1/Reports/1/2"] {
            assert!(at(&matcher, "GET", path), "{path}");
        }
        assert!(!at(&matcher, "GET", "/v1/reportsx"));
        assert!(at(&with_path("/*", false), "GET", "/"));
        assert!(at(&Matcher::default(), "OPTIONS", "*"));
    }

    #[test]
    fn case_matters_only_where_asked() {
        assert!(at(&with_path("/Key", false), "GET", "/key"));
        assert!(!at(&with_path("/Key", true), "GET", "/key"));
        assert!(at(&with_path("/K*", true), "GET", "/Key"));
    }

    #[test]
    fn head_and_options_go_where_get_goes() {
        let mut matcher = Matcher::default();
        matcher.methods.push("GET".into());
        for method in ["GET", "get", "HEAD", "OPTIONS", "Head"] {
            assert!(at(&matcher, method, "/"), "{method}");
        }
        assert!(!at(&matcher, "POST", "/"));
        matcher.methods = vec!["POST".into()];
        assert!(!at(&matcher, "HEAD", "/"));
    }

    #[test]
    fn every_value_of_a_header_must_fit() {
        let mut matcher = Matcher::default();
        matcher.headers.push(("x-tier".into(), Glob::new(b"basic*")));
        let failed = Some(Condition::Header("x-tier".into()));
        assert_eq!(matcher.failed_header(&[(b"X-Tier", b"basic-1")]), None);
        assert_eq!(matcher.failed_header(&[]), failed);
        assert_eq!(matcher.failed_header(&[(b"x-tier", b"basic"), (b"x-tier", b"\xff")]), failed);
    }

    #[test]
    fn covering_is_about_every_part() {
        let wide = with_path("/v1/*", false);
        let narrow = with_path("/v1/x", true);
        assert!(wide.covers(&narrow));
        assert!(!narrow.covers(&wide));
        let mut model = wide.clone();
        model.model = Some(Glob::new(b"gpt*"));
        assert!(wide.covers(&model));
        assert!(!model.covers(&wide));
        let mut post = wide.clone();
        post.methods.push("POST".into());
        assert!(wide.covers(&post));
        assert!(!post.covers(&wide));
    }
}
