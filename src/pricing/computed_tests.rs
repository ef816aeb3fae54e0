//! Quotes of prices that time or conditions decide, against amounts computed by hand.

use serde_json::{Value, json};

use super::quote_tests::{amounts, request, routes};
use super::*;
use crate::reader::{BodyFacts, Facts};

#[test]
fn minutes_are_begun_ones() {
    let routes = routes(json!({"per_minute": {"amount": "$0.10", "minimum": 2, "maximum": 30}}));
    let route = routes.by_index(0).unwrap();
    let quote = routes.quote(0, &request("/v1/audio", &[], None)).unwrap();
    assert_eq!(quote.amount(route, 0), Some(Atomic(3_000_000)));
    assert!(matches!(quote.offers(route), std::borrow::Cow::Borrowed(_)));
    for (ms, usdc) in [
        (0, 200_000),
        (120_000, 200_000),
        (120_001, 300_000),
        (1_800_000, 3_000_000),
        (u64::MAX, 3_000_000),
    ] {
        assert_eq!(quote.settle_minutes(route, 0, ms), Some(Atomic(usdc)), "{ms}");
    }
    let Price::PerMinute(price) = &route.price else { panic!() };
    assert_eq!((price.minutes(150_000), price.longest_ms()), (3, 1_800_000));
}

#[test]
fn minutes_are_rounded_once() {
    let routes = routes(json!({"per_minute": {"amount": "$0.0000004", "maximum": 9}}));
    let route = routes.by_index(0).unwrap();
    let quote = routes.quote(0, &request("/v1/audio", &[], None)).unwrap();
    // 9 × 0.4 = 3.6; 3 × 0.4 = 1.2
    assert_eq!(quote.amount(route, 0), Some(Atomic(4)));
    assert_eq!(quote.settle_minutes(route, 0, 180_000), Some(Atomic(2)));
}

#[test]
fn the_design_s_multipliers_multiply() {
    let routes = routes(json!({"dynamic": {"base": "$0.01", "multipliers": [
        {"when": "query_length > 1000", "times": 2.0}, {"when": "requires_browser", "times": 1.5},
    ]}}));
    let long = "é".repeat(1001);
    for (body, usdc) in [
        (r#"{"query":"short"}"#.to_owned(), 10_000),
        (format!(r#"{{"query":"{long}"}}"#), 20_000),
        (r#"{"query":"short","requires_browser":true}"#.to_owned(), 15_000),
        (format!(r#"{{"query":"{long}","requires_browser":true}}"#), 30_000),
        // Neither true nor false: the dearer.
        (r#"{"requires_browser":"yes"}"#.to_owned(), 15_000),
    ] {
        assert_eq!(amounts(&routes, "/v1/search", &body).map(|amounts| amounts[0]), Ok(usdc), "{body}");
    }
    // Without a body the gate decides alone.
    let get = |path, headers: &[(&[u8], &[u8])]| {
        let quote = routes.quote(0, &request(path, headers, Some(&BodyFacts::None))).unwrap();
        quote.amount(routes.by_index(0).unwrap(), 0).unwrap().0
    };
    assert_eq!(get("/v1/search?q=x", &[]), 10_000);
    assert_eq!(get("/v1/search", &[(b"x-requires-browser", b"true")]), 15_000);
    assert_eq!(get(&format!("/v1/search?query={long}"), &[]), 20_000);
    let missing = BodyFacts::Json(Facts::default());
    assert_eq!(
        routes.quote(0, &request("/v1/search", &[], Some(&missing))),
        Err(QuoteRefusal::FactsMissing)
    );
    assert_eq!(routes.quote(0, &request("/v1/search", &[], None)), Err(QuoteRefusal::NeedsBody));
}

#[test]
fn factors_are_rounded_once_and_a_doubt_gives_no_discount() {
    let times = |when: &str, times: Value| json!({"when": when, "times": times});
    let dynamic = |multipliers: Vec<Value>| routes(json!({"dynamic": {"base": "$0.000001", "multipliers": multipliers}}));
    let of = |routes: &Routes| amounts(routes, "/v1/x", r#"{"a":1}"#).unwrap()[0];
    // 1.1³ = 1.331: 2. Rounded at each step it would be 4.
    assert_eq!(
        of(&dynamic(vec![
            times("true", json!(1.1)),
            times("body.a == 1", json!("1.1")),
            times("true", json!(1.1))
        ])),
        2
    );
    assert_eq!(of(&dynamic(vec![times("true", json!(10)), times("body.none", json!(0.1))])), 10);
    assert_eq!(of(&dynamic(vec![times("true", json!(10)), times("body.a == 1", json!(0.1))])), 1);
    assert_eq!(of(&dynamic(vec![times("true", json!("0.000000001"))])), 1);
    let headers_only = dynamic(vec![times("request.method == \"POST\"", json!(3))]);
    assert!(!headers_only.use_body());
    assert_eq!(
        headers_only
            .quote(0, &request("/v1/x", &[], None))
            .unwrap()
            .amount(headers_only.by_index(0).unwrap(), 0),
        Some(Atomic(3))
    );
}

#[test]
fn former_prices_can_be_quoted_from_the_same_facts() {
    let multiplied = |when: &str| routes(json!({"dynamic": {"base": "$0.01", "multipliers": [{"when": when, "times": 2}]}}));
    let (former, current) = (multiplied("body.a == 1"), multiplied("body.a == 2"));
    let facts = current
        .read(Some(&former), &request("/v1/x", &[], None), br#"{"a":1}"#, None, None, false)
        .facts;
    let amount = |routes: &Routes| {
        routes
            .quote(0, &request("/v1/x", &[], Some(&facts)))
            .unwrap()
            .amount(routes.by_index(0).unwrap(), 0)
    };
    assert_eq!(amount(&former), Some(Atomic(20_000)));
    assert_eq!(amount(&current), Some(Atomic(10_000)));
}
