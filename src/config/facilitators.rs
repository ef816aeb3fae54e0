//! `facilitators`: who verifies and settles.

use super::fields::{Errors, Fields, Node};
use super::text::{is_header_name, is_header_value, parse_url};
use super::{Facilitator, Secret};
use crate::breaker::Limits;
use crate::pricing::Glob;
use crate::x402::Network;

/// Longest timeout: ten minutes.
const LONGEST_MS: u64 = 600_000;

/// Headers that the calls set themselves.
const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "x-envoy-max-retries",
];

/// Reads `facilitators`.
pub(super) fn read(node: Option<Node<'_>>, errors: &mut Errors) -> Vec<Facilitator> {
    let items = node.map(|node| node.items("a list of facilitators", errors)).unwrap_or_default();
    // A facilitator written as a text may hold credentials.
    items.into_iter().filter_map(|item| read_one(&item.secret(), errors)).collect()
}

/// Indices of the facilitators for a network, in order of preference.
pub(super) fn for_network(facilitators: &[Facilitator], network: &Network) -> Vec<usize> {
    let serves = |facilitator: &Facilitator| {
        let mut globs = facilitator.networks.iter();
        globs.any(|glob| Glob::new(glob.as_bytes()).matches(network.as_str().as_bytes()))
    };
    let numbered = facilitators.iter().enumerate();
    numbered
        .filter(|(_, facilitator)| serves(facilitator))
        .map(|(index, _)| index)
        .collect()
}

fn read_one(node: &Node<'_>, errors: &mut Errors) -> Option<Facilitator> {
    let known = [
        "cluster",
        "url",
        "networks",
        "verify_timeout",
        "settle_timeout",
        "headers",
        "in_flight",
        "breaker",
    ];
    let fields = node.fields(&known, &[], errors)?;
    let networks = match fields.get("networks") {
        None => vec!["*".into()],
        Some(node) => networks(&node, errors),
    };
    let mut timeout = |name: &str, default: u32| match fields.get(name) {
        None => Some(default),
        Some(node) => u32::try_from(node.milliseconds(1, LONGEST_MS, errors)?).ok(),
    };
    let (verify_timeout_ms, settle_timeout_ms) = (timeout("verify_timeout", 5_000), timeout("settle_timeout", 60_000));
    service(&fields, networks, verify_timeout_ms, settle_timeout_ms, errors)
}

/// What every service has that is called: a cluster, a URL, headers, and bounds on the calls. `None` for a timeout that was no good.
pub(super) fn service(
    fields: &Fields<'_>,
    networks: Vec<Box<str>>,
    verify_timeout_ms: Option<u32>,
    settle_timeout_ms: Option<u32>,
    errors: &mut Errors,
) -> Option<Facilitator> {
    let cluster = fields.require("cluster", "the name of an Envoy cluster", errors).and_then(|node| {
        let name = node.text("the name of an Envoy cluster", errors)?;
        let fits = (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
        if !fits {
            node.reject("the name of an Envoy cluster", errors);
        }
        fits.then(|| name.into())
    });
    // A URL with credentials must not be shown.
    let url = fields.require("url", "an http(s) URL", errors).map(Node::secret).and_then(|node| {
        const EXPECTED: &str = "an absolute http(s) URL without credentials, query and fragment (credentials belong in headers)";
        let url = parse_url(node.text(EXPECTED, errors)?);
        if url.is_none() {
            node.reject(EXPECTED, errors);
        }
        url
    });
    let headers = fields
        .get("headers")
        .map(|node| headers(&node.secret(), errors))
        .unwrap_or_default();
    let limits = limits(fields, errors);
    let url = url?;
    Some(Facilitator {
        cluster: cluster?,
        authority: url.authority.into(),
        path_prefix: url.path.into(),
        scheme: url.scheme,
        networks,
        verify_timeout_ms: verify_timeout_ms?,
        settle_timeout_ms: settle_timeout_ms?,
        headers,
        limits: limits?,
    })
}

/// `in_flight` and `breaker`.
fn limits(fields: &Fields<'_>, errors: &mut Errors) -> Option<Limits> {
    let mut limits = Limits::default();
    if let Some(node) = fields.get("in_flight") {
        limits.in_flight = u32::try_from(node.whole(1, 65_536, errors)?).ok()?;
    }
    if let Some(node) = fields.get("breaker") {
        let fields = node.fields(&["failures", "open"], &[], errors)?;
        if let Some(node) = fields.get("failures") {
            limits.failures = u32::try_from(node.whole(0, 1_000, errors)?).ok()?;
        }
        if let Some(node) = fields.get("open") {
            limits.open_ms = node.milliseconds(1_000, LONGEST_MS, errors)?;
        }
    }
    Some(limits)
}

fn networks(node: &Node<'_>, errors: &mut Errors) -> Vec<Box<str>> {
    const EXPECTED: &str = "a list of networks such as \"eip155:8453\", \"eip155:*\" or \"*\"";
    let items = node.items(EXPECTED, errors);
    if items.is_empty() && node.value.is_array() {
        errors.add(&node.path, "an empty list", EXPECTED);
    }
    let mut networks = Vec::new();
    for item in items {
        let Some(text) = item.text(EXPECTED, errors) else { continue };
        let fits = text == "*" || Network::parse(&text.replace('*', "1")).is_ok();
        if fits {
            networks.push(text.into());
        } else {
            item.reject(EXPECTED, errors);
        }
    }
    networks
}

fn headers(node: &Node<'_>, errors: &mut Errors) -> Vec<(Box<str>, Secret)> {
    let mut headers: Vec<(Box<str>, Secret)> = Vec::new();
    for (name, node) in node.entries("headers by name", errors) {
        let lower = name.to_ascii_lowercase();
        if !is_header_name(name) || RESERVED.contains(&lower.as_str()) {
            errors.add(
                &node.path,
                "a name that cannot be set",
                "the name of a header that the call does not set itself",
            );
            continue;
        }
        match node.text("a text", errors) {
            Some(value) if is_header_value(value) => headers.push((lower.into(), Secret::new(value))),
            Some(_) => node.reject("a header value: visible ASCII without line breaks", errors),
            None => {}
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_full_entry_is_read() {
        let mut errors = Errors::default();
        let value = json!([{
            "cluster": "f", "url": "https://x402.org/facilitator/", "networks": ["eip155:*"],
            "verify_timeout": "500ms", "settle_timeout": "1m", "headers": {"Authorization": "Bearer t"},
            "in_flight": 16.0, "breaker": {"failures": 3, "open": "1m"},
        }, {"cluster": "g", "url": "http://g:8080"}]);
        let read = read(Some(Node::root(&value)), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let [first, second] = &read[..] else { panic!() };
        assert_eq!(
            (&*first.authority, &*first.path_prefix, first.scheme),
            ("x402.org", "/facilitator", "https")
        );
        assert_eq!((first.verify_timeout_ms, first.settle_timeout_ms), (500, 60_000));
        assert_eq!((&*first.headers[0].0, first.headers[0].1.expose()), ("authorization", "Bearer t"));
        assert_eq!(
            (&*second.authority, &*second.path_prefix, second.verify_timeout_ms),
            ("g:8080", "", 5_000)
        );
        let limits = |in_flight, failures, open_ms| Limits {
            in_flight,
            failures,
            open_ms,
        };
        assert_eq!((first.limits, second.limits), (limits(16, 3, 60_000), limits(256, 5, 10_000)));
        assert_eq!(for_network(&read, &Network::parse("eip155:1").unwrap()), [0, 1]);
        let solana = Network::parse("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1").unwrap();
        assert_eq!(for_network(&read, &solana), [1]);
    }

    #[test]
    fn credentials_are_never_shown() {
        for value in [
            json!(["https://u:hunter2@h"]),
            json!([{"cluster": "f", "url": "https://u:hunter2@h"}]),
            json!([{"cluster": "f", "url": "https://h", "headers": {"a": "hunter2\r\nx: y", "b": ["hunter2"], "host": "hunter2"}}]),
            json!([{"cluster": "f", "url": "https://h", "headers": "hunter2"}]),
            json!([{"cluster": "f", "url": "https://h", "header": "hunter2"}]),
        ] {
            let mut errors = Errors::default();
            read(Some(Node::root(&value)), &mut errors);
            assert!(!errors.is_empty());
            assert!(!format!("{errors:?}").contains("hunter2"), "{errors:?}");
        }
    }

    #[test]
    fn a_timeout_of_nothing_is_none() {
        let mut errors = Errors::default();
        let value = json!([{"cluster": "f", "url": "https://h", "verify_timeout": "0s", "settle_timeout": 5}]);
        read(Some(Node::root(&value)), &mut errors);
        assert_eq!(errors.into_vec().len(), 2);
    }

    #[test]
    fn limits_are_bounded_and_mistakes_in_them_named() {
        for (limits, path) in [
            (json!({"in_flight": 0}), "facilitators[0].in_flight"),
            (json!({"in_flight": 65_537}), "facilitators[0].in_flight"),
            (json!({"in_flight": "4"}), "facilitators[0].in_flight"),
            (json!({"breaker": 5}), "facilitators[0].breaker"),
            (json!({"breaker": {"failures": -1}}), "facilitators[0].breaker.failures"),
            (json!({"breaker": {"failures": 1.5}}), "facilitators[0].breaker.failures"),
            (json!({"breaker": {"open": "999ms"}}), "facilitators[0].breaker.open"),
            (json!({"breaker": {"open": "11m"}}), "facilitators[0].breaker.open"),
            (json!({"breaker": {"closed": "1s"}}), "facilitators[0].breaker.closed"),
        ] {
            let mut value = json!({"facilitators": [{"cluster": "f", "url": "https://h"}]});
            let entry = value["facilitators"][0].as_object_mut().unwrap();
            entry.extend(limits.as_object().unwrap().clone());
            let mut errors = Errors::default();
            let root = Node::root(&value);
            let fields = root.fields(&["facilitators"], &[], &mut errors).unwrap();
            read(fields.get("facilitators"), &mut errors);
            let found = errors.into_vec();
            assert_eq!(found.iter().map(|error| &*error.path).collect::<Vec<_>>(), [path], "{limits}");
        }
        let mut errors = Errors::default();
        let value = json!([{"cluster": "f", "url": "https://h", "in_flight": 65_536, "breaker": {"failures": 0}}]);
        let read = read(Some(Node::root(&value)), &mut errors);
        assert_eq!((read[0].limits.in_flight, read[0].limits.failures), (65_536, 0));
    }
}
