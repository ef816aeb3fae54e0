//! Whole configurations: what is accepted, what is refused and how that is said.

use super::*;
use crate::pricing::{Flow, Place, RequestFacts, Scheme, Selection, Transfer};
use proptest::prelude::*;
use serde_json::{Value, json};

const PAY_TO: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

fn minimal() -> Value {
    json!({
        "pay_to": {"eip155": PAY_TO},
        "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "USDC"}],
        "facilitators": [{"cluster": "f", "url": "https://x402.org/facilitator"}],
        "unmatched": "pass",
        "routes": [{"name": "report", "match": {"path": "/v1/reports/*"}, "price": {"per_request": "$0.01"}}],
    })
}

/// `minimal` with some places set to other values.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut value = minimal();
    for (pointer, new) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match value.pointer_mut(parent).unwrap() {
            Value::Object(map) => {
                map.insert(key.to_owned(), new.clone());
            }
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = new.clone(),
            _ => panic!("{pointer}"),
        }
    }
    value
}

fn read(value: &Value) -> Result<Config, Vec<ConfigError>> {
    parse(value.to_string().as_bytes())
}

fn mistakes(value: &Value) -> Vec<String> {
    read(value).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn the_smallest_useful_configuration() {
    let config = read(&minimal()).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let route = config.routes.by_index(0).unwrap();
    let offer = &route.offers[0];
    assert_eq!(offer.amount.0, 10_000);
    assert_eq!(offer.max_timeout_seconds, 300);
    assert_eq!(offer.transfer, Transfer::Eip3009);
    assert_eq!(offer.facilitators, [0]);
    assert_eq!(&*offer.asset.address, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
    // Base USDC's DOMAIN_SEPARATOR().
    assert_eq!(
        hex::encode(offer.domain_separator),
        "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f"
    );
    let place = Place {
        method: b"GET",
        authority: b"h",
        path: b"/v1/reports/1",
        envoy_route: None,
        is_cors_preflight: false,
    };
    let request = RequestFacts {
        place,
        headers: &[],
        body: None,
    };
    assert_eq!(config.routes.select(&request), Selection::Priced(0));
}

#[test]
fn every_field_is_read() {
    let config = read(&json!({
        "pay_to": {"eip155": PAY_TO, "solana": "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU"},
        "accept": [
            {"scheme": "exact", "network": "eip155:8453", "asset": "USDC", "transfer": "permit2", "max_timeout": "1m"},
            {"scheme": "upto", "network": "eip155:31337", "asset": "TUSD"},
            {"scheme": "exact", "network": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "asset": "USDC"},
        ],
        "assets": [{"symbol": "TUSD", "network": "eip155:31337", "address": "0x5425890298aed601595a70ab815c96711a31bc65",
            "decimals": 18.0, "currency": "usd", "transfer": "eip3009", "eip712": {"name": "Test USD", "version": "1"}}],
        "facilitators": [{"cluster": "f", "url": "http://f:1/x", "networks": ["eip155:*"]}, {"cluster": "g", "url": "http://g"}],
        "quote_grace": "2m",
        "pre_check": {"clock_skew": "6s", "max_validity": "30m", "smart_wallets": {"eoa_sized": "facilitator", "other": "refuse"}},
        "public_url": "https://api.example.com/",
        "unmatched": "deny",
        "routes": [
            {"name": "a", "match": {"methods": ["get", "POST"], "host": "*.example.com", "path": "*/chat", "headers": {"X-Tier": "a*"},
                "route": "r", "model": "gpt*", "case_sensitive": true}, "price": {"per_request": {"usd": "0.0000011"}},
                "description": "Chät", "mime_type": "application/json"},
            {"name": "b", "match": {"path": "/e"}, "price": {"per_request": {"eur": "0.5"}},
                "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "EURC", "pay_to": "0x036CbD53842c5426634e7929541eC2318f3dCF7e"}]},
            {"name": "c", "price": "free"},
        ],
        "access": {"dummy_api_keys": ["x402"]},
        "replay": {"max_claims": 2000},
        "challenge": {"v1": false, "plain_headers": false, "body": "openai"},
    }))
    .unwrap();
    let route = config.routes.by_index(0).unwrap();
    let amounts: Vec<u128> = route.offers.iter().map(|offer| offer.amount.0).collect();
    assert_eq!(amounts, [2, 1_100_000_000_000, 2]);
    let transfers: Vec<&Transfer> = route.offers.iter().map(|offer| &offer.transfer).collect();
    assert_eq!(transfers, [&Transfer::Permit2, &Transfer::Permit2, &Transfer::Solana]);
    assert_eq!(route.offers[1].scheme, Scheme::Upto);
    assert_eq!(route.offers[2].facilitators, [1]);
    assert_eq!(config.public_url.as_deref(), Some("https://api.example.com"));
    assert_eq!(
        (config.max_claims, config.pre_check.max_validity, config.quote_grace),
        (2000, 1800, 120)
    );
    assert_eq!(&*config.routes.by_index(1).unwrap().offers[0].asset.currency, "eur");
}

#[test]
fn each_mistake_is_named_where_it_is() {
    for (pointer, value, words) in [
        (
            "/quote_grace",
            json!("1.5s"),
            "quote_grace: found \"1.5s\", expected a duration of whole seconds such as \"5s\", \"10m\" or \"1h\", from 0s to 3600s",
        ),
        ("/unmatched", json!("maybe"), "unmatched: found \"maybe\", expected pass or deny"),
        (
            "/routes/0/price/per_request",
            json!("0.01x"),
            "routes[0].price.per_request: found \"0.01x\", expected a decimal amount such as \"$0.01\"",
        ),
        (
            "/routes/0/prize",
            json!(1),
            "routes[0].prize: found an unknown field, expected \"price\", if that is what was meant",
        ),
        (
            "/routes/0/flow",
            json!("metered"),
            "routes[0].flow: found metered on a route without an offer that can be metered, expected an offer of scheme upto",
        ),
        (
            "/routes/0/flow",
            json!("later"),
            "routes[0].flow: found \"later\", expected authorization or upfront or metered",
        ),
        (
            "/routes/0/metered",
            json!({}),
            "routes[0].metered: found terms of metering on a route that is not metered, expected flow: metered beside it",
        ),
        ("/routes/0/name", json!("a b"), "routes[0].name"),
        ("/routes/0/match/path", json!("v1"), "routes[0].match.path"),
        ("/routes/0/match/path", json!("/a%2fb"), "can be read in one way only"),
        ("/routes/0/match/host", json!("http://x"), "routes[0].match.host"),
        ("/routes/0/match/methods", json!([]), "routes[0].match.methods"),
        ("/routes/0/description", json!("a\nb"), "routes[0].description"),
        ("/routes", json!([]), "at least one route"),
        ("/accept", json!([]), "at least one offer"),
        ("/accept/0/network", json!("base"), "its CAIP-2 identifier, \"eip155:8453\""),
        (
            "/accept/0/network",
            json!("eip155:56"),
            "a token of eip155:56 that is described in assets",
        ),
        (
            "/accept/0/asset",
            json!("USDT"),
            "accept[0].asset: found \"USDT\", expected one of USDC, EURC",
        ),
        (
            "/accept/0/asset",
            json!("EURC"),
            "found no price in eur, expected one, such as {eur: \"0.01\"}, because accept[0] takes EURC",
        ),
        ("/accept/0/transfer", json!("permit"), "accept[0].spender: found nothing"),
        ("/accept/0/scheme", json!("upto"), ""),
        ("/accept/0/max_timeout", json!("2h"), "accept[0].max_timeout: found \"2h\""),
        ("/accept/0/spender", json!(PAY_TO), "no spender"),
        ("/pay_to", json!({}), "accept[0].pay_to: found nothing"),
        (
            "/facilitators/0/networks",
            json!(["solana:*"]),
            "accept[0].network: found \"eip155:8453\", expected a network that at least one",
        ),
        ("/facilitators", json!([]), "accept[0].network"),
    ] {
        let changed = with(&[(pointer, value)]);
        if words.is_empty() {
            assert!(read(&changed).is_ok(), "{pointer}");
            continue;
        }
        let mistakes = mistakes(&changed);
        assert_eq!(mistakes.len(), 1, "{pointer}: {mistakes:?}");
        assert!(mistakes[0].contains(words), "{mistakes:?}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let value = with(&[
        ("/unmatched", json!(1)),
        ("/routes/0/name", json!("")),
        ("/accept/0/scheme", json!("x")),
        ("/zzz", json!(1)),
    ]);
    assert_eq!(mistakes(&value).len(), 4, "{:?}", mistakes(&value));
    assert!(parse(b"{").is_err());
    assert!(parse(b"[]").is_err());
    assert_eq!(mistakes(&json!({})).len(), 2);
}

#[test]
fn a_permit_offer_wants_a_route_of_its_own() {
    let permit = json!({"scheme": "upto", "network": "eip155:8453", "asset": "USDC", "transfer": "permit", "spender": PAY_TO});
    let exact = json!({"scheme": "exact", "network": "eip155:8453", "asset": "USDC"});
    assert!(read(&with(&[("/accept", json!([permit]))])).is_ok());
    let both = with(&[("/accept", json!([permit, exact]))]);
    assert!(mistakes(&both)[0].contains("a route of its own"));
    let without_v1 = with(&[("/accept", json!([permit])), ("/challenge", json!({"v1": false}))]);
    assert!(mistakes(&without_v1)[0].contains("challenge.v1"));
    let twice = with(&[("/accept", json!([exact, exact]))]);
    assert!(mistakes(&twice)[0].contains("the same offer as accept[0]"));
}

/// A metered route of a cent per request, with these terms.
fn metered(terms: Value) -> Value {
    let upto = json!({"scheme": "upto", "network": "eip155:8453", "asset": "USDC"});
    with(&[
        ("/accept", json!([upto])),
        ("/routes/0/flow", json!("metered")),
        ("/routes/0/metered", terms),
    ])
}

#[test]
fn trust_is_limited_in_each_currency_that_is_metered() {
    let terms = |value: &Value| match read(value).unwrap().routes.by_index(0).unwrap().flow.clone() {
        Flow::Metered(terms) => *terms,
        Flow::Authorization | Flow::Upfront => panic!("not metered"),
    };
    let both = terms(&metered(
        json!({"exposure": {"payer": "$1", "total": {"usd": "100.0000001"}}, "ban": "0s"}),
    ));
    let limits = both.limits("usd").unwrap();
    assert_eq!(
        (limits.payer, limits.total, both.ban_seconds),
        (Some(1_000_000), Some(100_000_001), 0)
    );
    let one = terms(&metered(json!({"exposure": {"total": "$5"}})));
    assert_eq!(
        (one.limits("usd").unwrap().payer, one.limits("eur"), one.ban_seconds),
        (None, None, 3600)
    );
    for (value, words) in [
        (
            json!({"exposure": {}}),
            "routes[0].metered.exposure: found an object, expected payer, total or both",
        ),
        (
            json!({"exposure": {"payer": "$18446744073709.551616"}}),
            "routes[0].metered.exposure.payer: found more than can be counted in millionths, expected a smaller amount",
        ),
        (
            json!({"exposure": {"total": "$340282366920938463463374607431768"}}),
            "routes[0].metered.exposure.total: found more than can be counted in millionths, expected a smaller amount",
        ),
        (json!({"exposure": {"payer": "0"}}), "routes[0].metered.exposure.payer: found \"0\""),
        (
            json!({"exposure": {"payer": {"eur": "1"}}}),
            "routes[0].metered.exposure.payer: found no price in usd",
        ),
        (
            json!({"ban": "31d"}),
            "routes[0].metered.ban: found \"31d\", expected a duration of whole seconds",
        ),
    ] {
        let mistakes = mistakes(&metered(value));
        assert!(mistakes.iter().any(|mistake| mistake.contains(words)), "{mistakes:?}");
    }
    let warnings = |value: Value| read(&metered(value)).unwrap().warnings.join(" ");
    assert!(warnings(json!({})).contains("without metered.exposure.payer"));
    assert!(warnings(json!({"exposure": {"total": "$1"}})).contains("without metered.exposure.payer"));
    assert!(warnings(json!({"exposure": {"payer": "$0.009"}})).contains("its dearest requests cost more"));
    assert!(!warnings(json!({"exposure": {"payer": "$0.01"}})).contains("metered.exposure"));
}

#[test]
fn a_metered_answer_fits_the_payments_that_pay_for_it() {
    let timely = |max_timeout: &str, price: Value| {
        let upto = json!({"scheme": "upto", "network": "eip155:8453", "asset": "USDC", "max_timeout": max_timeout});
        with(&[
            ("/accept", json!([upto])),
            ("/routes/0/flow", json!("metered")),
            ("/routes/0/price", price),
        ])
    };
    let minutes = |maximum: u64| json!({"per_minute": {"amount": "$0.01", "minimum": 1, "maximum": maximum}});
    for (max_timeout, price, words) in [
        (
            "119s",
            json!({"per_request": "$0.01"}),
            "accept[0].max_timeout: found 119 s for an answer that is metered, expected at least 120 s",
        ),
        (
            "300s",
            minutes(5),
            "routes[0].price.per_minute.maximum: found minutes beyond the end of the payments",
        ),
    ] {
        assert!(mistakes(&timely(max_timeout, price))[0].contains(words));
    }
    assert!(read(&timely("120s", json!({"per_request": "$0.01"}))).is_ok());
    assert!(read(&timely("300s", minutes(3))).is_ok());
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let warnings = |changes: &[(&str, Value)]| read(&with(changes)).unwrap().warnings;
    assert!(warnings(&[("/routes/0/price/per_request", json!("$2"))])[0].contains("$1"));
    assert!(warnings(&[("/routes/0/price/per_request", json!("$0.2"))])[0].contains("0.10 USDC"));
    assert!(warnings(&[("/public_url", json!("http://h"))])[0].contains("http"));
    assert!(warnings(&[("/routes/0/description", json!("x".repeat(500)))]).is_empty());
    let shadowed = json!([
        {"name": "all", "price": "free"},
        {"name": "one", "match": {"path": "/x"}, "price": {"per_request": "$0.01"}},
    ]);
    assert!(warnings(&[("/routes", shadowed)])[0].contains("route one never gets a request: route all"));
    let euro = warnings(&[
        ("/accept/0/asset", json!("EURC")),
        ("/routes/0/price/per_request", json!({"eur": "0.01"})),
    ]);
    assert!(euro[0].contains("EURC"));
}

#[test]
fn ten_thousand_routes_are_no_trouble() {
    let route =
        |index: usize| json!({"name": format!("r{index}"), "match": {"path": format!("/v1/{index}")}, "price": {"per_request": "$0.01"}});
    let routes: Vec<Value> = (0..10_000).map(route).collect();
    let config = read(&with(&[("/routes", json!(routes))])).unwrap();
    assert_eq!(config.routes.len(), 10_000);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    /// Any value of a wrong kind at any place is an error or accepted, never a panic.
    #[test]
    fn no_value_anywhere_makes_it_panic(place in 0usize..20, kind in 0usize..9) {
        let places = ["/pay_to", "/pay_to/eip155", "/accept", "/accept/0", "/accept/0/network", "/accept/0/asset", "/accept/0/transfer",
            "/assets", "/facilitators", "/facilitators/0/url", "/facilitators/0/headers", "/routes", "/routes/0", "/routes/0/match",
            "/routes/0/match/path", "/routes/0/price", "/access", "/pre_check", "/challenge", "/public_url"];
        let values = [json!(null), json!(true), json!(-1.5), json!(1e300), json!(""), json!("\u{0}é*"), json!([]), json!([[{}]]), json!({"": null})];
        let _ = read(&with(&[(places[place], values[kind].clone())]));
    }
}
