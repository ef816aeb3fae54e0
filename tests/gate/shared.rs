//! Claims that replicas share: what goes with each call, and what the ledger hears of how a request has ended.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, World, configuration};
use support::{Payer, Terms, base64, v2};
use x402_envoy::gate::{CalloutReply, Endpoint, Gate, Released, RequestEffect};
use x402_envoy::pricing::End;

const NAME: &str = "07070707070707070707070707070707";

fn world(claims: &str) -> World {
    let mut config = configuration();
    config["replay"] = json!({"claims": claims});
    World::with(&config)
}

/// What the ledger was told, in order.
fn told(world: &mut World) -> Vec<String> {
    let reports = std::mem::take(&mut world.notes.captures);
    let outcome = |report: &x402_envoy::gate::Capture| {
        let call = report.call();
        assert_eq!((call.endpoint, call.facilitator, &call.intent), (Endpoint::Report, 0, &None));
        let said: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(said["intent"], NAME);
        said["outcome"].as_str().unwrap().to_owned()
    };
    reports.iter().map(outcome).collect()
}

#[test]
fn calls_name_the_request_and_what_is_spent_once() {
    let mut world = world("shared");
    let payment = world.payment(1);
    let (_, call) = world.verifying(&[("payment-signature", &payment)]);
    let said = call.intent.unwrap();
    let (name, rest) = said.split_once(";claim=").unwrap();
    let (claim, until) = rest.split_once(";until=").unwrap();
    assert_eq!((name, claim.len()), (NAME, 32));
    assert!(until.parse::<u64>().unwrap() > support::NOW);
    // Another replica, with another secret, comes to the same.
    let other = {
        let mut other = self::world("shared");
        let payment = other.payment(1);
        other.verifying(&[("payment-signature", &payment)]).1.intent.unwrap()
    };
    assert_eq!(other, said);
    let mut local = self::world("local");
    let payment = local.payment(1);
    assert_eq!(local.verifying(&[("payment-signature", &payment)]).1.intent, None);
}

#[test]
fn an_answer_that_was_had_is_delivered() {
    let mut world = world("shared");
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    assert!(settlement.call().intent.as_deref().unwrap().starts_with(NAME));
    assert!(!settlement.call().intent.as_deref().unwrap().ends_with(";delivered"));
    let Released::Edit(_, gate) = world.settled(settlement, &SETTLED) else {
        panic!("not delivered")
    };
    assert_eq!(told(&mut world), Vec::<String>::new());
    let mut gate: Gate = *gate;
    assert!(world.env(|env| gate.on_end(End::Complete, env)).is_none());
    assert_eq!(told(&mut world), ["delivered"]);
}

#[test]
fn an_answer_that_broke_off_is_this_replicas_to_serve_again() {
    let mut world = world("shared");
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Edit(_, gate) = world.settled(settlement, &SETTLED) else {
        panic!("not delivered")
    };
    let mut gate: Gate = *gate;
    assert!(world.env(|env| gate.on_end(End::ClientGone, env)).is_none());
    assert_eq!(told(&mut world), ["delivered"]);
}

#[test]
fn what_is_not_settled_is_released_once() {
    let mut world = world("shared");
    let payment = world.payment(1);
    let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
    let _ = world.respond(&mut gate, 500, true);
    assert_eq!(told(&mut world), ["released"]);
    assert!(world.env(|env| gate.on_end(End::Complete, env)).is_none());
    assert_eq!(told(&mut world), Vec::<String>::new());
}

#[test]
fn what_the_ledger_has_refused_it_is_not_told() {
    let mut world = world("shared");
    let payment = world.payment(1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    let refused = CalloutReply::Answered {
        status: 200,
        body: br#"{"isValid":false,"invalidReason":"ledger_payment_in_use"}"#,
    };
    assert!(world.env(|env| gate.on_verified(TOKEN, &refused, env)).is_some());
    assert_eq!(told(&mut world), Vec::<String>::new());
}

#[test]
fn a_settlement_without_an_outcome_is_left_to_whoever_comes_next() {
    let mut config = configuration();
    config["replay"] = json!({"claims": "shared"});
    config["settlement"] = json!({"retries": 0});
    let mut world = World::with(&config);
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    assert!(matches!(world.settled(settlement, &CalloutReply::Lost), Released::Answer(answer) if answer.status == 503));
    assert_eq!(told(&mut world), ["pending"]);
}

/// A payment that has run out is signed well, and may have been settled for a replica that died: the ledger is asked, and nobody else.
#[test]
fn an_expired_payment_may_have_paid_for_something() {
    let refused: &[u8] =
        br#"{"success":false,"errorReason":"invalid_exact_evm_payload_authorization_valid_before","transaction":"","network":"base"}"#;
    for (claims, forged) in [("shared", false), ("shared", true), ("local", false)] {
        let mut world = world(claims);
        let payment = match forged {
            // Another one has signed it.
            true => {
                let (mut payload, other) = (Terms::good(1).payload(&Payer::new(1)), Terms::good(1).payload(&Payer::new(2)));
                payload["signature"] = other["signature"].clone();
                base64(&v2(&world.challenge()["accepts"][0], payload))
            }
            false => world.payment(1),
        };
        world.now += 100_000;
        match world.request("/paid", &[("payment-signature", &payment)], None) {
            (Gate::Paying, RequestEffect::Settle(settlement)) => {
                assert!(claims == "shared" && !forged);
                assert!(settlement.call().intent.as_deref().unwrap().ends_with(";late"));
                let reply = CalloutReply::Answered {
                    status: 200,
                    body: refused,
                };
                let Released::Answer(answer) = world.settled(*settlement, &reply) else {
                    panic!("served")
                };
                assert!(answer.status == 402 && String::from_utf8_lossy(&answer.body).contains("valid_before"));
                // Whoever comes next asks again, and is served if the ledger knows it.
                let (_, RequestEffect::Settle(settlement)) = world.request("/paid", &[("payment-signature", &payment)], None) else {
                    panic!("not asked")
                };
                assert!(matches!(world.settled(*settlement, &SETTLED), Released::Forward(..)));
            }
            (Gate::Answered, RequestEffect::Answer(answer)) => assert!((claims == "local" || forged) && answer.status == 402),
            _ => panic!("neither asked nor refused"),
        }
    }
}

/// The ledger has a receipt for the request that it settled for: what it says of others is no word of an attempt of theirs.
#[test]
fn what_another_replica_was_served_for_is_spent() {
    let spent = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"nonce_already_used","transaction":"","network":"base-sepolia"}"#,
    };
    let reverted = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"invalid_transaction_state","transaction":"0x07","network":"base-sepolia"}"#,
    };
    // What is inferred of a settlement here is the ledger's to infer.
    let cases = [
        ("shared", &spent, 402),
        ("local", &spent, 200),
        ("shared", &reverted, 503),
        ("local", &reverted, 200),
    ];
    for (claims, said, status) in cases {
        let mut config = configuration();
        config["replay"] = json!({"claims": claims});
        config["settlement"] = json!({"retries": 1, "accept_used_nonce_up_to": "$1"});
        let mut world = World::with(&config);
        let payment = world.payment(1);
        let settlement = world.settling(&[("payment-signature", &payment)]);
        let Released::Again(settlement, _) = world.settled(settlement, &CalloutReply::Lost) else {
            panic!("not sent again")
        };
        match world.settled(*settlement, said) {
            Released::Edit(..) => assert_eq!(status, 200),
            Released::Answer(answer) => assert_eq!(answer.status, status),
            _ => panic!("neither served nor refused"),
        }
    }
}

#[test]
fn nothing_is_told_where_claims_are_local() {
    let mut world = world("local");
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Edit(_, gate) = world.settled(settlement, &SETTLED) else {
        panic!("not delivered")
    };
    let mut gate: Gate = *gate;
    assert!(world.env(|env| gate.on_end(End::Complete, env)).is_none());
    assert!(world.notes.captures.is_empty());
}
