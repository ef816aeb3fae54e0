//! The small sections: `pre_check`, `access`, `replay`, `challenge`, `public_url`.

use super::amount::{Amounts, Least};
use super::credits;
use super::fields::{Errors, Node};
use super::text::{is_header_name, is_header_value, parse_url};
use super::{Access, BodyStyle, Bypass, ChallengeStyle, PreCheck, Secret, SettlementPolicy, SmartWalletPolicy};

/// Reads `pre_check`.
pub(super) fn pre_check(node: Option<Node<'_>>, errors: &mut Errors) -> PreCheck {
    let mut pre_check = PreCheck::default();
    let known = ["clock_skew", "max_validity", "smart_wallets"];
    let Some(fields) = node.and_then(|node| node.fields(&known, &[], errors)) else {
        return pre_check;
    };
    if let Some(skew) = fields.get("clock_skew").and_then(|node| node.seconds(0, 300, errors)) {
        pre_check.clock_skew = skew;
    }
    if let Some(validity) = fields.get("max_validity").and_then(|node| node.seconds(1, 7 * 86_400, errors)) {
        pre_check.max_validity = validity;
    }
    let wallets = fields
        .get("smart_wallets")
        .and_then(|node| node.fields(&["eoa_sized", "other"], &[], errors));
    if let Some(wallets) = wallets {
        let policies = [
            ("refuse", SmartWalletPolicy::Refuse),
            ("facilitator", SmartWalletPolicy::Facilitator),
        ];
        if let Some(policy) = wallets.get("eoa_sized").and_then(|node| node.one_of(&policies, errors)) {
            pre_check.eoa_sized = policy;
        }
        if let Some(policy) = wallets.get("other").and_then(|node| node.one_of(&policies, errors)) {
            pre_check.other = policy;
        }
    }
    pre_check
}

/// Reads `access`.
pub(super) fn access(node: Option<Node<'_>>, errors: &mut Errors) -> Access {
    let mut access = Access::default();
    let known = ["dummy_api_keys", "api_keys", "bypass", "credits"];
    let Some(fields) = node.and_then(|node| node.secret().fields(&known, &[], errors)) else {
        return access;
    };
    if let Some(node) = fields.get("dummy_api_keys").map(Node::secret) {
        const EXPECTED: &str = "API keys of visible ASCII that mean nothing, such as \"x402\"";
        for item in node.items(EXPECTED, errors) {
            match item.text(EXPECTED, errors) {
                Some(key) if !key.is_empty() && is_header_value(key) => access.dummy_api_keys.push(key.into()),
                Some(_) => item.reject(EXPECTED, errors),
                None => {}
            }
        }
    }
    if let Some(fields) = fields
        .get("api_keys")
        .and_then(|node| node.fields(&["header", "then"], &[], errors))
    {
        access.api_keys_header = fields
            .require("header", "the name of the header that carries API keys", errors)
            .and_then(|node| header_name(&node, errors));
        if let Some(then) = fields.require("then", "backend", errors) {
            then.one_of(&[("backend", ())], errors);
        }
    }
    access.credits = credits::credits(fields.get("credits"), errors);
    let bypass = fields.get("bypass").map(Node::secret);
    let bypass = bypass.map(|node| node.items("a list of {header, value}", errors));
    for item in bypass.unwrap_or_default() {
        let Some(fields) = item.fields(&["header", "value"], &[], errors) else {
            continue;
        };
        let header = fields
            .require("header", "the name of a header", errors)
            .and_then(|node| header_name(&node, errors));
        let value = fields
            .require("value", "the secret value that excuses from paying", errors)
            .map(Node::secret);
        let value = value.and_then(|node| {
            const EXPECTED: &str = "a value of at least 8 characters of visible ASCII";
            let value = node.text(EXPECTED, errors)?;
            // Whoever guesses it is served free.
            let fits = value.len() >= 8 && is_header_value(value);
            if !fits {
                node.reject(EXPECTED, errors);
            }
            fits.then(|| Secret::new(value))
        });
        if let (Some(header), Some(value)) = (header, value) {
            access.bypass.push(Bypass { header, value });
        }
    }
    access
}

/// Reads `replay`: `max_claims`, and whether the replicas share claims.
pub(super) fn replay(node: Option<Node<'_>>, errors: &mut Errors) -> (u32, bool) {
    let Some(fields) = node.and_then(|node| node.fields(&["max_claims", "claims"], &[], errors)) else {
        return (1_000_000, false);
    };
    let claims = fields.get("max_claims").and_then(|node| node.whole(1_000, 100_000_000, errors));
    let shared = fields.get("claims");
    let shared = shared.and_then(|node| node.one_of(&[("local", false), ("shared", true)], errors));
    let claims = claims.and_then(|claims| u32::try_from(claims).ok()).unwrap_or(1_000_000);
    (claims, shared.unwrap_or(false))
}

/// Reads `settlement`.
pub(super) fn settlement(node: Option<Node<'_>>, errors: &mut Errors) -> SettlementPolicy {
    let mut policy = SettlementPolicy::default();
    let known = ["retries", "retry_budget", "accept_used_nonce_up_to"];
    let Some(fields) = node.and_then(|node| node.fields(&known, &[], errors)) else {
        return policy;
    };
    if let Some(retries) = fields.get("retries").and_then(|node| node.whole(0, 10, errors)) {
        policy.retries = u32::try_from(retries).unwrap_or(u32::MAX);
    }
    if let Some(budget) = fields.get("retry_budget").and_then(|node| node.milliseconds(0, 600_000, errors)) {
        policy.retry_budget_ms = budget;
    }
    if let Some(amounts) = fields
        .get("accept_used_nonce_up_to")
        .and_then(|node| Amounts::read(&node, Least::Zero, errors))
    {
        policy.accept_used_nonce_up_to = amounts.millionths();
    }
    policy
}

/// Reads `quote_grace`.
pub(super) fn quote_grace(node: Option<Node<'_>>, errors: &mut Errors) -> u64 {
    node.and_then(|node| node.seconds(0, 3600, errors)).unwrap_or(60)
}

/// Reads `challenge`.
pub(super) fn challenge(node: Option<Node<'_>>, errors: &mut Errors) -> ChallengeStyle {
    let mut style = ChallengeStyle::default();
    let Some(fields) = node.and_then(|node| node.fields(&["v1", "plain_headers", "body"], &[], errors)) else {
        return style;
    };
    if let Some(v1) = fields.get("v1").and_then(|node| node.boolean(errors)) {
        style.v1 = v1;
    }
    if let Some(plain) = fields.get("plain_headers").and_then(|node| node.boolean(errors)) {
        style.plain_headers = plain;
    }
    let bodies = [("x402", BodyStyle::X402), ("openai", BodyStyle::Openai)];
    if let Some(body) = fields.get("body").and_then(|node| node.one_of(&bodies, errors)) {
        style.body = body;
    }
    style
}

/// Reads `public_url`.
pub(super) fn public_url(node: Option<Node<'_>>, errors: &mut Errors) -> Option<Box<str>> {
    const EXPECTED: &str = "an absolute http(s) URL such as \"https://api.example.com\", without credentials, query and fragment";
    let node = node?.secret();
    let url = parse_url(node.text(EXPECTED, errors)?);
    if url.is_none() {
        node.reject(EXPECTED, errors);
    }
    url.map(|url| format!("{}://{}{}", url.scheme, url.authority, url.path).into())
}

/// A header's name, in lower case.
pub(super) fn header_name(node: &Node<'_>, errors: &mut Errors) -> Option<Box<str>> {
    const EXPECTED: &str = "the name of a header";
    let name = node.text(EXPECTED, errors)?;
    if !is_header_name(name) {
        node.reject(EXPECTED, errors);
        return None;
    }
    Some(name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_of_access_are_kept_and_never_shown() {
        let mut errors = Errors::default();
        let value = json!({
            "dummy_api_keys": ["x402"], "api_keys": {"header": "Authorization", "then": "backend"},
            "bypass": [{"header": "X-Internal", "value": "hunter2hunter2"}],
        });
        let read = access(Some(Node::root(&value)), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(read.api_keys_header.as_deref(), Some("authorization"));
        assert!(read.bypass[0].value.matches(b"hunter2hunter2"));
        assert!(!format!("{read:?}").contains("hunter2"));
        for value in [
            json!("hunter2"),
            json!({"bypass": ["hunter2"]}),
            json!({"bypass": "hunter2"}),
            json!({"bypass": [{"header": "a", "value": "hunter2"}]}),
            json!({"bypass": [{"header": "a", "value": "hunter2hunter2\n"}]}),
            json!({"bypass": [{"header": "a", "valu": "hunter2"}]}),
        ] {
            let mut errors = Errors::default();
            access(Some(Node::root(&value)), &mut errors);
            assert!(!errors.is_empty());
            assert!(!format!("{errors:?}").contains("hunter2"), "{errors:?}");
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let mut errors = Errors::default();
        assert_eq!(pre_check(None, &mut errors), PreCheck::default());
        assert_eq!(replay(None, &mut errors), (1_000_000, false));
        let given = json!({"max_claims": 5000.0, "claims": "shared"});
        assert_eq!(replay(Some(Node::root(&given)), &mut errors), (5000, true));
        assert_eq!(
            challenge(Some(Node::root(&json!({"body": "openai"}))), &mut errors).body,
            BodyStyle::Openai
        );
        assert!(errors.is_empty());
    }

    #[test]
    fn a_public_url_loses_its_trailing_slash() {
        let mut errors = Errors::default();
        let mut read = |value| public_url(Some(Node::root(&value)), &mut errors);
        assert_eq!(read(json!("https://api.example.com/")).as_deref(), Some("https://api.example.com"));
        assert_eq!(
            read(json!("https://api.example.com:443/x/")).as_deref(),
            Some("https://api.example.com/x")
        );
        assert_eq!(read(json!("/x")), None);
    }
}
