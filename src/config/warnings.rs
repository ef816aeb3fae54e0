//! What is allowed but probably not meant.

use super::routes::{Compiled, readable_by_v1_clients};
use super::{ChallengeStyle, Config, PaymentIdentifier};
use crate::pricing::{Decimal, Flow, Offer, OnClientAbort, Price, Route, Scheme};

/// How many warnings are kept.
const MAX_WARNINGS: usize = 50;

/// `PAYMENT-REQUIRED` above this leaves little of a client's header budget (8 to 16 KB in all).
const LARGE_CHALLENGE: usize = 2048;

/// Warnings about a configuration; `defaults` is told for each route which of its offers are in a default token.
pub(super) fn collect(config: &Config, defaults: &[Vec<bool>]) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.public_url.as_deref().is_some_and(|url| url.starts_with("http://")) {
        warnings.push("public_url is http: payments can be read on the way, and clients may refuse it".to_owned());
    }
    for (index, (route, defaults)) in config.routes.iter().zip(defaults).enumerate() {
        if warnings.len() >= MAX_WARNINGS {
            warnings.push("there may be more warnings; these are the first ones".to_owned());
            break;
        }
        if !route.is_priced() {
            continue;
        }
        let name = &route.name;
        if let Some(earlier) = config.routes.rivals(index).find(|earlier| earlier.matcher.covers(&route.matcher)) {
            warnings.push(format!(
                "route {name} never gets a request: route {} takes all of them",
                earlier.name
            ));
        }
        warnings.extend(price_warning(&route.offers, config.challenge).map(|warning| format!("route {name}: {warning}")));
        let of_route = [
            trust_warning(route),
            bearer_warning(route, config.payment_identifier),
            unpaid_warning(route),
            unmetered_warning(route),
            reasoning_warning(route),
        ];
        warnings.extend(of_route.into_iter().flatten().map(|warning| format!("route {name}: {warning}")));
        let others: Vec<&str> = (route.offers.iter().zip(defaults))
            .filter(|(_, default)| !**default)
            .map(|(offer, _)| &*offer.asset.symbol)
            .collect();
        if !others.is_empty() {
            warnings.push(format!(
                "route {name}: official clients pay in {} only if told to: it is not the default token of its network",
                others.join(", ")
            ));
        }
        let length = estimate(route.description.len(), route.mime_type.len(), &route.offers);
        if length > LARGE_CHALLENGE {
            warnings.push(format!(
                "route {name}: PAYMENT-REQUIRED will take about {length} bytes; offer fewer ways to pay, or shorten the description"
            ));
        }
    }
    warnings
}

/// The offers' flags, taken out of compiled routes in order.
pub(super) fn defaults(compiled: &[Compiled]) -> Vec<Vec<bool>> {
    compiled.iter().map(|compiled| compiled.defaults.clone()).collect()
}

/// Official clients refuse by default what costs more than $1 (v2) or 0.10 USDC (v1).
fn price_warning(offers: &[Offer], challenge: ChallengeStyle) -> Option<&'static str> {
    let above = |offer: &Offer, limit: &str| {
        let limit = Decimal::parse(limit, false).and_then(|limit| limit.to_atomic(offer.asset.decimals));
        &*offer.asset.currency == "usd" && limit.is_ok_and(|limit| offer.amount > limit)
    };
    if offers.iter().any(|offer| above(offer, "1")) {
        return Some("official clients refuse to pay more than $1 unless told otherwise");
    }
    let v1 = challenge.v1 && offers.iter().any(|offer| readable_by_v1_clients(offer) && above(offer, "0.1"));
    v1.then_some("official v1 clients refuse to pay more than 0.10 USDC unless told otherwise")
}

/// What was settled can be read from the chain, and then be used in the payer's place.
fn bearer_warning(route: &Route, identifier: PaymentIdentifier) -> Option<&'static str> {
    (route.requests_per_payment > 1 && identifier != PaymentIdentifier::Required).then_some(
        "whoever reads a payment of it from the chain can use up the requests that it has left: set payment_identifier: required",
    )
}

/// A metered answer is had before it is paid for.
fn trust_warning(route: &Route) -> Option<&'static str> {
    let Flow::Metered(terms) = &route.flow else { return None };
    let metered = || route.offers.iter().filter(|offer| offer.scheme == Scheme::Upto);
    let unbounded = |offer: &Offer| terms.limits(&offer.asset.currency).is_none_or(|limits| limits.payer.is_none());
    if metered().any(unbounded) {
        return Some("without metered.exposure.payer one balance can have any number of answers at once, and pay for some of them");
    }
    let refused = |offer: &Offer| {
        let limits = terms.limits(&offer.asset.currency);
        let least = limits.and_then(|limits| limits.payer.into_iter().chain(limits.total).min());
        least.is_some_and(|least| offer.amount.millionths(offer.asset.decimals) > u128::from(least))
    };
    metered()
        .any(refused)
        .then_some("its dearest requests cost more than metered.exposure allows to be open: they are refused")
}

/// No output is quoted then, and so none is paid, however much there is.
fn unpaid_warning(route: &Route) -> Option<&'static str> {
    let Price::PerToken(price) = &route.price else { return None };
    (price.max_output == 0 && price.charges_output()).then_some("output has a price and max_output is 0: no output is ever paid for")
}

/// The answer is delivered on trust, and nothing is gained by it.
fn unmetered_warning(route: &Route) -> Option<&'static str> {
    let is_metered = matches!(route.flow, Flow::Metered(_));
    let is_fixed = matches!(route.price, Price::PerRequest | Price::Dynamic(_));
    (is_metered && is_fixed).then_some(
        "flow: metered delivers answers before they are paid for, and usage does not decide this price: only settlement-overrides of the backend can lower it",
    )
}

/// An estimate is made of text that was delivered, and hidden reasoning is none.
fn reasoning_warning(route: &Route) -> Option<&'static str> {
    let (Flow::Metered(terms), Price::PerToken(price)) = (&route.flow, &route.price) else {
        return None;
    };
    (terms.on_client_abort == OnClientAbort::Estimate && price.charges_reasoning())
        .then_some("on_client_abort: estimate does not charge hidden reasoning of an answer that its client leaves; maximum does")
}

/// Bytes that `PAYMENT-REQUIRED` will roughly take: JSON in base64. The URL is taken to be of 100 bytes.
fn estimate(description: usize, mime_type: usize, offers: &[Offer]) -> usize {
    let mut json = 220usize.saturating_add(description).saturating_add(mime_type);
    for offer in offers {
        let domain = offer.asset.eip712.as_ref().map_or(0, |domain| domain.name.len());
        let network = offer.asset.network.as_str().len();
        json = json.saturating_add(270).saturating_add(domain).saturating_add(network);
    }
    json.div_ceil(3).saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::parse;

    /// Warnings about a route with these fields, whose payers are bounded.
    fn warnings(fields: Value) -> Vec<String> {
        let mut route = json!({"name": "x", "match": {"path": "/x"}});
        route.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let config = json!({
            "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
            "accept": [{"scheme": "upto", "network": "eip155:8453", "asset": "USDC"}],
            "facilitators": [{"cluster": "f", "url": "https://x402.org/facilitator"}],
            "unmatched": "pass",
            "routes": [route],
        });
        parse(config.to_string().as_bytes()).unwrap().warnings
    }

    fn metered(price: Value, on_client_abort: &str) -> Vec<String> {
        let terms = json!({"exposure": {"payer": "$1"}, "on_client_abort": on_client_abort});
        warnings(json!({"price": price, "flow": "metered", "metered": terms}))
    }

    fn tokens(more: Value) -> Value {
        let mut price = json!({"input": "$0.0000025", "output": "$0.00001", "max_output": 4096});
        price.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"per_token": price})
    }

    fn one(warnings: &[String], words: &str) {
        assert!(matches!(warnings, [warning] if warning.contains(words)), "{warnings:?}");
    }

    #[test]
    fn output_that_is_never_paid_for() {
        let of = |more: Value| warnings(json!({"price": tokens(more)}));
        one(&of(json!({"max_output": 0})), "no output is ever paid for");
        one(
            &of(json!({"max_output": 0, "output": "0", "reasoning": "$0.1"})),
            "no output is ever paid for",
        );
        let models = json!({"per_token": {"max_output": 0, "models": {"a": {"input": "$0.000001", "output": "0"}, "b": {"input": "$0.000001", "output": "$0.000001"}}}});
        one(&warnings(json!({"price": models})), "no output is ever paid for");
        assert_eq!(of(json!({"max_output": 0, "output": "0"})), [""; 0]);
        assert_eq!(of(json!({})), [""; 0]);
    }

    #[test]
    fn payments_that_anybody_can_use() {
        one(
            &warnings(json!({"price": {"per_request": "$0.01"}, "limits": {"requests_per_payment": 2}})),
            "from the chain",
        );
        assert_eq!(
            warnings(json!({"price": {"per_request": "$0.01"}, "limits": {"requests_per_payment": 1}})),
            [""; 0]
        );
    }

    #[test]
    fn trust_for_nothing() {
        one(
            &metered(json!({"per_request": "$0.01"}), "estimate"),
            "usage does not decide this price",
        );
        let dynamic = json!({"dynamic": {"base": "$0.01", "multipliers": [{"when": "query_length > 9", "times": 2}]}});
        one(&metered(dynamic, "estimate"), "usage does not decide this price");
        assert_eq!(
            metered(json!({"per_minute": {"amount": "$0.1", "minimum": 1, "maximum": 2}}), "estimate"),
            [""; 0]
        );
        assert_eq!(warnings(json!({"price": {"per_request": "$0.01"}})), [""; 0]);
    }

    #[test]
    fn reasoning_that_nobody_pays_for() {
        let reasons = || tokens(json!({"reasoning": "$0.00002"}));
        one(&metered(reasons(), "estimate"), "hidden reasoning");
        assert_eq!(metered(reasons(), "maximum"), [""; 0]);
        assert_eq!(metered(tokens(json!({})), "estimate"), [""; 0]);
        assert_eq!(warnings(json!({"price": reasons()})), [""; 0]);
    }
}
