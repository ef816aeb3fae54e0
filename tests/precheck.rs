//! The pre-check against what official clients really sent, at the time they sent it: nothing that a facilitator accepted is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)] // tests

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use x402_envoy::config::{Config, parse};
use x402_envoy::gate::{Env, Notes, Request, RequestEffect, open};
use x402_envoy::pricing::Place;
use x402_envoy::replay::{Claims, MemoryStore, UnixSeconds};
use x402_envoy::supported::{self, Table};
use x402_envoy::x402::facilitator::Supported;

#[derive(Deserialize)]
struct Recorded {
    case: String,
    header: String,
    value: String,
    decoded: Value,
}

#[derive(Deserialize)]
struct Sent {
    at: u64,
    method: String,
    authority: String,
    path: String,
}

fn recordings() -> Vec<(Recorded, Sent)> {
    let payments: Vec<Recorded> = serde_json::from_str(include_str!("wire/payments.json")).unwrap();
    let mut requests: BTreeMap<String, Sent> = serde_json::from_str(include_str!("wire/requests.json")).unwrap();
    payments
        .into_iter()
        .map(|payment| {
            let sent = requests.remove(&payment.case).unwrap();
            (payment, sent)
        })
        .collect()
}

/// A configuration that offers what the recorded server did.
fn selling(recorded: &Recorded, sent: &Sent) -> Config {
    let decoded = &recorded.decoded;
    let terms = decoded.get("accepted").unwrap_or(decoded);
    let network = match terms["network"].as_str().unwrap() {
        "base" => "eip155:8453",
        "base-sepolia" => "eip155:84532",
        caip2 => caip2,
    };
    let payload = &decoded["payload"];
    let amount = match payload.get("authorization") {
        Some(authorization) => &authorization["value"],
        None => &payload["permit2Authorization"]["permitted"]["amount"],
    };
    let mut offer = json!({"scheme": terms["scheme"], "network": network, "asset": "USDC"});
    if payload.get("permit2Authorization").is_some() {
        offer["transfer"] = json!("permit2");
    } else if terms["scheme"] == "upto" {
        offer["transfer"] = json!("permit");
        offer["spender"] = payload["authorization"]["to"].clone();
    }
    let dollars = format!(
        "{}.{:06}",
        amount.as_str().unwrap().parse::<u64>().unwrap() / 1_000_000,
        amount.as_str().unwrap().parse::<u64>().unwrap() % 1_000_000
    );
    let configuration = json!({
        "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"},
        "accept": [offer],
        "facilitators": [{"cluster": "facilitator", "url": "http://127.0.0.1:4022"}],
        "unmatched": "deny",
        "routes": [{"name": "recorded", "match": {"path": sent.path}, "price": {"per_request": format!("${dollars}")}}],
    });
    parse(configuration.to_string().as_bytes()).unwrap_or_else(|errors| panic!("{}: {errors:?}", recorded.case))
}

/// What becomes of the recorded request at a time: the reason it is refused with, or that it waits for /verify.
fn outcome(recorded: &Recorded, sent: &Sent, config: &Config, now: u64) -> Result<(), String> {
    let supported = Supported::parse(include_bytes!("wire/supported.json")).unwrap();
    let (store, claims, mut notes) = (MemoryStore::new(), Claims::new(1000), Notes::default());
    let mut table = Table::default();
    supported::share(&store, config, 0, Some(supported), UnixSeconds(now));
    table.refresh(&store, config);
    let mut env = Env {
        now: UnixSeconds(now),
        config,
        supported: &table,
        store: &store,
        claims: &claims,
        secret: &[1; 16],
        notes: &mut notes,
    };
    let request = Request {
        place: Place {
            method: sent.method.as_bytes(),
            authority: sent.authority.as_bytes(),
            path: sent.path.as_bytes(),
            envoy_route: None,
            is_cors_preflight: false,
        },
        scheme: b"http",
        headers: &[(recorded.header.as_bytes(), recorded.value.as_bytes())],
        body: None,
    };
    match open(&request, &mut env).1 {
        RequestEffect::Verify(_) => Ok(()),
        RequestEffect::Answer(answer) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            Err(body["error"].as_str().unwrap().to_owned())
        }
        RequestEffect::Forward(_) => panic!("{}: let through unpaid", recorded.case),
    }
}

#[test]
fn every_recorded_payment_passes_at_its_time() {
    let recordings = recordings();
    assert!(recordings.len() >= 24, "{}", recordings.len());
    for (recorded, sent) in &recordings {
        let config = selling(recorded, sent);
        assert_eq!(outcome(recorded, sent, &config, sent.at), Ok(()), "{}", recorded.case);
    }
}

#[test]
fn and_not_at_another_time_nor_for_another_price() {
    for (recorded, sent) in &recordings() {
        let config = selling(recorded, sent);
        let late = outcome(recorded, sent, &config, sent.at + 1000);
        assert_eq!(
            late,
            Err("invalid_exact_evm_payload_authorization_valid_before".into()),
            "{}",
            recorded.case
        );
        let early = outcome(recorded, sent, &config, sent.at - 4000);
        assert!(early.is_err(), "{}", recorded.case);
    }
}

#[test]
fn a_signature_that_is_changed_anywhere_is_not_the_payers() {
    for (recorded, sent) in &recordings() {
        let config = selling(recorded, sent);
        let signature = recorded.decoded["payload"]["signature"].as_str().unwrap();
        // A digit of r, one of s, and v: as the client would have sent it.
        for (at, digit) in [(10, 1), (80, 1), (131, 7)] {
            let old = signature.as_bytes()[at];
            let new = char::from_digit((char::from(old).to_digit(16).unwrap() ^ digit) & 15, 16).unwrap();
            let changed = format!("{}{new}{}", &signature[..at], &signature[at + 1..]);
            let mut payment = recorded.decoded.clone();
            payment["payload"]["signature"] = json!(changed);
            let value = match recorded.value.starts_with('{') {
                true => payment.to_string(),
                false => {
                    use base64::Engine as _;
                    base64::engine::general_purpose::STANDARD.encode(payment.to_string())
                }
            };
            let forged = Recorded {
                case: recorded.case.clone(),
                header: recorded.header.clone(),
                value,
                decoded: payment,
            };
            assert_eq!(
                outcome(&forged, sent, &config, sent.at),
                Err("invalid_exact_evm_payload_signature".into()),
                "{} at {at}",
                recorded.case
            );
        }
    }
}
