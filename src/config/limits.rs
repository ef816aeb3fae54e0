//! `redeliver`, `limits` and `payment_identifier`: what one payment may buy, and one payer ask for.

use super::amount::{Amounts, Least};
use super::fields::{Errors, Node};
use super::{PayerLimits, PaymentIdentifier, Redeliver};
use crate::pricing::{Flow, Route};

/// What `limits` has; `account` is read by `credits`.
pub(super) const KNOWN: &[&str] = &["cooldown", "payer", "account"];

/// Longest window and cooldown: a day.
const LONGEST_MS: u64 = 86_400_000;

/// Reads `redeliver`.
pub(super) fn redeliver(node: Option<Node<'_>>, errors: &mut Errors) -> Redeliver {
    let mut redeliver = Redeliver::default();
    let Some(fields) = node.and_then(|node| node.fields(&["times", "window"], &[], errors)) else {
        return redeliver;
    };
    if let Some(times) = fields.get("times").and_then(|node| node.whole(0, 100, errors)) {
        redeliver.times = u8::try_from(times).unwrap_or(u8::MAX);
    }
    if let Some(window) = fields.get("window").and_then(|node| node.seconds(1, 3600, errors)) {
        redeliver.window = window;
    }
    redeliver
}

/// Reads `payment_identifier`.
pub(super) fn payment_identifier(node: Option<Node<'_>>, errors: &mut Errors) -> PaymentIdentifier {
    let words = [
        ("off", PaymentIdentifier::Off),
        ("optional", PaymentIdentifier::Optional),
        ("required", PaymentIdentifier::Required),
    ];
    node.and_then(|node| node.one_of(&words, errors)).unwrap_or_default()
}

/// Reads a route's `limits`: how many requests one payment buys.
pub(super) fn requests_per_payment(node: Option<Node<'_>>, flow: Option<&Flow>, is_free: bool, errors: &mut Errors) -> Option<u32> {
    let fields = match node {
        None => return Some(1),
        Some(node) => node.fields(&["requests_per_payment"], &[], errors)?,
    };
    let node = fields.require("requests_per_payment", "how many requests one payment buys", errors)?;
    let requests = node.whole(1, 1_000_000, errors)?;
    let wrong = match flow {
        _ if is_free => Some(("requests of a payment on a free route", "no limits: nothing is paid here")),
        Some(Flow::Metered(_)) if requests > 1 => Some((
            "several requests for one payment on a metered route",
            "1: each metered answer is settled by itself",
        )),
        _ => None,
    };
    if let Some((found, expected)) = wrong {
        errors.add(&node.path, found, expected);
        return None;
    }
    u32::try_from(requests).ok()
}

/// Reads `limits`. `routes` are those whose payers are limited.
pub(super) fn payer<'r>(node: Option<Node<'_>>, routes: impl Iterator<Item = &'r Route>, errors: &mut Errors) -> Option<PayerLimits> {
    let fields = node?.fields(KNOWN, &[], errors)?;
    let mut limits = PayerLimits::default();
    if let Some(node) = fields.get("cooldown") {
        limits.cooldown_ms = node.milliseconds(0, LONGEST_MS, errors)?;
    }
    if let Some(node) = fields.get("payer") {
        let payer = node.fields(&["requests", "window", "spend"], &[], errors)?;
        let window = payer.require(
            "window",
            "the time in which requests and money are counted, such as \"60s\"",
            errors,
        );
        limits.window_ms = window?.milliseconds(1000, LONGEST_MS, errors)?;
        if let Some(node) = payer.get("requests") {
            limits.requests = Some(u32::try_from(node.whole(1, 1_000_000_000, errors)?).unwrap_or(u32::MAX));
        }
        if let Some(node) = payer.get("spend") {
            let amounts = Amounts::read(&node, Least::AboveZero, errors)?;
            for offer in routes.flat_map(|route| &route.offers) {
                amounts.of(&offer.asset, "an offer", errors)?;
            }
            limits.spend = amounts.millionths();
        }
        if limits.requests.is_none() && limits.spend.is_empty() {
            node.reject(
                "requests, spend or both, such as {requests: 120, window: 60s, spend: \"$20\"}",
                errors,
            );
        }
    }
    Some(limits)
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, PaymentIdentifier, parse};
    use serde_json::{Value, json};

    fn config(more: Value) -> Value {
        let mut config = json!({
            "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
            "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "USDC"}],
            "facilitators": [{"cluster": "f", "url": "https://x402.org/facilitator"}],
            "unmatched": "pass",
            "routes": [{"name": "x", "match": {"path": "/x"}, "price": {"per_request": {"usd": "0.01", "eur": "0.01"}}}],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    fn errors(more: Value) -> Vec<String> {
        let errors = parse(config(more).to_string().as_bytes()).err().unwrap_or_default();
        errors.iter().map(|error: &ConfigError| error.path.clone()).collect()
    }

    fn route(more: Value) -> Value {
        let mut route = json!({"name": "x", "match": {"path": "/x"}, "price": {"per_request": "0.01"}});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"routes": [route]})
    }

    #[test]
    fn all_of_it_is_read() {
        let read = parse(
            config(json!({
                "redeliver": {"times": 2, "window": "10m"}, "payment_identifier": "required",
                "limits": {"cooldown": "500ms", "payer": {"requests": 120, "window": "60s", "spend": "$20"}},
            }))
            .to_string()
            .as_bytes(),
        );
        let read = read.unwrap();
        assert_eq!((read.redeliver.times, read.redeliver.window), (2, 600));
        assert_eq!(read.payment_identifier, PaymentIdentifier::Required);
        let limits = read.payer_limits.unwrap();
        assert_eq!((limits.cooldown_ms, limits.window_ms, limits.requests), (500, 60_000, Some(120)));
        assert_eq!(limits.spend, [("usd".into(), 20_000_000)]);
    }

    #[test]
    fn without_it_an_answer_is_had_once_more_and_nobody_is_limited() {
        let read = parse(config(json!({})).to_string().as_bytes()).unwrap();
        assert_eq!((read.redeliver.times, read.redeliver.window), (1, 120));
        assert_eq!(read.payment_identifier, PaymentIdentifier::Off);
        assert!(read.payer_limits.is_none());
        assert_eq!(read.routes.by_index(0).unwrap().requests_per_payment, 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (more, path) in [
            (json!({"redeliver": {"times": 101}}), "redeliver.times"),
            (json!({"redeliver": {"window": "0s"}}), "redeliver.window"),
            (json!({"payment_identifier": true}), "payment_identifier"),
            (json!({"limits": {"payer": {"requests": 1}}}), "limits.payer.window"),
            (json!({"limits": {"payer": {"window": "60s"}}}), "limits.payer"),
            (
                json!({"limits": {"payer": {"window": "1ms", "requests": 1}}}),
                "limits.payer.window",
            ),
            (
                json!({"limits": {"payer": {"window": "60s", "spend": {"eur": "1"}}}}),
                "limits.payer.spend",
            ),
            (route(json!({"limits": {}})), "routes[0].limits.requests_per_payment"),
            (
                route(json!({"limits": {"requests_per_payment": 0}})),
                "routes[0].limits.requests_per_payment",
            ),
            (
                route(json!({"price": "free", "limits": {"requests_per_payment": 2}})),
                "routes[0].limits.requests_per_payment",
            ),
            (
                route(json!({"flow": "metered", "limits": {"requests_per_payment": 2},
                    "accept": [{"scheme": "upto", "network": "eip155:8453", "asset": "USDC"}]})),
                "routes[0].limits.requests_per_payment",
            ),
        ] {
            assert_eq!(errors(more.clone()), [path], "{more}");
        }
    }
}
