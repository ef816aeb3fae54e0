//! Settlements whose outcome is not known: sent again, believed when there is reason to, and taken up by whoever sends the payment again.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, World, body, configuration};
use support::{Payer, Terms, base64, permit, unbase64, v2};
use x402_envoy::breaker::Class;
use x402_envoy::gate::{CalloutReply, Note, Released, RequestEffect, Settlement, VerifiedEffect};

const GARBAGE: CalloutReply<'static> = CalloutReply::Answered {
    status: 502,
    body: b"<html>",
};
const NAMED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"success":false,"errorReason":"settlement_pending","transaction":"0x34f0300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0ba"}"#,
};
const USED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":""}"#,
};
const REFUSED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"success":false,"errorReason":"insufficient_funds","transaction":""}"#,
};

/// A world with this policy.
fn world(policy: &Value) -> World {
    let mut configuration = configuration();
    configuration["settlement"] = policy.clone();
    World::with(&configuration)
}

fn settling(world: &mut World, nonce: u8) -> Settlement {
    let payment = world.payment(nonce);
    world.settling(&[("payment-signature", &payment)])
}

/// What is to be sent again, after the time that was asked for.
fn again(world: &mut World, effect: Released) -> Settlement {
    match effect {
        Released::Again(settlement, ms) => {
            world.now += ms.div_ceil(1000);
            *settlement
        }
        _ => panic!("not sent again"),
    }
}

fn receipt(effect: Released) -> Value {
    match effect {
        Released::Edit(edits, _) => unbase64(&edits.set.iter().find(|(name, _)| *name == "payment-response").unwrap().1),
        Released::Answer(answer) => panic!("answered {}", String::from_utf8_lossy(&answer.body)),
        _ => panic!("not released"),
    }
}

fn pending(effect: Released) {
    match effect {
        Released::Answer(answer) => {
            assert_eq!((answer.status, body(&answer)["error"].as_str()), (503, Some("settlement_pending")));
        }
        _ => panic!("not answered"),
    }
}

#[test]
fn what_has_no_answer_is_sent_again_as_it_was() {
    let mut world = world(&json!({}));
    let settlement = settling(&mut world, 1);
    let first = settlement.call().clone();
    let effect = world.settled(settlement, &CalloutReply::Lost);
    let settlement = again(&mut world, effect);
    assert_eq!(*settlement.call(), first);
    let kept = world.env(|env| Box::new(settlement).abandon(env));
    let settlement = kept.expect("it was sent: the client's leaving changes nothing");
    let effect = world.settled(*settlement, &SETTLED);
    assert_eq!(receipt(effect)["success"], true);
    assert_eq!(world.counted(&Note::SettlementRetried), 1);
    assert_eq!(world.counted(&Note::Settled("settled")), 1);
}

#[test]
fn retries_end() {
    for (policy, sendings) in [
        (json!({"retries": 0}), 1),
        (json!({"retries": 3}), 4),
        (json!({"retries": 10, "retry_budget": "2s"}), 3),
        (json!({"retries": 10, "retry_budget": "0s"}), 1),
    ] {
        let mut world = world(&policy);
        let mut settlement = settling(&mut world, 1);
        let mut sent = 1;
        loop {
            match world.settled(settlement, &GARBAGE) {
                Released::Again(next, ms) => {
                    world.now += ms.div_ceil(1000);
                    settlement = *next;
                    sent += 1;
                }
                other => {
                    pending(other);
                    break;
                }
            }
        }
        assert_eq!(sent, sendings, "{policy}");
    }
    // The time that an unanswered call took does not count.
    let mut world = self::world(&json!({"retries": 1, "retry_budget": "1s"}));
    let settlement = settling(&mut world, 1);
    world.now += 60;
    let effect = world.settled(settlement, &CalloutReply::Lost);
    again(&mut world, effect);
    // Nor is there any use in it once the payment has expired.
    let mut world = self::world(&json!({"retries": 10, "retry_budget": "10m"}));
    let settlement = settling(&mut world, 1);
    world.now += 400;
    pending(world.settled(settlement, &CalloutReply::Lost));
}

#[test]
fn a_transaction_that_was_named_is_no_proof_but_a_receipt() {
    for (limit, inferred) in [("0", 0), ("$0.001", 1)] {
        let mut world = world(&json!({"accept_used_nonce_up_to": limit}));
        let settlement = settling(&mut world, 1);
        let effect = world.settled(settlement, &NAMED);
        let settlement = again(&mut world, effect);
        let effect = world.settled(settlement, &USED);
        assert_eq!(world.counted(&Note::Settled("inferred")), inferred);
        if inferred == 0 {
            // A payer can outbid it while it waits for a block. Somebody will want to look for it on the chain.
            pending(effect);
            let named = world.notes.attributes.iter().rev().find(|(name, _)| *name == "transaction");
            assert!(named.unwrap().1.starts_with("0x34f0300c"));
            continue;
        }
        let receipt = receipt(effect);
        assert_eq!(receipt["success"], true);
        assert!(receipt["transaction"].as_str().unwrap().starts_with("0x34f0300c"));
    }
}

/// What some facilitators say in place of "nonce used": another transaction was sent, and failed.
#[test]
fn another_transaction_that_was_reverted_is_evidence_as_a_used_nonce_is() {
    const REVERTED: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"invalid_exact_evm_transaction_failed","transaction":"0x11110300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0b"}"#,
    };
    for (first, limit, inferred) in [
        (CalloutReply::Lost, "$0.001", 1),
        (CalloutReply::Lost, "0", 0),
        (NAMED, "$0.001", 1),
        (NAMED, "0", 0),
    ] {
        let mut world = world(&json!({"accept_used_nonce_up_to": limit, "retries": 1}));
        let settlement = settling(&mut world, 1);
        let effect = world.settled(settlement, &first);
        let settlement = again(&mut world, effect);
        let effect = world.settled(settlement, &REVERTED);
        assert_eq!(world.counted(&Note::Settled("inferred")), inferred);
        if inferred == 0 {
            pending(effect);
        } else {
            assert_eq!(receipt(effect)["success"], true);
        }
    }
}

#[test]
fn a_payment_whose_transaction_was_reverted_is_used_up() {
    let body = br#"{"success":false,"errorReason":"invalid_exact_evm_transaction_failed","transaction":"0x11110300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0b"}"#;
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Answer(answer) = world.settled(settlement, &CalloutReply::Answered { status: 200, body }) else {
        panic!("not answered")
    };
    assert_eq!(answer.status, 402);
    // Or one dead payment has the backend work, and the facilitator pay for gas, as often as it is sent.
    let again = world.refused(&[("payment-signature", &payment)]);
    assert_eq!(
        (again.status, support::world::body(&again)["error"].as_str()),
        (402, Some("nonce_already_used"))
    );
}

/// A payer burns the nonce while the settlement hangs: the transaction that failed for it proves nothing.
#[test]
fn a_transaction_that_was_reverted_proves_nothing() {
    const HASH: &str = "0x34f0300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0ba";
    let refused = |reason: &str| json!({"success": false, "errorReason": reason, "transaction": HASH}).to_string();
    let (reverted, used) = (refused("insufficient_funds"), refused("invalid_exact_evm_nonce_already_used"));
    let (reverted, used) = (reverted.as_bytes(), used.as_bytes());
    for (first, second, third) in [
        (
            CalloutReply::Lost,
            None,
            CalloutReply::Answered {
                status: 200,
                body: reverted,
            },
        ),
        (NAMED, Some(reverted), USED),
        (CalloutReply::Lost, None, CalloutReply::Answered { status: 200, body: used }),
        (NAMED, None, CalloutReply::Answered { status: 200, body: used }),
    ] {
        let mut world = world(&json!({"accept_used_nonce_up_to": "0"}));
        let settlement = settling(&mut world, 1);
        let effect = world.settled(settlement, &first);
        let mut settlement = again(&mut world, effect);
        if let Some(body) = second {
            let effect = world.settled(settlement, &CalloutReply::Answered { status: 200, body });
            settlement = again(&mut world, effect);
        }
        pending(world.settled(settlement, &third));
        assert_eq!(world.counted(&Note::Settled("inferred")), 0);
    }
}

#[test]
fn nonce_used_counts_for_little_money_once_an_hour() {
    let mut world = world(&json!({"accept_used_nonce_up_to": "$0.001"}));
    let infer = |world: &mut World, nonce| {
        let settlement = settling(world, nonce);
        let effect = world.settled(settlement, &CalloutReply::Lost);
        let settlement = again(world, effect);
        world.settled(settlement, &USED)
    };
    assert_eq!(receipt(infer(&mut world, 1))["success"], true);
    pending(infer(&mut world, 2));
    // Above the limit, however little.
    let mut other = self::world(&json!({"accept_used_nonce_up_to": "$0.000999"}));
    pending(infer(&mut other, 3));
    // Without an attempt of ours it proves that somebody else was faster.
    let mut first = self::world(&json!({}));
    let settlement = settling(&mut first, 4);
    match first.settled(settlement, &USED) {
        Released::Answer(answer) => assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (402, Some("invalid_exact_evm_nonce_already_used"))
        ),
        _ => panic!("not answered"),
    }
}

/// The balance may be gone because the first attempt took it.
#[test]
fn a_refusal_after_an_attempt_without_an_answer_proves_nothing() {
    let mut world = world(&json!({"retries": 1}));
    let settlement = settling(&mut world, 1);
    let effect = world.settled(settlement, &CalloutReply::Lost);
    let settlement = again(&mut world, effect);
    pending(world.settled(settlement, &REFUSED));
    assert_eq!(world.counted(&Note::Settled("refused")), 0);
}

#[test]
fn another_facilitator_is_asked_only_if_the_first_certainly_was_not() {
    let mut configuration = configuration();
    let first = configuration["facilitators"][0].clone();
    configuration["facilitators"] = json!([first, {"cluster": "second", "url": "http://127.0.0.1:4023"}]);
    configuration["settlement"] = json!({"retries": 3});
    let mut world = World::with(&configuration);
    let settlement = settling(&mut world, 1);
    assert_eq!(settlement.call().facilitator, 0);
    let effect = world.settled(settlement, &CalloutReply::NotSent);
    let settlement = again(&mut world, effect);
    assert_eq!(settlement.call().facilitator, 1);
    let effect = world.settled(settlement, &CalloutReply::Lost);
    let settlement = again(&mut world, effect);
    assert_eq!(settlement.call().facilitator, 1, "it may have acted");
    let effect = world.settled(settlement, &CalloutReply::NotSent);
    let settlement = again(&mut world, effect);
    assert_eq!(settlement.call().facilitator, 1);
    assert_eq!(receipt(world.settled(settlement, &SETTLED))["success"], true);
}

#[test]
fn a_pending_payment_that_is_sent_again_takes_up_where_it_stopped() {
    let mut world = world(&json!({"retries": 0, "accept_used_nonce_up_to": "0"}));
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    pending(world.settled(settlement, &CalloutReply::Lost));
    let resumed = |world: &mut World| match world.request("/paid", &[("payment-signature", &payment)], None).1 {
        RequestEffect::Settle(settlement) => *settlement,
        _ => panic!("not resumed"),
    };
    // Nothing that is said now proves that the first attempt failed.
    for reply in [REFUSED, USED, CalloutReply::NotSent, GARBAGE] {
        let settlement = resumed(&mut world);
        assert_eq!(world.refused(&[("payment-signature", &payment)]).status, 409, "one at a time");
        pending(world.settled(settlement, &reply));
    }
    let settlement = resumed(&mut world);
    let Released::Forward(_, mut gate) = world.settled(settlement, &SETTLED) else {
        panic!("not served")
    };
    assert!(matches!(
        world.respond(&mut gate, 200, true),
        x402_envoy::gate::ResponseEffect::Edit(_)
    ));
    world.env(|env| gate.on_end(x402_envoy::pricing::End::Complete, env));
    let again = world.refused(&[("payment-signature", &payment)]);
    assert_eq!(body(&again)["error"], "nonce_already_used");
}

/// A facilitator that has lost its node calls good signatures invalid, at either of its ends: neither is blamed on the payer.
#[test]
fn a_signature_that_was_found_good_here_is_not_the_payers_fault() {
    const VERIFY: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"isValid":false,"invalidReason":"invalid_exact_evm_payload_signature"}"#,
    };
    const SETTLE: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"invalid_exact_evm_payload_signature","transaction":""}"#,
    };
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    let Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) = world.env(|env| gate.on_verified(TOKEN, &VERIFY, env)) else {
        panic!("not answered")
    };
    assert_eq!(
        (answer.status, body(&answer)["error"].as_str()),
        (503, Some("facilitator_unavailable"))
    );
    assert_eq!(world.counted(&Note::Verified("contradicted")), 1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Answer(answer) = world.settled(settlement, &SETTLE) else {
        panic!("not answered")
    };
    assert_eq!(
        (answer.status, body(&answer)["error"].as_str()),
        (503, Some("facilitator_unavailable"))
    );
    world.verifying(&[("payment-signature", &payment)]);
}

/// Nobody is kept waiting for a facilitator that is not there; once it was sent it is like any other.
#[test]
fn a_payment_that_cannot_be_taken_up_is_answered_at_once() {
    let mut world = world(&json!({"retries": 1}));
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let effect = world.settled(settlement, &CalloutReply::Lost);
    let settlement = again(&mut world, effect);
    pending(world.settled(settlement, &CalloutReply::NotSent));
    for _ in 0..2 {
        let RequestEffect::Settle(resumed) = world.request("/paid", &[("payment-signature", &payment)], None).1 else {
            panic!("not resumed")
        };
        pending(world.settled(*resumed, &CalloutReply::NotSent));
    }
    let RequestEffect::Settle(resumed) = world.request("/paid", &[("payment-signature", &payment)], None).1 else {
        panic!("not resumed")
    };
    let effect = world.settled(*resumed, &CalloutReply::Lost);
    let resumed = again(&mut world, effect);
    assert!(matches!(world.settled(resumed, &SETTLED), Released::Forward(..)));
}

#[test]
fn what_may_have_been_made_is_owed() {
    let mut world = world(&json!({"retries": 1}));
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    assert_eq!(settlement.class(), Class::Settle);
    let effect = world.settled(settlement, &CalloutReply::Lost);
    let settlement = again(&mut world, effect);
    assert_eq!(settlement.class(), Class::Owed);
    pending(world.settled(settlement, &CalloutReply::NotSent));
    // A client can take it up as often as it likes.
    let RequestEffect::Settle(resumed) = world.request("/paid", &[("payment-signature", &payment)], None).1 else {
        panic!("not resumed")
    };
    assert_eq!(resumed.class(), Class::Settle);
}

/// A used nonce is evidence about the payment whose settlement was sent, when it is taken up too: an honest client that has paid is not
/// kept waiting for ever. Of another payment with the same nonce, which may be a dearer one, it says nothing.
#[test]
fn a_used_nonce_counts_for_the_payment_that_was_sent_and_for_no_other() {
    let resumed = |world: &mut World, payment: &[u8]| match world.request("/paid", &[("payment-signature", payment)], None).1 {
        RequestEffect::Settle(settlement) => *settlement,
        _ => panic!("not resumed"),
    };
    for limit in ["0", "$0.001"] {
        let mut world = world(&json!({"retries": 0, "accept_used_nonce_up_to": limit}));
        let payment = world.payment(1);
        let settlement = world.settling(&[("payment-signature", &payment)]);
        pending(world.settled(settlement, &CalloutReply::Lost));
        let settlement = resumed(&mut world, &payment);
        match world.settled(settlement, &USED) {
            Released::Forward(..) => assert_eq!((limit, world.counted(&Note::Settled("inferred"))), ("$0.001", 1)),
            effect => {
                pending(effect);
                assert_eq!((limit, world.counted(&Note::Settled("inferred"))), ("0", 0));
            }
        }
    }
    let mut world = world(&json!({"retries": 0, "accept_used_nonce_up_to": "$100"}));
    let first = world.payment(1);
    let accepted = world.challenge()["accepts"][0].clone();
    let other = Terms {
        valid_before: support::NOW + 299,
        ..Terms::good(1)
    };
    let other = base64(&v2(&accepted, other.payload(&Payer::new(1))));
    let settlement = world.settling(&[("payment-signature", &first)]);
    pending(world.settled(settlement, &CalloutReply::Lost));
    // From now on nobody knows which of them it was.
    for payment in [&other, &first, &other] {
        let settlement = resumed(&mut world, payment);
        pending(world.settled(settlement, &USED));
    }
    assert_eq!(world.counted(&Note::Settled("inferred")), 0);
}

/// What the old configuration may yet hear of is not asked about twice.
#[test]
fn a_settlement_that_is_still_under_way_is_not_taken_over() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let mut settlement = world.settling(&[("payment-signature", &payment)]);
    world.env(|env| settlement.leave_pending(env));
    assert_eq!(world.refused(&[("payment-signature", &payment)]).status, 503);
    assert_eq!(receipt(world.settled(settlement, &SETTLED))["success"], true);
}

/// A smart wallet's payment is claimed once the facilitator has vouched for it, which it does not when it has just settled it.
#[test]
fn a_pending_payment_of_a_smart_wallet_is_not_challenged() {
    let mut world = world(&json!({"retries": 0, "accept_used_nonce_up_to": "0"}));
    let accepted = world.challenge()["accepts"][0].clone();
    let mut payload = Terms::good(1).payload(&Payer::new(1));
    payload["signature"] = format!("0x{}", "ab".repeat(100)).into();
    let payment = base64(&v2(&accepted, payload));
    let headers: [(&str, &[u8]); 1] = [("payment-signature", &payment)];
    let (mut late, _) = world.verifying(&headers);
    let settlement = world.settling(&headers);
    assert_eq!(
        world.refused(&headers).status,
        409,
        "nobody is asked about what another request has claimed"
    );
    pending(world.settled(settlement, &CalloutReply::Lost));
    assert_eq!(world.refused(&headers).status, 503);
    // It was asked about before: the answer is that of a settlement that went through.
    let used = CalloutReply::Answered {
        status: 200,
        body: br#"{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used"}"#,
    };
    match world.env(|env| late.on_verified(TOKEN, &used, env)) {
        Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) => {
            assert_eq!((answer.status, body(&answer)["error"].as_str()), (503, Some("settlement_pending")));
        }
        _ => panic!("not answered"),
    }
}

#[test]
fn a_payment_that_has_expired_takes_no_claim_from_another_one_of_its_nonce() {
    const SPENDER: alloy_primitives::Address = alloy_primitives::address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
    let mut configuration = configuration();
    configuration["accept"] =
        json!([{"scheme": "upto", "network": "eip155:84532", "asset": "USDC", "transfer": "permit", "spender": SPENDER.to_string()}]);
    let mut world = World::with(&configuration);
    let payment = |seconds| permit(&Payer::new(1), SPENDER, 1000, 1, seconds);
    let (mut slow, _) = world.forwarded(&[("x-payment", &payment(60))]);
    world.now += 100;
    let (mut other, _) = world.forwarded(&[("x-payment", &payment(300))]);
    assert!(world.env(|env| slow.on_end(x402_envoy::pricing::End::ClientGone, env)).is_none());
    let answer = world.refused(&[("x-payment", &payment(300))]);
    assert_eq!((answer.status, body(&answer)["error"].as_str()), (409, Some("payment_in_use")));
    // Its own end gives it back.
    assert!(world.env(|env| other.on_end(x402_envoy::pricing::End::ClientGone, env)).is_none());
    world.forwarded(&[("x-payment", &payment(300))]);
}
