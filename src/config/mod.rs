//! Configuration: the schema, its checks, and the immutable form that every request shares.
//!
//! Knows what may be configured and what goes with what; nothing of requests.

mod accept;
mod addresses;
mod amount;
mod assets;
mod built_in;
mod charge;
mod compiled;
mod credits;
mod duration;
mod error;
mod facilitators;
mod fields;
mod flow;
mod limits;
mod matching;
mod policy;
mod price;
#[cfg(test)]
mod price_tests;
mod routes;
mod secret;
#[cfg(test)]
mod tests;
mod text;
mod warnings;
mod wire_struct;
mod wording;

pub use compiled::{
    Access, AccountLimits, BodyStyle, Bypass, ChallengeStyle, Config, Credits, Facilitator, PayerLimits, PaymentIdentifier, PreCheck,
    Redeliver, SettlementPolicy, SmartWalletPolicy,
};
pub use duration::parse_milliseconds;
pub use error::ConfigError;
pub use secret::Secret;
pub use wire_struct::json_text;

use addresses::PayToMap;
use fields::{Errors, Node};
use serde_json::Value;

use crate::pricing::Routes;

/// Longest configuration that is read: more would keep Envoy's start waiting.
pub const MAX_BYTES: usize = 16 << 20;

/// Sections in use.
const KNOWN: &[&str] = &[
    "pay_to",
    "accept",
    "assets",
    "facilitators",
    "pre_check",
    "settlement",
    "quote_grace",
    "public_url",
    "unmatched",
    "routes",
    "access",
    "redeliver",
    "limits",
    "payment_identifier",
    "replay",
    "challenge",
    "ledger",
];

/// Sections that other versions have.
const LATER: &[&str] = &["metered", "flow", "verify"];

/// Parses and checks a configuration: JSON as Envoy makes it of a `google.protobuf.Struct`, so that 6 may be 6.0.
///
/// Every mistake is reported (up to a hundred), not only the first; no secret is ever part of one.
pub fn parse(json: &[u8]) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Errors::default();
    let value = document(json, &mut errors);
    let config = value.and_then(|value| compile(&Node::root(&value), &mut errors));
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => {
            if errors.is_empty() {
                errors.add("", "something that could not be compiled", "another configuration");
            }
            Err(errors.into_vec())
        }
    }
}

fn document(json: &[u8], errors: &mut Errors) -> Option<Value> {
    if json.len() > MAX_BYTES {
        errors.add("", format!("{} bytes", json.len()), format!("at most {MAX_BYTES}"));
        return None;
    }
    // The parser's message is not repeated: it could quote a secret.
    let invalid = |error: serde_json::Error| {
        let place = format!("something else at line {}, column {}", error.line(), error.column());
        errors.add("", place, "JSON");
    };
    serde_json::from_slice(json).map_err(invalid).ok()
}

fn compile(root: &Node<'_>, errors: &mut Errors) -> Option<Config> {
    let fields = root.fields(KNOWN, LATER, errors)?;
    let pay_to = PayToMap::read(fields.get("pay_to"), errors);
    let assets = assets::read(fields.get("assets"), errors);
    let facilitators = facilitators::read(fields.get("facilitators"), errors);
    let pre_check = policy::pre_check(fields.get("pre_check"), errors);
    let challenge = policy::challenge(fields.get("challenge"), errors);
    let deny_unmatched = fields
        .require("unmatched", "pass or deny: what happens to requests that no route matches", errors)
        .and_then(|node| node.one_of(&[("pass", false), ("deny", true)], errors));
    let base = routes::Base {
        around: accept::Surroundings {
            pay_to: &pay_to,
            assets: &assets,
            max_validity: pre_check.max_validity,
        },
        facilitators: &facilitators,
        challenge,
        accept: fields.get("accept"),
    };
    let routes_node = fields.require("routes", "a list of routes", errors);
    let compiled = routes::read(routes_node, &base, errors);
    let access = policy::access(fields.get("access"), errors);
    let ledger = credits::ledger(fields.get("ledger"), errors);
    let (max_claims, shared_claims) = policy::replay(fields.get("replay"), errors);
    let redeliver = limits::redeliver(fields.get("redeliver"), errors);
    let payment_identifier = limits::payment_identifier(fields.get("payment_identifier"), errors);
    let priced = compiled.iter().map(|compiled| &compiled.route);
    let payer_limits = limits::payer(fields.get("limits"), priced, errors);
    let limits_node = fields.get("limits");
    let account = limits_node.and_then(|node| node.fields(limits::KNOWN, &[], errors)?.get("account"));
    let account_limits = credits::account(account.clone(), errors);
    let has_credits = fields.get("access").is_some_and(|node| node.value.get("credits").is_some());
    let together = credits::Together {
        credits: access.credits.as_ref(),
        backend_keys: access.api_keys_header.is_some(),
        has_ledger: fields.get("ledger").is_some(),
        limits_nobody: account.is_some() && !has_credits,
    };
    together.check(compiled.iter().map(|compiled| &compiled.route), errors);
    let settlement = policy::settlement(fields.get("settlement"), errors);
    let quote_grace = policy::quote_grace(fields.get("quote_grace"), errors);
    let public_url = policy::public_url(fields.get("public_url"), errors);
    if !errors.is_empty() {
        return None;
    }
    let defaults = warnings::defaults(&compiled);
    let routes = compiled.into_iter().map(|compiled| compiled.route).collect();
    let mut config = Config {
        facilitators,
        pre_check,
        settlement,
        quote_grace,
        public_url,
        routes: Routes::new(routes, deny_unmatched?),
        access,
        redeliver,
        payer_limits,
        account_limits,
        ledger,
        payment_identifier,
        max_claims,
        shared_claims,
        challenge,
        warnings: Vec::new(),
    };
    config.warnings = warnings::collect(&config, &defaults);
    Some(config)
}
