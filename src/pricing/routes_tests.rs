//! What the routes answer, seen as a request's way through them.

use super::glob::Glob;
use super::host::Host;
use super::matcher::{Matcher, PathPattern};
use super::*;
use crate::reader::{BodyFacts, Facts, Why};
use proptest::prelude::*;

fn route(path: &str, price: Price) -> Route {
    Route {
        name: path.into(),
        matcher: Matcher {
            path: PathPattern::new(path.as_bytes(), false),
            ..Matcher::default()
        },
        price,
        flow: Flow::default(),
        start: Start::default(),
        requests_per_payment: 1,
        offers: Vec::new(),
        description: "".into(),
        mime_type: "".into(),
    }
}

fn place<'a>(method: &'a str, path: &'a str) -> Place<'a> {
    Place {
        method: method.as_bytes(),
        authority: b"api.example.com",
        path: path.as_bytes(),
        envoy_route: None,
        is_cors_preflight: false,
    }
}

fn facts<'a>(place: Place<'a>, body: Option<&'a BodyFacts>) -> RequestFacts<'a> {
    RequestFacts { place, headers: &[], body }
}

fn select(routes: &Routes, path: &str) -> Selection {
    routes.select(&facts(place("GET", path), None))
}

fn model(name: &str) -> BodyFacts {
    BodyFacts::Json(Facts {
        model: Some(name.to_owned()),
        size: 1,
        ..Facts::default()
    })
}

fn sample(deny: bool) -> Routes {
    let mut gpt = route("/v1/chat", Price::PerRequest);
    gpt.matcher.model = Some(Glob::new(b"gpt-*"));
    let mut post = route("/v1/post", Price::PerRequest);
    post.matcher.methods = vec!["POST".into()];
    Routes::new(
        vec![
            route("/healthz", Price::Free),
            route("/v1/reports/free", Price::Free),
            route("/v1/reports/*", Price::PerRequest),
            gpt,
            post,
        ],
        deny,
    )
}

#[test]
fn the_first_match_wins_whether_exact_or_glob() {
    let routes = sample(false);
    assert_eq!(select(&routes, "/v1/reports/free"), Selection::Free(1));
    assert_eq!(select(&routes, "/v1/reports/1?x"), Selection::Priced(2));
    assert_eq!(select(&routes, "/V1/REPORTS/"), Selection::Priced(2));
    assert_eq!(select(&routes, "/else"), Selection::Unmatched);
    assert_eq!(select(&sample(true), "/else"), Selection::Denied);
    let swapped = Routes::new(vec![route("/a/*", Price::PerRequest), route("/a/b", Price::Free)], false);
    assert_eq!(select(&swapped, "/a/b"), Selection::Priced(0));
}

#[test]
fn a_glob_is_found_wherever_its_star_is() {
    for (pattern, paths) in [
        ("*", &["/", "/a", "/a/b", "*"][..]),
        ("/*", &["/", "/a", "/a/b"]),
        ("/a*", &["/a", "/ab", "/a/b", "/abc/d"]),
        ("/a/b*c", &["/a/bc", "/a/b/c", "/a/bxc"]),
        ("/a/*/c/*", &["/a/b/c", "/a/b/c/d", "/A/b/b/C/d/e"]),
        ("*/c", &["/c", "/a/c"]),
    ] {
        let routes = Routes::new(vec![route(pattern, Price::PerRequest)], false);
        for path in paths {
            assert_eq!(select(&routes, path), Selection::Priced(0), "{pattern} {path}");
        }
    }
}

#[test]
fn methods_do_not_open_a_way_round() {
    let routes = sample(false);
    let post = |method| routes.select(&facts(place(method, "/v1/post"), None));
    assert_eq!(post("POST"), Selection::Priced(4));
    assert_eq!(post("post"), Selection::Priced(4));
    assert_eq!(post("GET"), Selection::Unmatched);
    let mut preflight = place("OPTIONS", "/v1/reports/1");
    preflight.is_cors_preflight = true;
    assert_eq!(routes.select(&facts(preflight, None)), Selection::Preflight);
    preflight.method = b"GET";
    assert_eq!(routes.select(&facts(preflight, None)), Selection::Priced(2));
}

#[test]
fn a_failed_condition_is_never_free() {
    let routes = sample(false);
    let chat = |body: Option<&BodyFacts>| routes.select(&facts(place("POST", "/v1/chat"), body));
    assert_eq!(chat(Some(&model("gpt-4o"))), Selection::Priced(3));
    let failed = |condition| Selection::ConditionFailed { route: 3, condition };
    assert_eq!(chat(Some(&model("GPT-4o"))), failed(Condition::Model));
    assert_eq!(chat(Some(&BodyFacts::None)), failed(Condition::Body));
    let encoded = BodyFacts::Unreadable(Why::Encoded);
    assert_eq!(chat(Some(&encoded)), Selection::UnreadableBody { route: 3 });
    assert_eq!(chat(None), Selection::NeedsBody);
    assert!(routes.needs_body(&place("POST", "/v1/chat"), &[]));
    assert!(!routes.needs_body(&place("POST", "/v1/reports/1"), &[]));
}

#[test]
fn the_body_is_wanted_only_by_a_route_whose_turn_comes() {
    let mut priced = route("/chat", Price::PerRequest);
    priced.matcher.model = Some(Glob::new(b"x"));
    priced.matcher.headers = vec![("x-tier".into(), Glob::new(b"a"))];
    let routes = Routes::new(vec![priced, route("/chat", Price::Free)], false);
    assert_eq!(select(&routes, "/chat"), Selection::Free(1));
    assert!(!routes.needs_body(&place("GET", "/chat"), &[]));
    assert!(routes.needs_body(&place("GET", "/chat"), &[(b"X-TIER", b"a")]));
}

#[test]
fn an_ambiguous_path_is_refused_where_a_reading_is_priced() {
    let routes = sample(false);
    for path in ["/v1%2freports/1", "/v1/reports/1;x", "/x/..%2fv1/reports/1", "//x/v1/reports/1"] {
        assert_eq!(select(&routes, path), Selection::Ambiguous, "{path}");
    }
    assert_eq!(select(&routes, "//v1/reports/1"), Selection::Priced(2));
    assert_eq!(select(&routes, "/else;x"), Selection::Unmatched);
    assert_eq!(select(&routes, "//else"), Selection::Unmatched);
    assert_eq!(select(&sample(true), "/else;x"), Selection::Ambiguous);
    assert_eq!(select(&routes, &format!("/{};", "x".repeat(5000))), Selection::Ambiguous);
}

#[test]
fn host_and_envoy_route_are_part_of_the_place() {
    let mut priced = route("*", Price::PerRequest);
    priced.matcher.host = Host::parse("*.example.com");
    priced.matcher.envoy_route = Some("paid".into());
    let routes = Routes::new(vec![priced], false);
    let mut there = place("GET", "/x");
    assert_eq!(routes.locate(&there), Located::Nowhere);
    there.envoy_route = Some(b"paid");
    assert_eq!(routes.locate(&there), Located::At(vec![0]));
    there.authority = b"other.org";
    assert_eq!(routes.locate(&there), Located::Nowhere);
    there.path = b"/x;y";
    assert_eq!(routes.locate(&there), Located::Nowhere);
}

proptest! {
    #[test]
    fn no_request_makes_it_panic(
        method in proptest::collection::vec(any::<u8>(), 0..8),
        authority in proptest::collection::vec(any::<u8>(), 0..20),
        path in proptest::collection::vec(any::<u8>(), 0..60),
        value in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let place = Place { method: &method, authority: &authority, path: &path, envoy_route: Some(&value), is_cors_preflight: false };
        let headers: [(&[u8], &[u8]); 1] = [(&value, &value)];
        let _ = sample(false).select(&RequestFacts { place, headers: &headers, body: None });
    }

    /// Looking up by directory finds what trying every route would.
    #[test]
    fn the_index_loses_nothing(patterns in proptest::collection::vec("(/[ab*]{0,3}){1,3}|\\*[ab/]{0,2}", 1..6), path in "(/[ab]{1,2}){0,4}") {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let normal: Vec<String> = patterns.iter().map(|pattern| {
            let rooted = format!("/{pattern}");
            let text = String::from_utf8(normalise(rooted.as_bytes()).path.into_owned()).unwrap();
            if pattern.starts_with('*') { text.replacen('/', "", 1) } else { text }
        }).collect();
        let routes = Routes::new(normal.iter().map(|pattern| route(pattern, Price::PerRequest)).collect(), false);
        let fits = |pattern: &String| {
            let with_parent = pattern.strip_suffix("/*").map(|parent| Glob::new(if parent.is_empty() { b"/" } else { parent.as_bytes() }));
            Glob::new(pattern.as_bytes()).matches(path.as_bytes()) || with_parent.is_some_and(|glob| glob.matches(path.as_bytes()))
        };
        let expected: Vec<usize> = normal.iter().enumerate().filter(|(_, pattern)| fits(pattern)).map(|(index, _)| index).collect();
        let located = routes.locate(&place("GET", &path));
        prop_assert_eq!(located, if expected.is_empty() { Located::Nowhere } else { Located::At(expected) });
    }

    /// However a client spells a priced path, as long as a server may read it so, it is not free.
    #[test]
    fn no_spelling_of_a_priced_path_is_free(spelled in "(/v1|/V1|/%761|//v1|/x/\\.\\./v1|/v1/\\.|/v1;a|\\\\v1)(/|//|%2f|\\\\|/%2e/)(post|p%6fst|p%256fst|POST|post;a|post%00|post#|post%3f|post/)(\\?q)?") {
        let routes = sample(false);
        let selection = routes.select(&facts(place("POST", &spelled), None));
        prop_assert!(matches!(selection, Selection::Priced(4) | Selection::Ambiguous), "{} {:?}", spelled, selection);
    }
}
