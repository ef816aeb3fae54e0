//! Which prices are read, and what is said of those that are not.

use serde_json::{Value, json};

use super::fields::{Errors, Node};
use super::parse;
use super::price::read;

fn mistakes(value: &Value) -> Vec<String> {
    let mut errors = Errors::default();
    read(&Node::root(value), &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

fn config(price: &Value) -> Value {
    json!({
        "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
        "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "USDC"}],
        "facilitators": [{"cluster": "facilitator", "url": "https://x402.org/facilitator"}],
        "unmatched": "deny",
        "routes": [{"name": "x", "match": {"path": "/x"}, "price": price}],
    })
}

fn whole_mistakes(config: &Value) -> Vec<String> {
    let errors = parse(config.to_string().as_bytes()).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn prices_are_read() {
    for value in [
        json!("free"),
        json!({"per_request": "$0.01"}),
        json!({"per_request": "0.01"}),
        json!({"per_request": {"usd": "$1", "eur": "0.9"}}),
        json!({"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}),
        json!({"per_token": {"input": "$0.0000025", "output": "0", "cached_input": "0", "reasoning": "$0.1", "max_output": 4096.0, "max_input": 10.0}}),
        json!({"per_token": {"input": {"usd": "1"}, "output": "1", "max_output": 0, "input_estimate": {"bytes_per_token": "3.5", "overhead": 0}}}),
        json!({"per_token": {"models": {"gpt-4o*": {"input": "1", "output": "2"}}, "default": {"input": "1", "output": "2"}, "max_output": 1}}),
        json!({"per_minute": {"amount": "$0.10", "minimum": 1.0, "maximum": 30}}),
        json!({"per_minute": {"amount": "$0.10", "maximum": 30}}),
        json!({"dynamic": {"base": "$0.01", "multipliers": [{"when": "query_length > 1000", "times": 2.0}, {"when": "requires_browser", "times": 1.5}]}}),
        json!({"dynamic": {"base": "$0.01", "multipliers": [{"when": "true", "times": "0.125"}]}}),
    ] {
        assert_eq!(mistakes(&value), Vec::<String>::new(), "{value}");
        assert_eq!(whole_mistakes(&config(&value)), Vec::<String>::new(), "{value}");
    }
}

#[test]
fn what_is_no_price_is_explained() {
    for (value, words) in [
        (
            json!({"per_request": "0.01x"}),
            "found \"0.01x\", expected a decimal amount such as \"$0.01\"",
        ),
        (json!({"per_request": 0.01}), "in quotes"),
        (json!({"per_request": "0"}), "price: free"),
        (json!({"per_request": {"eur": "$1"}}), "per_request.eur"),
        (json!({"per_request": {"EUR": "1"}}), "lower case"),
        (json!({"per_request": {}}), "amounts by currency"),
        (json!({}), "free, or"),
        (json!("gratis"), "free, or"),
        (json!(1), "free, or"),
        (json!({"per_request": "1", "dynamic": {}}), "dynamic: found a second kind of price"),
        (
            json!({"per_token": {"input": "1", "output": "1"}}),
            "per_token.max_output: found nothing",
        ),
        (
            json!({"per_token": {"input": "1", "max_output": 1}}),
            "per_token.output: found nothing",
        ),
        (
            json!({"per_token": {"input": "0", "output": "0", "max_output": 1}}),
            "no amount above zero",
        ),
        (
            json!({"per_token": {"input": "1", "output": "1", "max_output": 1.5}}),
            "per_token.max_output: found 1.5",
        ),
        (
            json!({"per_token": {"input": "1", "models": {"a": {"input": "1", "output": "1"}}, "max_output": 1}}),
            "per_token.input: found an amount beside models",
        ),
        (
            json!({"per_token": {"input": "1", "output": "1", "default": {"input": "1", "output": "1"}, "max_output": 1}}),
            "per_token.default: found a default without models",
        ),
        (json!({"per_token": {"models": {}, "max_output": 1}}), "at least one model"),
        (
            json!({"per_token": {"models": {"a": {"input": "1"}}, "max_output": 1}}),
            "per_token.models.a.output",
        ),
        (
            json!({"per_token": {"input": "1", "output": "1", "max_output": 1, "input_estimate": {"bytes_per_token": 0}}}),
            "input_estimate.bytes_per_token: found 0",
        ),
        (json!({"per_minute": {"amount": "1"}}), "per_minute.maximum: found nothing"),
        (
            json!({"per_minute": {"amount": "1", "minimum": 9, "maximum": 3}}),
            "minimum: found 9, expected a whole number from 0 to 3",
        ),
        (json!({"dynamic": {"base": "1"}}), "dynamic.multipliers: found nothing"),
        (
            json!({"dynamic": {"base": "1", "multipliers": [{"when": "query_lenght > 1", "times": 2}]}}),
            "dynamic.multipliers[0].when: found column 1: nothing is called `query_lenght`",
        ),
        (
            json!({"dynamic": {"base": "1", "multipliers": [{"when": "true", "times": 0}]}}),
            "multipliers[0].times: found 0",
        ),
        (
            json!({"dynamic": {"base": "1", "multipliers": [{"when": "true", "times": -1.5}]}}),
            "multipliers[0].times: found -1.5",
        ),
        (
            json!({"dynamic": {"base": "1", "multipliers": [{"when": "1"  , "times": 1}]}}),
            "a number, not a boolean",
        ),
    ] {
        let mistakes = mistakes(&value);
        assert_eq!(mistakes.len(), 1, "{value}: {mistakes:?}");
        assert!(mistakes[0].contains(words), "{mistakes:?}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let value = json!({"per_token": {"output": 1, "max_output": -1, "maxinput": 3, "input_estimate": {"overhead": "x"}}});
    let mistakes = mistakes(&value);
    assert_eq!(mistakes.len(), 5, "{mistakes:#?}");
    let value = json!({"dynamic": {"base": 1, "multipliers": [{"when": "a", "times": "b"}, {"when": 1}]}});
    assert_eq!(self::mistakes(&value).len(), 5);
}

#[test]
fn a_currency_that_an_offer_needs_has_to_be_priced() {
    let euro = json!({"input": {"eur": "1"}, "output": "1", "max_output": 1});
    let mistakes = whole_mistakes(&config(&json!({"per_token": euro})));
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(
        mistakes[0].starts_with("routes[0].price.per_token.input: found no price in usd"),
        "{mistakes:?}"
    );
}

#[test]
fn what_cannot_be_computed_is_refused_with_the_configuration() {
    let huge = format!("1{}", "0".repeat(30));
    let times: Vec<Value> = (0..32).map(|_| json!({"when": "true", "times": "10"})).collect();
    let fine = format!("0.{}1", "0".repeat(50));
    for price in [
        json!({"per_token": {"input": huge, "output": "1", "max_output": 1}}),
        json!({"per_token": {"input": fine, "output": "1", "max_output": 1}}),
        json!({"per_minute": {"amount": format!("1{}", "0".repeat(32)), "maximum": 10}}),
        json!({"dynamic": {"base": "10", "multipliers": times}}),
    ] {
        let mistakes = whole_mistakes(&config(&price));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }
}

#[test]
fn a_price_can_name_its_own_offers() {
    let offers = json!([{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}]);
    let mut config = config(&json!({"per_request": "$0.01", "accept": offers}));
    let compiled = parse(config.to_string().as_bytes()).unwrap();
    assert_eq!(
        compiled.routes.by_index(0).unwrap().offers[0].asset.network.as_str(),
        "eip155:84532"
    );
    config["routes"][0]["accept"] = offers;
    let mistakes = whole_mistakes(&config);
    assert!(
        mistakes[0].starts_with("routes[0].price.accept: found a second list"),
        "{mistakes:?}"
    );
}
