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
    outcome_after(
        recorded,
        sent,
        config,
        now,
        &[(now, include_str!("wire/supported.json").to_owned())],
    )
}

/// The same with the answers of `/supported` that the facilitator has given, and when.
fn outcome_after(recorded: &Recorded, sent: &Sent, config: &Config, now: u64, answers: &[(u64, String)]) -> Result<(), String> {
    let (store, claims, mut notes) = (MemoryStore::new(), Claims::new(1000), Notes::default());
    let mut table = Table::default();
    for (at, answer) in answers {
        let supported = Supported::parse(answer.as_bytes()).unwrap();
        supported::share(&store, config, 0, Some(supported), UnixSeconds(*at));
    }
    table.refresh(&store, config);
    let mut env = Env {
        former: None,
        now: UnixSeconds(now),
        now_ms: now * 1000,
        config,
        supported: &table,
        store: &store,
        claims: &claims,
        secret: &[1; 16],
        mark: &x402_envoy::gate::mark(&[1; 16]),
        payers: &x402_envoy::evm::Payers::default(),
        leases: &std::cell::RefCell::default(),
        challenges: &std::cell::RefCell::default(),
        random: || [7; 16],
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
        ended: true,
    };
    match open(&request, &mut env).1 {
        RequestEffect::Verify(_) => Ok(()),
        RequestEffect::Answer(answer) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            Err(body["error"].as_str().unwrap().to_owned())
        }
        RequestEffect::Forward(_) | RequestEffect::Settle(_) => panic!("{}: let through unpaid", recorded.case),
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
fn a_quote_outlives_the_facilitators_address_for_a_minute() {
    let old = include_str!("wire/supported.json").to_owned();
    let new = old.replace(
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    );
    assert_ne!(old, new);
    let recordings = recordings();
    let (recorded, sent) = recordings
        .iter()
        .find(|(recorded, _)| recorded.case == "ts-fetch.upto.chat")
        .unwrap();
    let config = selling(recorded, sent);
    for (seconds_ago, expected) in [(0, Ok(())), (59, Ok(())), (60, Err("invalid_payment_requirements".to_owned()))] {
        let answers = [(sent.at - 500, old.clone()), (sent.at - seconds_ago, new.clone())];
        assert_eq!(outcome_after(recorded, sent, &config, sent.at, &answers), expected, "{seconds_ago}");
    }
}

#[test]
fn a_permit_is_taken_in_libertais_words_only() {
    use base64::Engine as _;
    let recordings = recordings();
    let (recorded, sent) = recordings
        .iter()
        .find(|(recorded, _)| recorded.case == "libertai.openai-sdk.upto-permit")
        .unwrap();
    let config = selling(recorded, sent);
    let mut payment = recorded.decoded.clone();
    payment["x402Version"] = json!(1);
    let value = base64::engine::general_purpose::STANDARD.encode(payment.to_string());
    let changed = Recorded {
        case: recorded.case.clone(),
        header: recorded.header.clone(),
        value,
        decoded: payment,
    };
    assert_eq!(outcome(&changed, sent, &config, sent.at), Err("unsupported_transfer_method".into()));
}

#[test]
fn a_solana_payment_is_held_for_longer_than_a_blockhash_lives() {
    use base64::Engine as _;
    use x402_envoy::precheck::{Terms, pre_check};
    let vectors: Value = serde_json::from_str(include_str!("wire/solana.json")).unwrap();
    let network = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
    let configuration = json!({
        "pay_to": {"solana": vectors["seller"]},
        "accept": [{"scheme": "exact", "network": network, "asset": "USDC", "max_timeout": "1s"}],
        "facilitators": [{"cluster": "facilitator", "url": "http://127.0.0.1:4022"}],
        "unmatched": "deny",
        "routes": [{"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}}],
    });
    let config = parse(configuration.to_string().as_bytes()).unwrap();
    let said = json!({"kinds": [{"x402Version": 1, "scheme": "exact", "network": "solana", "extra": {"feePayer": vectors["fee_payer"]}}]});
    let store = MemoryStore::new();
    let mut table = Table::default();
    supported::share(
        &store,
        &config,
        0,
        Some(Supported::parse(said.to_string().as_bytes()).unwrap()),
        UnixSeconds(1000),
    );
    table.refresh(&store, &config);
    let payment =
        json!({"x402Version": 1, "scheme": "exact", "network": "solana", "payload": {"transaction": vectors["vectors"][0]["transaction"]}});
    let value = base64::engine::general_purpose::STANDARD.encode(payment.to_string());
    let payment = x402_envoy::x402::decode([(&b"x-payment"[..], value.as_bytes())]).unwrap().unwrap();
    let terms = Terms {
        offers: &config.routes.by_index(0).unwrap().offers,
        supported: &table,
        bounds: &config.pre_check,
        resource: "http://x/paid",
        secret: &[1; 16],
        payers: None,
        now: UnixSeconds(1000),
        grace: 0,
    };
    let approved = pre_check(&payment, &terms).unwrap();
    assert_eq!(Some(&*approved.payer), vectors["payer"].as_str());
    assert!(approved.expiry >= UnixSeconds(1120), "{}", approved.expiry);
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
