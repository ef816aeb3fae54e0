//! `ledger`, `access.credits` and `limits.account`: prepaid credits, and the service that keeps them.

use super::amount::{Amounts, Least};
use super::facilitators;
use super::fields::{Errors, Node};
use super::policy::header_name;
use super::{AccountLimits, Credits, Facilitator};
use crate::pricing::{Route, in_dollars};

/// Longest window: a day.
const LONGEST_MS: u64 = 86_400_000;

/// Longest timeout: ten minutes.
const LONGEST_TIMEOUT_MS: u64 = 600_000;

/// What the ledger says, who makes the offers that top a balance up.
const ELSEWHERE: &[&str] = &["tiers", "max_topup"];

/// Reads `ledger`.
pub(super) fn ledger(node: Option<Node<'_>>, errors: &mut Errors) -> Option<Facilitator> {
    // Written as a text it may hold credentials.
    let node = node?.secret();
    let known = ["cluster", "url", "timeout", "topup_timeout", "headers", "in_flight", "breaker"];
    let fields = node.fields(&known, &[], errors)?;
    let mut timeout = |name: &str, default: u32| match fields.get(name) {
        None => Some(default),
        Some(node) => u32::try_from(node.milliseconds(1, LONGEST_TIMEOUT_MS, errors)?).ok(),
    };
    let (timeout_ms, topup_timeout_ms) = (timeout("timeout", 1_000), timeout("topup_timeout", 90_000));
    facilitators::service(&fields, vec!["*".into()], timeout_ms, topup_timeout_ms, errors)
}

/// Reads `access.credits`; `None` if they are not enabled.
pub(super) fn credits(node: Option<Node<'_>>, errors: &mut Errors) -> Option<Credits> {
    let fields = node?.fields(&["enabled", "header", "on_ledger_failure", "lease"], ELSEWHERE, errors)?;
    let header = match fields.get("header") {
        None => Some("authorization".into()),
        Some(node) => header_name(&node, errors),
    };
    let allow_up_to = fields
        .get("on_ledger_failure")
        .and_then(|node| on_failure(&node, errors))
        .unwrap_or(0);
    let lease = fields.get("lease").and_then(|node| in_dollars_alone(&node, errors)).unwrap_or(0);
    let enabled = fields.get("enabled").and_then(|node| node.boolean(errors)).unwrap_or(false);
    header.filter(|_| enabled).map(|header| Credits {
        header,
        allow_up_to,
        lease,
    })
}

/// Reads `access.credits.on_ledger_failure`.
fn on_failure(node: &Node<'_>, errors: &mut Errors) -> Option<u64> {
    if !node.value.is_object() {
        return node.one_of(&[("closed", 0)], errors);
    }
    let fields = node.fields(&["allow_up_to"], &[], errors)?;
    in_dollars_alone(
        &fields.require("allow_up_to", "an amount of dollars, such as \"$5\"", errors)?,
        errors,
    )
}

/// An amount of dollars, in millionths.
fn in_dollars_alone(node: &Node<'_>, errors: &mut Errors) -> Option<u64> {
    match Amounts::read(node, Least::AboveZero, errors)?.millionths().as_slice() {
        [(currency, amount)] if &**currency == "usd" => Some(*amount),
        _ => {
            node.reject("an amount of dollars, such as \"$100\": balances are in dollars", errors);
            None
        }
    }
}

/// Reads `limits.account`.
pub(super) fn account(node: Option<Node<'_>>, errors: &mut Errors) -> Option<AccountLimits> {
    let account = node?;
    let fields = account.fields(&["requests", "window", "spend"], &[], errors)?;
    let window = fields.require(
        "window",
        "the time in which requests and money are counted, such as \"60s\"",
        errors,
    );
    let window_ms = window?.milliseconds(1000, LONGEST_MS, errors)?;
    let requests = match fields.get("requests") {
        None => None,
        Some(node) => Some(u32::try_from(node.whole(1, 1_000_000_000, errors)?).unwrap_or(u32::MAX)),
    };
    let spend = match fields.get("spend") {
        None => None,
        Some(node) => Some(in_dollars_alone(&node, errors)?),
    };
    if requests.is_none() && spend.is_none() {
        account.reject(
            "requests, spend or both, such as {requests: 600, window: 60s, spend: \"$100\"}",
            errors,
        );
    }
    Some(AccountLimits {
        window_ms,
        requests,
        spend,
    })
}

/// What goes with what, once all of it is read.
pub(super) struct Together<'a> {
    /// `access.credits`, if they are enabled.
    pub(super) credits: Option<&'a Credits>,
    /// Whether the backend checks API keys.
    pub(super) backend_keys: bool,
    /// Whether there is a `ledger`, good or bad.
    pub(super) has_ledger: bool,
    /// Whether there is a `limits.account`, and no `access.credits`, enabled or not.
    pub(super) limits_nobody: bool,
}

impl Together<'_> {
    /// Notes what does not go together.
    pub(super) fn check<'r>(&self, routes: impl Iterator<Item = &'r Route>, errors: &mut Errors) {
        if self.credits.is_none() {
            if self.limits_nobody {
                errors.add(
                    "limits.account",
                    "limits of accounts, and no access.credits",
                    "access.credits: only a key has an account",
                );
            }
            return;
        }
        if !self.has_ledger {
            errors.add(
                "ledger",
                "nothing",
                "the service that keeps the balances of access.credits, such as {cluster: ledger, url: \"http://ledger.internal\"}",
            );
        }
        if self.backend_keys {
            errors.add(
                "access.credits",
                "credits beside access.api_keys",
                "one of them: a key is either the ledger's or the backend's",
            );
        }
        for route in routes.filter(|route| route.is_priced() && in_dollars(&route.offers).is_none()) {
            errors.add(
                "access.credits",
                format!("the route {} without an offer in dollars", route.name),
                "one in its accept: balances are in dollars, and its price is computed by it",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, parse};
    use serde_json::{Value, json};

    fn config(more: Value) -> Value {
        let mut config = json!({
            "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
            "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "USDC"}],
            "facilitators": [{"cluster": "f", "url": "https://x402.org/facilitator"}],
            "ledger": {"cluster": "ledger", "url": "http://ledger.internal", "headers": {"authorization": "Bearer hunter2"}},
            "access": {"credits": {"enabled": true}},
            "unmatched": "pass",
            "routes": [{"name": "x", "match": {"path": "/x"}, "price": {"per_request": {"usd": "0.01", "eur": "0.01"}}}],
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    }

    fn errors(more: Value) -> Vec<String> {
        let errors = parse(config(more).to_string().as_bytes()).err().unwrap_or_default();
        assert!(!format!("{errors:?}").contains("hunter2"));
        errors.iter().map(|error: &ConfigError| error.path.clone()).collect()
    }

    #[test]
    fn all_of_it_is_read() {
        let read = parse(
            config(json!({"limits": {"account": {"requests": 600, "window": "60s", "spend": "$100"}}}))
                .to_string()
                .as_bytes(),
        );
        let read = read.unwrap();
        assert_eq!(read.access.credits.as_ref().map(|credits| &*credits.header), Some("authorization"));
        let ledger = read.peer(read.ledger_index()).unwrap();
        assert_eq!((&*ledger.cluster, &*ledger.authority), ("ledger", "ledger.internal"));
        assert_eq!((ledger.verify_timeout_ms, ledger.settle_timeout_ms), (1_000, 90_000));
        assert_eq!(ledger.headers[0].1.expose(), "Bearer hunter2");
        let limits = read.account_limits.unwrap();
        assert_eq!(
            (limits.requests, limits.window_ms, limits.spend),
            (Some(600), 60_000, Some(100_000_000))
        );
        assert!(read.peer(read.ledger_index() + 1).is_none());
    }

    #[test]
    fn trust_and_leases_are_amounts_of_dollars() {
        let read = |credits: Value| parse(config(json!({"access": {"credits": credits}})).to_string().as_bytes());
        let given = json!({"enabled": true, "on_ledger_failure": {"allow_up_to": "$5"}, "lease": "$0.50"});
        let credits = read(given).unwrap().access.credits.unwrap();
        assert_eq!((credits.allow_up_to, credits.lease), (5_000_000, 500_000));
        for closed in [json!({"enabled": true}), json!({"enabled": true, "on_ledger_failure": "closed"})] {
            let credits = read(closed).unwrap().access.credits.unwrap();
            assert_eq!((credits.allow_up_to, credits.lease), (0, 0));
        }
        for (wrong, path) in [
            (json!({"on_ledger_failure": {}}), "on_ledger_failure.allow_up_to"),
            (json!({"on_ledger_failure": {"allow_up_to": "0"}}), "on_ledger_failure.allow_up_to"),
            (
                json!({"on_ledger_failure": {"allow_up_to": {"eur": "1"}}}),
                "on_ledger_failure.allow_up_to",
            ),
            (json!({"on_ledger_failure": {"allow": "$1"}}), "on_ledger_failure.allow"),
            (json!({"lease": "-1"}), "lease"),
            (json!({"lease": {"eur": "1"}}), "lease"),
        ] {
            let found = errors(json!({ "access": {"credits": wrong} }));
            assert!(found.contains(&format!("access.credits.{path}")), "{found:?}");
        }
    }

    #[test]
    fn they_are_off_unless_they_are_enabled() {
        for access in [json!({}), json!({"credits": {}}), json!({"credits": {"enabled": false}})] {
            let read = parse(config(json!({ "access": access })).to_string().as_bytes()).unwrap();
            assert!(read.access.credits.is_none());
        }
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        let keys = json!({"credits": {"enabled": true}, "api_keys": {"header": "authorization", "then": "backend"}});
        for (more, path) in [
            (json!({"ledger": null}), "ledger"),
            (json!({ "access": keys }), "access.credits"),
            (
                json!({"access": {}, "limits": {"account": {"requests": 1, "window": "1s"}}}),
                "limits.account",
            ),
            (json!({"limits": {"account": {"window": "1s"}}}), "limits.account"),
            (json!({"limits": {"account": {"requests": 1}}}), "limits.account.window"),
            (
                json!({"limits": {"account": {"window": "1s", "spend": {"eur": "1"}}}}),
                "limits.account.spend",
            ),
            (
                json!({"access": {"credits": {"enabled": true, "tiers": ["$5"]}}}),
                "access.credits.tiers",
            ),
            (
                json!({"access": {"credits": {"enabled": true, "header": "a b"}}}),
                "access.credits.header",
            ),
            (
                json!({"access": {"credits": {"enabled": true, "on_ledger_failure": "open"}}}),
                "access.credits.on_ledger_failure",
            ),
            (json!({"ledger": {"cluster": "l"}}), "ledger.url"),
            (json!({"ledger": {"url": "http://l"}}), "ledger.cluster"),
            (
                json!({"ledger": {"cluster": "l", "url": "http://l", "timeout": "0s"}}),
                "ledger.timeout",
            ),
            (json!({"ledger": "http://u:hunter2@l"}), "ledger"),
        ] {
            assert_eq!(errors(more.clone()), [path], "{more}");
        }
    }

    #[test]
    fn a_route_without_dollars_cannot_be_paid_from_a_balance() {
        let more = json!({
            "assets": [{"symbol": "TEUR", "network": "eip155:8453", "address": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
                        "decimals": 6, "currency": "eur", "transfer": "eip3009", "eip712": {"name": "Test EUR", "version": "1"}}],
            "accept": [{"scheme": "exact", "network": "eip155:8453", "asset": "TEUR"}],
        });
        assert_eq!(errors(more), ["access.credits"]);
    }
}
