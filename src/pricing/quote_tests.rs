//! Quotes, from configuration and body to smallest units, against amounts computed by hand.

use crate::metering::Usage;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::parse;
use crate::reader::{self, BodyFacts, Facts, Rewrite, Why};

/// A route at `/v1/chat/completions` that takes USDC (6 decimals) and a token of 18.
pub(super) fn routes(price: Value) -> Routes {
    routes_with(json!({"price": price}))
}

/// The same with other fields of the route.
pub(super) fn routes_with(fields: Value) -> Routes {
    let mut route = json!({"name": "x", "match": {"path": "/v1/*"}});
    route.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let config = json!({
        "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
        "accept": [
            {"scheme": "exact", "network": "eip155:8453", "asset": "USDC"},
            {"scheme": "exact", "network": "eip155:8453", "asset": "FINE"},
        ],
        "assets": [{"symbol": "FINE", "network": "eip155:8453", "address": "0x90F79bf6EB2c4f870365E785982E1f101E93b906", "decimals": 18,
            "currency": "usd", "transfer": "eip3009", "eip712": {"name": "Fine", "version": "1"}}],
        "facilitators": [{"cluster": "facilitator", "url": "https://x402.org/facilitator"}],
        "unmatched": "deny",
        "routes": [route],
    });
    parse(config.to_string().as_bytes())
        .unwrap_or_else(|errors| panic!("{errors:?}"))
        .routes
}

pub(super) fn request<'a>(path: &'a str, headers: &'a [(&'a [u8], &'a [u8])], body: Option<&'a BodyFacts>) -> RequestFacts<'a> {
    let place = Place {
        method: b"POST",
        authority: b"api.example.com",
        path: path.as_bytes(),
        envoy_route: None,
        is_cors_preflight: false,
    };
    RequestFacts { place, headers, body }
}

pub(super) const CHAT: &str = "/v1/chat/completions";

pub(super) fn read(routes: &Routes, path: &str, body: &str) -> Reading {
    let mut reading = routes.read(None, &request(path, &[], None), body.as_bytes(), None, None, false);
    // The gate has only what survives the way to it.
    reading.facts = reader::decode(&reader::encode(&reading.facts)).unwrap();
    reading
}

pub(super) fn quote(routes: &Routes, path: &str, body: &str) -> Result<Quote, QuoteRefusal> {
    let facts = read(routes, path, body).facts;
    routes.quote(0, &request(path, &[], Some(&facts)))
}

pub(super) fn amounts(routes: &Routes, path: &str, body: &str) -> Result<[u128; 2], QuoteRefusal> {
    let quote = quote(routes, path, body)?;
    let offers = quote.offers(routes.by_index(0).unwrap()).into_owned();
    Ok([offers[0].amount.0, offers[1].amount.0])
}

/// A chat of exactly so many bytes.
fn chat(size: usize, fields: &str) -> String {
    let bare = format!(r#"{{{fields}"messages":[{{"role":"user","content":""}}]}}"#);
    let body = bare.replace("\"\"", &format!("\"{}\"", "a".repeat(size - bare.len())));
    assert_eq!(body.len(), size);
    body
}

pub(super) fn per_token(more: Value) -> Value {
    let mut price = json!({"input": "$0.0000025", "output": "$0.00001", "max_output": 4096});
    price.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"per_token": price})
}

#[test]
fn tokens_cost_what_was_computed_by_hand() {
    const FINE: u128 = 1_000_000_000_000;
    for (price, body, usdc, fine) in [
        // 1100 × 2.5 + 100 × 10
        (json!({}), chat(1000, r#""max_tokens":100,"#), 3750, 3750 * FINE),
        // 1100 × 2.5 + 4096 × 10
        (json!({}), chat(1000, ""), 43_710, 43_710 * FINE),
        (json!({}), chat(1000, r#""max_tokens":9999,"#), 43_710, 43_710 * FINE),
        // 1100 × 2.5 + 3 × 100 × 10
        (json!({}), chat(1000, r#""max_tokens":100,"n":3,"#), 5750, 5750 * FINE),
        (
            json!({}),
            chat(1000, r#""max_tokens":7,"max_completion_tokens":50,"#),
            3250,
            3250 * FINE,
        ),
        // 1101 × 2.5 + 10 = 2762.5
        (json!({}), chat(1001, r#""max_tokens":1,"#), 2763, 2_762_500_000_000_000),
        // ⌈1001 / 4⌉ × 2.5 + 10 = 637.5
        (
            json!({"input_estimate": {"bytes_per_token": 4, "overhead": 0}}),
            chat(1001, r#""max_tokens":1,"#),
            638,
            637_500_000_000_000,
        ),
        // ⌈1000 / 3.5⌉ = 286: 715 + 10
        (
            json!({"input_estimate": {"bytes_per_token": "3.5", "overhead": 0}}),
            chat(1000, r#""max_tokens":1,"#),
            725,
            725 * FINE,
        ),
        // Reasoning may be all of the output: 2750 + 100 × 20
        (
            json!({"reasoning": "$0.00002"}),
            chat(1000, r#""max_tokens":100,"#),
            4750,
            4750 * FINE,
        ),
        // A cheaper rate does not lower the maximum.
        (
            json!({"cached_input": "$0.000001"}),
            chat(1000, r#""max_tokens":100,"#),
            3750,
            3750 * FINE,
        ),
        // 500 × 2.5 + 100 × 10
        (json!({"max_input": 500}), chat(1000, r#""max_tokens":100,"#), 2250, 2250 * FINE),
        (
            json!({"max_input": 500}),
            chat(1000, r#""max_tokens":100,"images":["x"],"#),
            2250,
            2250 * FINE,
        ),
        // 2750, and 100 × 0.0000001 dollars are 10 millionths
        (
            json!({"output": "0.0000001"}),
            chat(1000, r#""max_tokens":100,"#),
            2760,
            2760 * FINE,
        ),
    ] {
        let routes = routes(per_token(price.clone()));
        assert_eq!(amounts(&routes, CHAT, &body), Ok([usdc, fine]), "{price} {body}");
    }
}

#[test]
fn each_protocol_is_bounded_in_its_own_words() {
    let routes = routes(per_token(json!({"input": "0", "input_estimate": {"overhead": 0}})));
    for (path, body, usdc) in [
        ("/v1/completions", r#"{"prompt":["a","b"],"max_tokens":5,"n":2}"#, 200),
        ("/v1/completions", r#"{"prompt":"a","max_tokens":5,"best_of":4,"n":2}"#, 200),
        ("/v1/responses", r#"{"input":"a","max_output_tokens":5}"#, 50),
        ("/v1/responses?x=/embeddings", r#"{"input":"a","max_tokens":5}"#, 40_960),
        ("/v1/messages", r#"{"messages":[],"max_tokens":5}"#, 50),
        ("/v1/embeddings", r#"{"input":"a"}"#, 1),
        ("/v1/embeddings", r#"{"input":"a","messages":[]}"#, 40_960),
        ("/v1/embeddings", r#"{"input":"a","messages":[],"max_tokens":5}"#, 50),
        ("/v1/embeddings", r#"{"prompt":["a","b"],"max_tokens":5}"#, 100),
        ("/v1/embeddings", r#"{"input":"a","max_tokens":5}"#, 50),
    ] {
        assert_eq!(amounts(&routes, path, body).map(|amounts| amounts[0]), Ok(usdc), "{path} {body}");
    }
}

#[test]
fn the_most_specific_model_counts() {
    let table = |input: &str| json!({"input": input, "output": "0"});
    let mut price = json!({"max_output": 1, "input_estimate": {"bytes_per_token": 1000, "overhead": 0}, "models": {
        "*": table("$0.000001"), "gpt-4o*": table("$0.000002"), "gpt-4o": table("$0.000003"), "gpt-*": table("$0.000004"), "gpt-4o*i": table("$0.000005"),
    }});
    let of = |price: &Value, model: &str| {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        amounts(&routes(json!({ "per_token": price })), CHAT, &body).map(|amounts| amounts[0])
    };
    for (model, usdc) in [("gpt-4o", 3), ("gpt-4o-2024", 2), ("gpt-4o-mini", 5), ("gpt-3.5", 4), ("llama", 1)] {
        assert_eq!(of(&price, model), Ok(usdc), "{model}");
    }
    price["models"].as_object_mut().unwrap().remove("*");
    assert_eq!(of(&price, "llama"), Err(QuoteRefusal::UnknownModel));
    price["default"] = table("$0.000009");
    assert_eq!(of(&price, "llama"), Ok(9));
    assert_eq!(
        amounts(&routes(json!({ "per_token": price })), CHAT, r#"{"messages":[]}"#).map(|amounts| amounts[0]),
        Ok(9)
    );
}

#[test]
fn what_cannot_be_quoted_is_refused_and_never_free() {
    let routes = routes(per_token(json!({})));
    let refused = |body: Option<&BodyFacts>| routes.quote(0, &request(CHAT, &[], body)).unwrap_err();
    assert_eq!(refused(None), QuoteRefusal::NeedsBody);
    assert_eq!(refused(Some(&BodyFacts::None)), QuoteRefusal::NoBody);
    assert_eq!(refused(Some(&BodyFacts::Json(Facts::default()))), QuoteRefusal::FactsMissing);
    for (body, refusal) in [
        (r#"{"messages":[],"previous_response_id":"r"}"#, QuoteRefusal::ExternalInput),
        (r#"{"messages":[],"max_tokens":-1}"#, QuoteRefusal::Unreadable),
        (r#"{"messages":[{"a":1,"a":2}]}"#, QuoteRefusal::Unreadable),
        (r#"{"messages":[],"max_tokens":1,"n_predict":9}"#, QuoteRefusal::Unreadable),
        (
            r#"{"messages":[],"stream_options":{"Include_Usage":false}}"#,
            QuoteRefusal::Unreadable,
        ),
        (
            r#"{"messages":[],"stream_options":{"include_usage":true,"include_usage":false}}"#,
            QuoteRefusal::Unreadable,
        ),
        ("{", QuoteRefusal::Unreadable),
    ] {
        assert_eq!(quote(&routes, CHAT, body).unwrap_err(), refusal, "{body}");
    }
    assert!(routes.use_body() && routes.needs_body(&request(CHAT, &[], None).place, &[]));
}

#[test]
fn what_is_not_priced_is_refused_where_tokens_are_priced_only() {
    let body = r#"{"messages":[],"max_tokens":1,"Background":1}"#;
    let refused = |price| match read(&routes(price), CHAT, body).facts {
        BodyFacts::Unreadable(Why::Unpriced(key)) => Some(key.detail()),
        _ => None,
    };
    assert_eq!(
        refused(per_token(json!({}))),
        Some("the body's background is not priced here: leave it out")
    );
    assert_eq!(refused(json!({"per_request": "$0.01"})), None);
    let dynamic = json!({"dynamic": {"base": "$0.01", "multipliers": [{"when": "has(body.max_tokens)", "times": 2}]}});
    assert_eq!(refused(dynamic), None);
}

#[test]
fn used_tokens_are_settled_to_the_unit() {
    let routes = routes(per_token(json!({"cached_input": "$0.00000125", "reasoning": "$0.00002"})));
    let route = routes.by_index(0).unwrap();
    let quote = quote(&routes, CHAT, &chat(1000, r#""max_tokens":100,"#)).unwrap();
    let settled = |input, cached_input, output, reasoning| {
        let usage = Usage {
            input,
            cached_input,
            output,
            reasoning,
        };
        (
            quote.settle_tokens(route, 0, &usage).unwrap().0,
            quote.exceeded_by(route, 0, &usage),
        )
    };
    // 10 × 2.5 + 5 × 1.25 + 5 × 10 + 2 × 20 = 121.25
    assert_eq!(settled(15, 5, 7, 2), (122, false));
    assert_eq!(settled(1, 0, 0, 0), (3, false));
    assert_eq!(settled(0, 0, 0, 0), (0, false));
    // More cached than there are: all of them are.
    assert_eq!(settled(4, 9, 0, 0), (5, false));
    assert_eq!(settled(1100, 0, 100, 100), (4750, false));
    assert_eq!(settled(1100, 0, 101, 101), (4750, true));
    assert_eq!(settled(u64::MAX, 0, u64::MAX, 0), (4750, true));
    assert_eq!(quote.settle_tokens(route, 2, &Usage::default()), None);
    assert_eq!(quote.settle_minutes(route, 0, 1), Some(Atomic(4750)));
}

#[test]
fn a_price_per_request_borrows_its_offers() {
    let routes = routes(json!({"per_request": "$0.01"}));
    let quote = routes.quote(0, &request(CHAT, &[], None)).unwrap();
    let route = routes.by_index(0).unwrap();
    assert!(matches!(quote.offers(route), std::borrow::Cow::Borrowed(_)));
    assert_eq!((quote.amount(route, 0), quote.basis()), (Some(Atomic(10_000)), &Basis::Fixed));
    assert_eq!(read(&routes, CHAT, r#"{"messages":[]}"#).rewrite, Rewrite::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `units` are ten-millionths of a dollar: tenths of the smallest unit of USDC.
    #[test]
    fn settled_is_exact_and_within_the_quote(
        units in proptest::array::uniform4(0u64..100_000),
        size in 80usize..5000,
        limit in 1u64..5000,
        more in 0u64..100,
        shares in proptest::array::uniform4(0u64..=100),
    ) {
        let dollars = |units: u64| format!("{}.{:07}", units / 10_000_000, units % 10_000_000);
        prop_assume!(units.iter().any(|units| *units > 0));
        let routes = routes(json!({"per_token": {"input": dollars(units[0]), "cached_input": dollars(units[1]), "output": dollars(units[2]),
            "reasoning": dollars(units[3]), "max_output": 4096}}));
        let route = routes.by_index(0).unwrap();
        let quoted = quote(&routes, CHAT, &chat(size, &format!("\"max_tokens\":{limit},"))).unwrap();
        // A quote never falls when tokens rise.
        let larger = quote(&routes, CHAT, &chat(size + more as usize, &format!("\"max_tokens\":{},", limit + more))).unwrap();
        prop_assert!(larger.amount(route, 0) >= quoted.amount(route, 0));
        let Basis::Tokens(bounds) = quoted.basis() else { panic!() };
        let (input, output) = (bounds.input * shares[0] / 100, bounds.output * shares[1] / 100);
        let usage = Usage { input, cached_input: input * shares[2] / 100, output, reasoning: output * shares[3] / 100 };
        // Within its bounds no usage is capped, and what is settled is the exact cost, rounded up.
        prop_assert!(!quoted.exceeded_by(route, 0, &usage));
        let counts = [usage.input - usage.cached_input, usage.cached_input, usage.output - usage.reasoning, usage.reasoning];
        let exact: u64 = counts.iter().zip(units).map(|(count, units)| count * units).sum();
        prop_assert_eq!(quoted.settle_tokens(route, 0, &usage), Some(Atomic(u128::from(exact.div_ceil(10)))));
        prop_assert!(quoted.settle_tokens(route, 0, &usage) <= quoted.amount(route, 0));
    }

    #[test]
    fn the_same_request_is_quoted_the_same(fields in "(\"(max_tokens|n|stream|model|prompt|n_predict|mock_x|service_tier|background)\":(1|2|true|false|null|\"x\"),){0,3}") {
        let routes = routes(per_token(json!({})));
        let body = format!("{{{fields}\"messages\":[]}}");
        prop_assert_eq!(quote(&routes, CHAT, &body), quote(&routes, CHAT, &body));
    }
}
