//! When money moves and when the backend may begin: `upfront`, and `verify: overlap` and `local`.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, VALID, World, body, configuration, header};
use support::{Payer, Terms, base64, unbase64, v2};
use x402_envoy::gate::{
    CalloutReply, CalloutToken, Edits, Endpoint, Gate, Note, Released, RequestEffect, ResponseEffect, Settlement, VerifiedEffect,
};
use x402_envoy::pricing::End;

const REFUSED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"isValid":false,"invalidReason":"insufficient_funds"}"#,
};
const NOT_SETTLED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#,
};

/// A world whose /paid has these fields too.
fn world(fields: &Value) -> World {
    let mut configuration = configuration();
    let route = configuration["routes"][2].as_object_mut().unwrap();
    route.extend(fields.as_object().unwrap().clone());
    World::with(&configuration)
}

fn request(world: &mut World, payment: &[u8]) -> (Gate, RequestEffect) {
    world.request("/paid", &[("payment-signature", payment)], None)
}

fn again(world: &mut World, payment: &[u8]) -> (u16, String) {
    match request(world, payment).1 {
        RequestEffect::Answer(answer) => (answer.status, body(&answer)["error"].as_str().unwrap_or_default().into()),
        RequestEffect::Verify(_) | RequestEffect::Settle(_) | RequestEffect::Forward(_) => (0, "taken".into()),
    }
}

fn tells_the_backend(edits: &Edits) {
    assert!(edits.remove.contains(&"payment-signature".into()));
    assert!(edits.set.contains(&("x-x402-payer", Payer::new(1).address().to_string())));
    assert!(edits.set.contains(&("x-x402-amount", "1000".into())));
}

fn outcome(world: &World) -> &str {
    let said = world.notes.attributes.iter().rev().find(|(name, _)| *name == "outcome");
    said.map_or("", |(_, value)| value)
}

/// A request that waits for its settlement.
fn paying(world: &mut World, payment: &[u8]) -> (Gate, Settlement) {
    match request(world, payment) {
        (gate @ Gate::Paying, RequestEffect::Settle(settlement)) => (gate, *settlement),
        _ => panic!("not settled first"),
    }
}

/// A request whose verification was sent as it left for the backend.
fn overlapping(world: &mut World, payment: &[u8]) -> Gate {
    let RequestEffect::Verify(dispatch) = request(world, payment).1 else {
        panic!("not verified")
    };
    let (call, waiting) = dispatch.split();
    assert_eq!(call.endpoint, Endpoint::Verify);
    let (gate, edits) = waiting.sent(TOKEN);
    tells_the_backend(&edits.expect("the backend begins as soon as the call is sent"));
    assert!(gate.lets_request_on());
    gate
}

#[test]
fn upfront_is_advertised_and_settled_before_the_backend_is_asked() {
    let mut world = world(&json!({"flow": "upfront"}));
    assert_eq!(world.challenge()["accepts"][0]["extra"]["paymentFlow"], "upfront");
    let payment = world.payment(1);
    let (gate, settlement) = paying(&mut world, &payment);
    assert!(!gate.lets_request_on());
    assert_eq!(settlement.call().endpoint, Endpoint::Settle);
    assert_eq!(again(&mut world, &payment).1, "payment_in_use");
    let Released::Forward(edits, mut gate) = world.settled(settlement, &SETTLED) else {
        panic!("not forwarded")
    };
    tells_the_backend(&edits);
    assert!(gate.lets_request_on());
    let ResponseEffect::Edit(edits) = world.respond(&mut gate, 200, true) else {
        panic!("held back")
    };
    let receipt = edits.set.iter().find(|(name, _)| *name == "payment-response").unwrap();
    assert_eq!(unbase64(&receipt.1)["success"], true);
    assert!(edits.remove.contains(&"payment-response".into()), "a forged one");
    assert_eq!(outcome(&world), "paid");
    assert!(world.env(|env| gate.on_end(End::Complete, env)).is_none());
    assert_eq!(again(&mut world, &payment).1, "nonce_already_used");
    assert_eq!(world.counted(&Note::Earned("USDC".into(), "base-sepolia".into(), 1000)), 1);
}

#[test]
fn what_was_paid_up_front_and_not_delivered_is_said_to_be() {
    for (status, from_backend) in [(500, true), (404, true), (504, false), (200, false)] {
        let mut world = world(&json!({"flow": "upfront"}));
        let payment = world.payment(1);
        let (_, settlement) = paying(&mut world, &payment);
        let Released::Forward(_, mut gate) = world.settled(settlement, &SETTLED) else {
            panic!("not forwarded")
        };
        let receipt = match world.respond(&mut gate, status, from_backend) {
            ResponseEffect::Edit(edits) if status >= 400 => edits.set.iter().any(|(name, _)| *name == "payment-response"),
            // What is not the backend's is not handed out in the place of what was bought.
            ResponseEffect::Answer(answer) if answer.status == 502 => answer.headers.iter().any(|(name, _)| *name == "payment-response"),
            _ => panic!("{status}"),
        };
        assert!(receipt, "{status}");
        assert_eq!(outcome(&world), "paid_not_delivered", "{status}");
    }
    let mut world = world(&json!({"flow": "upfront"}));
    let payment = world.payment(1);
    let (_, settlement) = paying(&mut world, &payment);
    let Released::Forward(_, mut gate) = world.settled(settlement, &SETTLED) else {
        panic!("not forwarded")
    };
    assert!(world.env(|env| gate.on_end(End::ClientGone, env)).is_none());
    assert_eq!(outcome(&world), "paid_not_delivered");
}

#[test]
fn what_cannot_be_settled_up_front_never_reaches_the_backend() {
    for (reply, status, reason, then) in [
        (NOT_SETTLED, 402, "insufficient_funds", "taken"),
        (CalloutReply::Lost, 503, "settlement_pending", "taken"),
        (CalloutReply::NotSent, 503, "facilitator_unavailable", "taken"),
    ] {
        let mut world = world(&json!({"flow": "upfront"}));
        let payment = world.payment(1);
        let (_, settlement) = paying(&mut world, &payment);
        let Released::Answer(answer) = world.settled(settlement, &reply) else {
            panic!("not answered")
        };
        assert_eq!((answer.status, body(&answer)["error"].as_str()), (status, Some(reason)));
        assert_eq!(header(&answer, "payment-required").is_some(), status == 402);
        assert_eq!(again(&mut world, &payment).1, then, "{reason}");
    }
    // The client left before the call was sent.
    let mut world = world(&json!({"flow": "upfront"}));
    let payment = world.payment(1);
    let (_, settlement) = paying(&mut world, &payment);
    assert!(world.env(|env| Box::new(settlement).abandon(env)).is_none());
    assert_eq!(again(&mut world, &payment).1, "taken");
}

#[test]
fn a_payment_that_nobody_here_can_vouch_for_is_verified_first() {
    for fields in [json!({"flow": "upfront"}), json!({"verify": "overlap"}), json!({"verify": "local"})] {
        let mut world = world(&fields);
        let accepted = world.challenge()["accepts"][0].clone();
        let mut payload = Terms::good(1).payload(&Payer::new(1));
        payload["signature"] = format!("0x{}", "ab".repeat(100)).into();
        let payment = base64(&v2(&accepted, payload));
        let (_, RequestEffect::Verify(dispatch)) = request(&mut world, &payment) else {
            panic!("{fields}: not verified first")
        };
        let (mut gate, edits) = dispatch.split().1.sent(TOKEN);
        assert!(edits.is_none() && !gate.lets_request_on(), "{fields}");
        match world.env(|env| gate.on_verified(TOKEN, &VALID, env)) {
            Some(VerifiedEffect::Request(RequestEffect::Settle(_))) => assert_eq!(fields["flow"], "upfront"),
            Some(VerifiedEffect::Request(RequestEffect::Forward(edits))) => {
                assert_ne!(fields["flow"], "upfront");
                tells_the_backend(&edits);
            }
            _ => panic!("{fields}: neither settled nor forwarded"),
        }
    }
}

#[test]
fn local_asks_nobody_before_the_settlement() {
    let mut world = world(&json!({"verify": "local"}));
    let payment = world.payment(1);
    let (mut gate, RequestEffect::Forward(edits)) = request(&mut world, &payment) else {
        panic!("not forwarded")
    };
    tells_the_backend(&edits);
    assert_eq!(again(&mut world, &payment).1, "payment_in_use");
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("let out unpaid")
    };
    let Released::Answer(answer) = world.settled(*settlement, &NOT_SETTLED) else {
        panic!("let out unpaid")
    };
    assert_eq!(answer.status, 402);
    let mut world = self::world(&json!({"verify": "local"}));
    let (mut gate, _) = request(&mut world, &payment);
    assert!(matches!(world.respond(&mut gate, 500, true), ResponseEffect::Edit(_)));
    assert_eq!(again(&mut world, &payment).1, "taken", "an error costs nothing");
}

#[test]
fn overlap_lets_the_answer_out_when_both_are_there() {
    // The verdict comes first.
    let mut first = world(&json!({"verify": "overlap"}));
    let payment = first.payment(1);
    let mut gate = overlapping(&mut first, &payment);
    assert!(matches!(
        first.env(|env| gate.on_verified(TOKEN, &VALID, env)),
        Some(VerifiedEffect::Nothing)
    ));
    assert!(matches!(first.respond(&mut gate, 200, true), ResponseEffect::Settle(_)));

    // The answer does.
    let mut second = world(&json!({"verify": "overlap"}));
    let mut gate = overlapping(&mut second, &payment);
    assert!(matches!(second.respond(&mut gate, 200, true), ResponseEffect::Wait));
    assert!(gate.holds_response());
    assert!(second.env(|env| gate.on_verified(CalloutToken(8), &VALID, env)).is_none());
    let Some(VerifiedEffect::Response(ResponseEffect::Settle(settlement))) = second.env(|env| gate.on_verified(TOKEN, &VALID, env)) else {
        panic!("not settled")
    };
    assert!(!gate.holds_response());
    let Released::Edit(edits, _) = second.settled(*settlement, &SETTLED) else {
        panic!("not let out")
    };
    assert!(
        edits.remove.contains(&"settlement-overrides".into()),
        "what the backend's headers were is known"
    );
}

#[test]
fn overlap_lets_nothing_out_for_what_is_refused() {
    for answered in [false, true] {
        for (reply, status, reason) in [
            (REFUSED, 402, "insufficient_funds"),
            (CalloutReply::Lost, 503, "facilitator_unavailable"),
        ] {
            let mut world = world(&json!({"verify": "overlap"}));
            let payment = world.payment(1);
            let mut gate = overlapping(&mut world, &payment);
            if answered {
                assert!(matches!(world.respond(&mut gate, 200, true), ResponseEffect::Wait));
            }
            let Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) = world.env(|env| gate.on_verified(TOKEN, &reply, env)) else {
                panic!("not answered")
            };
            assert_eq!((answer.status, body(&answer)["error"].as_str()), (status, Some(reason)));
            // The local reply passes, and so does an answer that comes all the same: Envoy drops it.
            assert!(matches!(world.respond(&mut gate, status, false), ResponseEffect::Pass));
            assert_eq!(again(&mut world, &payment).1, "taken");
        }
    }
}

#[test]
fn overlap_charges_nothing_for_errors_and_for_clients_that_leave() {
    for status in [400, 500] {
        let mut world = world(&json!({"verify": "overlap"}));
        let payment = world.payment(1);
        let mut gate = overlapping(&mut world, &payment);
        assert!(matches!(world.respond(&mut gate, status, true), ResponseEffect::Edit(_)));
        assert!(
            world.env(|env| gate.on_verified(TOKEN, &VALID, env)).is_none(),
            "too late to matter"
        );
        assert_eq!(again(&mut world, &payment).1, "taken");
    }
    let mut world = world(&json!({"verify": "overlap"}));
    let payment = world.payment(1);
    let mut gate = overlapping(&mut world, &payment);
    assert!(matches!(world.respond(&mut gate, 200, true), ResponseEffect::Wait));
    assert!(world.env(|env| gate.on_end(End::ClientGone, env)).is_none());
    assert_eq!(again(&mut world, &payment).1, "taken");
}

#[test]
fn overlap_asks_the_next_facilitator_while_the_backend_works() {
    let mut configuration = configuration();
    let first = configuration["facilitators"][0].clone();
    let second = json!({"cluster": "second", "url": "http://127.0.0.1:4023"});
    configuration["facilitators"] = json!([first, second]);
    configuration["routes"][2]["verify"] = "overlap".into();
    let mut world = World::with(&configuration);
    let payment = world.payment(1);
    let mut gate = overlapping(&mut world, &payment);
    assert!(matches!(world.respond(&mut gate, 200, true), ResponseEffect::Wait));
    let Some(VerifiedEffect::Request(RequestEffect::Verify(dispatch))) = world.env(|env| gate.on_verified(TOKEN, &CalloutReply::Lost, env))
    else {
        panic!("nobody else was asked")
    };
    let (call, waiting) = dispatch.split();
    assert_eq!(call.facilitator, 1);
    let other = CalloutToken(8);
    let (mut gate, edits) = waiting.sent(other);
    assert!(edits.is_none() && gate.holds_response());
    assert!(matches!(
        world.env(|env| gate.on_verified(other, &VALID, env)),
        Some(VerifiedEffect::Response(ResponseEffect::Settle(_)))
    ));
}

#[test]
fn what_cannot_be_sent_does_not_begin() {
    let mut world = world(&json!({"verify": "overlap"}));
    let payment = world.payment(1);
    let RequestEffect::Verify(dispatch) = request(&mut world, &payment).1 else {
        panic!("not verified")
    };
    let (_, waiting) = dispatch.split();
    let (_, effect) = world.env(|env| waiting.not_sent(env));
    let RequestEffect::Answer(answer) = effect else {
        panic!("not answered")
    };
    assert_eq!(answer.status, 503);
    assert_eq!(again(&mut world, &payment).1, "taken");
}

#[test]
fn what_makes_no_sense_is_refused_by_its_path() {
    for (fields, words) in [
        (
            json!({"flow": "upfront", "verify": "local"}),
            "routes[2].verify: found verify on a route that is settled up front",
        ),
        (
            json!({"verify": "never"}),
            "routes[2].verify: found \"never\", expected before or overlap or local",
        ),
        (
            json!({"flow": "metered", "verify": "local", "accept": [{"scheme": "upto", "network": "eip155:84532", "asset": "USDC"}]}),
            "routes[2].verify: found local on a metered route",
        ),
        (json!({"price": "free", "verify": "local"}), "routes[2].verify"),
    ] {
        let mut configuration = configuration();
        let route = configuration["routes"][2].as_object_mut().unwrap();
        route.extend(fields.as_object().unwrap().clone());
        let errors = x402_envoy::config::parse(configuration.to_string().as_bytes()).unwrap_err();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line.contains(words)), "{fields}: {lines:?}");
    }
}
