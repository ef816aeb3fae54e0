//! What is charged for each end of an answer, against amounts computed by hand.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::quote_tests::{CHAT, per_token, quote, routes_with};
use super::*;
use crate::metering::{Metered, Usage};

/// Routes with a price that is metered when `upto` pays it.
pub(super) fn metered(price: Value) -> Routes {
    with_terms(price, json!({}))
}

fn with_terms(price: Value, terms: Value) -> Routes {
    let accept = json!([{"scheme": "upto", "network": "eip155:8453", "asset": "USDC", "max_timeout": "1h"}, {"scheme": "exact", "network": "eip155:8453", "asset": "USDC"}]);
    routes_with(json!({"price": price, "accept": accept, "flow": "metered", "metered": terms}))
}

fn charge(routes: &Routes, delivery: &Delivery) -> Charged {
    let route = routes.by_index(0).unwrap();
    let body = format!("{{\"messages\":[{{\"content\":\"{}\"}}],\"max_tokens\":100}}", "x".repeat(954));
    assert_eq!(body.len(), 1000);
    // 1100 × 2.5 + 100 × 10
    let quote = quote(routes, CHAT, &body).unwrap();
    quote.charge(route, 0, route.metered(Scheme::Upto).unwrap(), delivery).unwrap()
}

fn used(input: u64, output: u64) -> Option<Usage> {
    Some(Usage {
        input,
        output,
        ..Usage::default()
    })
}

/// A complete answer that says what it used.
fn delivery(usage: Option<Usage>) -> Delivery {
    Delivery {
        metered: Metered {
            usage,
            delivered_bytes: 400,
            delivered_text_bytes: 41,
            uncounted_text_bytes: if usage.is_some() { 0 } else { 41 },
            stale_text_bytes: if usage.is_some() { 0 } else { 41 },
            finished: false,
        },
        encoded: false,
        end: End::Complete,
        duration_ms: 61_000,
        told: None,
    }
}

fn amount(amount: u128) -> Charged {
    Charged {
        amount: Atomic(amount),
        capped: false,
    }
}

/// Of 1000 bytes: 250 tokens and 100 of overhead at 2.5, and of 41 bytes of text: 11 tokens at 10.
const ESTIMATE: u128 = 875 + 110;
const QUOTE: u128 = 3750;

#[test]
fn usage_is_charged_to_the_unit_and_capped_by_the_quote() {
    let routes = metered(per_token(json!({})));
    assert_eq!(charge(&routes, &delivery(used(11, 7))), amount(98)); // 27.5 + 70 = 97.5
    assert_eq!(charge(&routes, &delivery(used(0, 0))), amount(0));
    assert_eq!(charge(&routes, &delivery(used(1100, 100))), amount(QUOTE));
    let lie = charge(&routes, &delivery(used(1100, 101)));
    assert_eq!((lie.amount.0, lie.capped), (QUOTE, true));
}

#[test]
fn an_answer_without_usage_is_charged_as_the_route_says() {
    for (terms, expected) in [
        (json!({}), ESTIMATE),
        (json!({"missing_usage": "estimate"}), ESTIMATE),
        (json!({"missing_usage": "maximum"}), QUOTE),
        (json!({"missing_usage": "free"}), 0),
    ] {
        let routes = with_terms(per_token(json!({})), terms.clone());
        assert_eq!(charge(&routes, &delivery(None)), amount(expected), "{terms}");
        // What is missing from a part says nothing of the whole.
        for end in [End::ClientGone, End::BackendFailed, End::Interrupted] {
            assert_eq!(
                charge(&routes, &Delivery { end, ..delivery(None) }),
                amount(ESTIMATE),
                "{terms} {end:?}"
            );
        }
        // An encoded answer cannot be read, whatever it is.
        let encoded = Delivery {
            encoded: true,
            ..delivery(None)
        };
        assert_eq!(charge(&routes, &encoded), amount(QUOTE), "{terms}");
    }
}

#[test]
fn ids_of_tokens_are_no_fewer_tokens_than_they_are() {
    let routes = metered(per_token(json!({})));
    let route = routes.by_index(0).unwrap();
    for (ids, likely) in [
        (vec!["7"; 4000].join(","), 4100),
        (format!("[{0}],[{0}]", vec!["7"; 2000].join(",")), 4100),
        // 29 bytes of fields, and 4000 × 9 - 1 of ids and commas: ⌈36028 / 4⌉ are more than 4000.
        (vec!["12345678"; 4000].join(","), 9107),
    ] {
        let body = format!("{{\"max_tokens\":10,\"prompt\":[{ids}]}}");
        let quote = quote(&routes, "/v1/completions", &body).unwrap();
        let mut left = delivery(None);
        left.metered.uncounted_text_bytes = 0;
        left.metered.stale_text_bytes = 0;
        left.end = End::ClientGone;
        let charged = quote.charge(route, 0, route.metered(Scheme::Upto).unwrap(), &left).unwrap();
        assert_eq!(charged.amount.0, u128::from(likely * 25u64).div_ceil(10), "{} bytes", body.len());
    }
}

#[test]
fn a_client_that_leaves_pays_for_what_it_got_or_the_maximum() {
    let gone = |usage| Delivery {
        end: End::ClientGone,
        ..delivery(usage)
    };
    let routes = metered(per_token(json!({})));
    assert_eq!(charge(&routes, &gone(None)), amount(ESTIMATE));
    assert_eq!(charge(&routes, &gone(used(10, 1))), amount(35));
    let routes = with_terms(per_token(json!({})), json!({"on_client_abort": "maximum"}));
    assert_eq!(charge(&routes, &gone(used(10, 1))), amount(QUOTE));
    // It left after the answer's own end: nothing was cut off.
    let mut finished = gone(used(10, 1));
    finished.metered.finished = true;
    assert_eq!(charge(&routes, &finished), amount(35));
}

#[test]
fn a_backend_that_fails_is_paid_for_what_was_delivered_or_nothing() {
    let failed = |usage| Delivery {
        end: End::BackendFailed,
        ..delivery(usage)
    };
    let routes = metered(per_token(json!({})));
    assert_eq!(charge(&routes, &failed(None)), amount(ESTIMATE));
    let mut nothing = failed(None);
    nothing.metered = Metered::default();
    assert_eq!(charge(&routes, &nothing), amount(0), "nothing came");
    let routes = with_terms(per_token(json!({})), json!({"on_backend_failure": "free"}));
    assert_eq!(charge(&routes, &failed(used(10, 1))), amount(0));
    let mut finished = failed(used(10, 1));
    finished.metered.finished = true;
    assert_eq!(charge(&routes, &finished), amount(35));
}

#[test]
fn what_envoy_ends_is_an_estimate_under_any_policy() {
    let policies = json!({"on_client_abort": "maximum", "on_backend_failure": "free", "missing_usage": "maximum"});
    let routes = with_terms(per_token(json!({})), policies);
    let cut = |usage| Delivery {
        end: End::Interrupted,
        ..delivery(usage)
    };
    assert_eq!(charge(&routes, &cut(None)), amount(ESTIMATE));
    assert_eq!(charge(&routes, &cut(used(10, 1))), amount(35));
    let mut nothing = cut(None);
    nothing.metered = Metered::default();
    assert_eq!(charge(&routes, &nothing), amount(0), "nothing came");
}

#[test]
fn the_backends_word_counts_within_the_quote() {
    let told = |amount| Delivery {
        told: Some(Atomic(amount)),
        ..delivery(used(10, 1))
    };
    for terms in [json!({}), json!({"missing_usage": "maximum", "on_client_abort": "maximum"})] {
        let routes = with_terms(per_token(json!({})), terms);
        assert_eq!(charge(&routes, &told(5)), amount(5));
        assert_eq!(charge(&routes, &told(0)), amount(0));
        assert_eq!(charge(&routes, &told(QUOTE + 1)), amount(QUOTE));
        let gone = Delivery {
            end: End::ClientGone,
            ..told(5)
        };
        assert_eq!(charge(&routes, &gone), amount(5));
    }
}

#[test]
fn minutes_are_charged_as_begun_and_fixed_prices_whole() {
    let routes = metered(json!({"per_minute": {"amount": "$0.10", "minimum": 2, "maximum": 30}}));
    for (ms, expected) in [(0, 200_000), (120_000, 200_000), (120_001, 300_000), (u64::MAX, 3_000_000)] {
        let took = Delivery {
            duration_ms: ms,
            ..delivery(None)
        };
        assert_eq!(charge(&routes, &took), amount(expected), "{ms}");
    }
    let routes = metered(json!({"per_request": "$0.01"}));
    assert_eq!(charge(&routes, &delivery(None)), amount(10_000));
}

#[test]
fn only_upto_is_metered() {
    let routes = metered(json!({"per_request": "$0.01"}));
    let route = routes.by_index(0).unwrap();
    assert!(route.metered(Scheme::Exact).is_none() && route.metered(Scheme::Upto).is_some());
}

proptest! {
    /// Whatever was delivered and however it ended: never more than the quote.
    #[test]
    fn no_charge_is_above_the_quote(
        counts in proptest::option::of(proptest::array::uniform4(any::<u64>())),
        bytes in proptest::array::uniform3(any::<u64>()),
        finished: bool,
        encoded: bool,
        end in prop_oneof![Just(End::Complete), Just(End::ClientGone), Just(End::BackendFailed), Just(End::Interrupted)],
        told in proptest::option::of(any::<u128>()),
        terms in prop_oneof![Just(json!({})), Just(json!({"missing_usage": "maximum"})), Just(json!({"on_backend_failure": "free", "missing_usage": "free"})), Just(json!({"on_client_abort": "maximum"}))],
    ) {
        let delivery = Delivery {
            metered: Metered {
                usage: counts.map(|[input, cached_input, output, reasoning]| Usage { input, cached_input, output, reasoning }),
                delivered_bytes: bytes[0],
                delivered_text_bytes: bytes[1],
                uncounted_text_bytes: bytes[2],
                stale_text_bytes: bytes[2],
                finished,
            },
            encoded,
            end,
            duration_ms: bytes[0],
            told: told.map(Atomic),
        };
        for price in [per_token(json!({})), json!({"per_minute": {"amount": "$0.10", "minimum": 1, "maximum": 30}})] {
            let routes = with_terms(price, terms.clone());
            let quoted = quote(&routes, CHAT, "{\"messages\":[],\"max_tokens\":9}").unwrap();
            let route = routes.by_index(0).unwrap();
            let charged = quoted.charge(route, 0, route.metered(Scheme::Upto).unwrap(), &delivery).unwrap();
            prop_assert!(charged.amount <= quoted.amount(route, 0).unwrap());
        }
    }
}
