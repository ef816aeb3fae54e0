//! Prices of the configuration before: good for a while after a reload, for who was quoted them, and for nothing else.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, VALID, World, body, configuration};
use support::{NOW, Payer, Terms, base64, unbase64, v1, v2};
use x402_envoy::config::parse;
use x402_envoy::gate::{Gate, Note, Released, RequestEffect, ResponseEffect, VerifiedEffect};
use x402_envoy::pricing::{Atomic, Former, Place, RequestFacts, Routes};
use x402_envoy::reader::Rewrite;

/// Seconds for which the former price is good.
const GRACE: u64 = 60;

/// A world that asks for 2000 since now, and asked for 1000 until now; `change` is what else is new.
fn reloaded(change: impl FnOnce(&mut Value)) -> World {
    let before = parse(configuration().to_string().as_bytes()).unwrap();
    let mut configuration = configuration();
    configuration["routes"][2]["price"] = json!({"per_request": "$0.002"});
    change(&mut configuration);
    let mut world = World::with(&configuration);
    world.former = Some(Former::new(&before.routes, &world.config.routes, (NOW + GRACE) * 1000));
    world
}

/// Payments of 1000, as each kind of client would make them of a challenge of before.
fn payments(nonce: u8) -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let mut world = World::new();
    let accepted = world.challenge()["accepts"][0].clone();
    let payload = |number: u8| Terms::good(nonce.wrapping_add(number)).payload(&Payer::new(1));
    let plain = payload(2);
    let (signed, text) = (&plain["authorization"], |value: &Value| value.as_str().unwrap().as_bytes().to_vec());
    let mut headers = vec![
        ("x-payment-signature", text(&plain["signature"])),
        ("x-payment-payer", text(&signed["from"])),
        ("x-payment-network", b"base-sepolia".to_vec()),
        ("x-payment-nonce", text(&signed["nonce"])),
        ("x-payment-valid-after", text(&signed["validAfter"])),
        ("x-payment-valid-before", text(&signed["validBefore"])),
    ];
    let without_amount = headers.clone();
    headers.push(("x-payment-amount", b"0.001".to_vec()));
    vec![
        vec![("payment-signature", base64(&v2(&accepted, payload(0))))],
        vec![("x-payment", base64(&v1(payload(1))))],
        headers,
        without_amount,
    ]
}

fn headers<'a>(payment: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'static str, &'a [u8])> {
    payment.iter().map(|(name, value)| (*name, &**value)).collect()
}

/// What the facilitator is asked for, and what is earned.
fn pays(world: &mut World, payment: &[(&'static str, Vec<u8>)]) -> (String, u128) {
    let (mut gate, call) = world.verifying(&headers(payment));
    let call: Value = serde_json::from_slice(&call.body).unwrap();
    let requirements = &call["paymentRequirements"];
    let asked = [&requirements["amount"], &requirements["maxAmountRequired"]];
    let asked = asked.iter().find_map(|amount| amount.as_str()).unwrap().to_owned();
    let Some(VerifiedEffect::Request(RequestEffect::Forward(_))) = world.env(|env| gate.on_verified(TOKEN, &VALID, env)) else {
        panic!("not forwarded")
    };
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settled")
    };
    assert!(matches!(world.settled(*settlement, &SETTLED), Released::Edit(..)));
    let earned = world.notes.events.iter().rev().find_map(|note| match note {
        Note::Earned(_, _, amount) => Some(*amount),
        _ => None,
    });
    (asked, earned.unwrap())
}

#[test]
fn who_was_quoted_before_the_reload_pays_that() {
    let mut world = reloaded(|_| {});
    for (number, payment) in payments(1).iter().take(3).enumerate() {
        assert_eq!(pays(&mut world, payment), ("1000".into(), 1000), "{number}");
    }
    assert_eq!(world.counted(&Note::FormerQuote), 3);
    let asked = world.challenge()["accepts"][0]["amount"].clone();
    assert_eq!(asked, "2000", "nobody is quoted it again");
}

#[test]
fn a_plain_payment_that_does_not_say_its_amount_counts_by_its_signature() {
    let mut world = reloaded(|_| {});
    assert_eq!(pays(&mut world, &payments(9)[3]).1, 1000);
}

#[test]
fn the_former_price_ends_with_the_grace() {
    for (later, taken) in [(0, true), (GRACE - 1, true), (GRACE, false)] {
        let mut world = reloaded(|_| {});
        let payment = payments(1).remove(0);
        world.now += later;
        match world.request("/paid", &headers(&payment), None) {
            (Gate::Done, RequestEffect::Verify(_)) => assert!(taken, "{later}"),
            (_, RequestEffect::Answer(answer)) => {
                assert!(!taken, "{later}");
                assert_eq!(
                    (answer.status, body(&answer)["error"].as_str()),
                    (402, Some("invalid_payment_requirements"))
                );
            }
            _ => panic!("let through"),
        }
    }
}

#[test]
fn what_was_sold_in_the_grace_is_settled_after_it() {
    let mut world = reloaded(|_| {});
    let payment = payments(1).remove(0);
    let (mut gate, _) = world.verifying(&headers(&payment));
    world.now += GRACE + 10;
    assert!(matches!(
        world.env(|env| gate.on_verified(TOKEN, &VALID, env)),
        Some(VerifiedEffect::Request(RequestEffect::Forward(_)))
    ));
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settled")
    };
    assert!(String::from_utf8_lossy(&settlement.call().body).contains("\"1000\""));
}

#[test]
fn a_refused_payment_is_challenged_for_what_is_asked_now() {
    let mut world = reloaded(|_| {});
    let payment = payments(1).remove(0);
    let (mut gate, _) = world.verifying(&headers(&payment));
    let reply = x402_envoy::gate::CalloutReply::Answered {
        status: 200,
        body: br#"{"isValid":false,"invalidReason":"insufficient_funds"}"#,
    };
    let Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) = world.env(|env| gate.on_verified(TOKEN, &reply, env)) else {
        panic!("not answered")
    };
    let challenge = unbase64(support::world::header(&answer, "payment-required").unwrap());
    assert_eq!(challenge["accepts"][0]["amount"], "2000");
}

/// Each of these is another thing than a price, and holds at once.
#[test]
fn nothing_but_the_amount_is_taken_from_before() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("recipient", |new| {
            new["pay_to"]["eip155"] = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65".into();
        }),
        ("transfer", |new| new["accept"][0]["transfer"] = "permit2".into()),
        ("network", |new| new["accept"][0]["network"] = "eip155:8453".into()),
        ("scheme", |new| new["accept"][0]["scheme"] = "upto".into()),
        ("timeout", |new| new["accept"][0]["max_timeout"] = "299s".into()),
        ("name", |new| new["routes"][2]["name"] = "other".into()),
    ];
    for (what, change) in changes {
        let mut world = reloaded(change);
        for payment in payments(1) {
            match world.request("/paid", &headers(&payment), None).1 {
                RequestEffect::Answer(_) => {}
                _ => panic!("{what}: taken"),
            }
        }
        assert_eq!(world.counted(&Note::FormerQuote), 0, "{what}");
    }
}

#[test]
fn a_made_up_amount_is_no_former_price() {
    let mut world = reloaded(|_| {});
    let mut accepted = world.challenge()["accepts"][0].clone();
    for amount in [1, 999, 1001, 1999] {
        accepted["amount"] = amount.to_string().into();
        let terms = Terms {
            value: amount,
            ..Terms::good(1)
        };
        let payment = base64(&v2(&accepted, terms.payload(&Payer::new(1))));
        let answer = world.refused(&[("payment-signature", &payment)]);
        assert_eq!(body(&answer)["error"], "invalid_payment_requirements", "{amount}");
    }
}

#[test]
fn a_route_that_is_free_now_asks_nothing_and_one_that_is_gone_sells_nothing() {
    let payment = payments(1).remove(0);
    let mut world = reloaded(|new| new["routes"][2]["price"] = "free".into());
    assert!(matches!(
        world.request("/paid", &headers(&payment), None).1,
        RequestEffect::Forward(_)
    ));
    let mut world = reloaded(|new| {
        new["routes"].as_array_mut().unwrap().remove(2);
        new["unmatched"] = "deny".into();
    });
    assert_eq!(world.refused(&headers(&payment)).status, 403);
}

fn per_token(max_output: u64) -> Routes {
    let mut configuration = configuration();
    configuration["routes"] = json!([{
        "name": "chat", "match": {"path": "/v1/chat/completions"},
        "price": {"per_token": {"input": "$0.000001", "output": "$0.000001", "max_output": max_output}},
    }]);
    parse(configuration.to_string().as_bytes()).unwrap().routes
}

/// A limit that is written into the body must hold under the quote that is paid.
#[test]
fn the_reader_writes_the_limit_of_the_price_that_is_paid() {
    for (before, now) in [(100, 4096), (4096, 100)] {
        let (former, routes) = (per_token(before), per_token(now));
        let place = Place {
            method: b"POST",
            authority: b"api.example.com",
            path: b"/v1/chat/completions",
            envoy_route: None,
            is_cors_preflight: false,
        };
        let request = RequestFacts {
            place,
            headers: &[],
            body: None,
        };
        let sent = br#"{"messages":[]}"#;
        let reading = routes.read(Some(&former), &request, sent, Some(b"application/json"), None, false);
        let limit = |max| Rewrite {
            set_max_output: Some(max),
            include_usage: false,
        };
        assert_eq!((reading.rewrite, reading.former_rewrite), (limit(now), limit(before.min(now))));
        let facts = RequestFacts {
            body: Some(&reading.facts),
            ..request
        };
        let input = 100 + 15;
        assert!(routes.asks(&facts, Atomic(u128::from(input + now))));
        assert!(!routes.asks(&facts, Atomic(u128::from(input + before))));
    }
}
