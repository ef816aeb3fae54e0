//! What one payer may ask for, and what it calls its payments.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

mod support;

use serde_json::{Value, json};
use support::world::{SETTLED, World, body, configuration, header};
use support::{Payer, Terms, base64, unbase64, v2};
use x402_envoy::gate::{CalloutReply, Gate, Released, RequestEffect};
use x402_envoy::pricing::End;
use x402_envoy::x402::Answer;

fn world(more: &Value) -> World {
    let mut configuration = configuration();
    for (name, value) in more.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    World::with(&configuration)
}

/// A payment by one of many payers, valid from the world's time on.
fn payment(world: &mut World, payer: u8, nonce: u8) -> Vec<u8> {
    let accepted = world.challenge()["accepts"][0].clone();
    let terms = Terms {
        valid_before: world.now + 300,
        ..Terms::good(nonce)
    };
    base64(&v2(&accepted, terms.payload(&Payer::new(payer))))
}

fn refused(world: &mut World, payment: &[u8]) -> (u16, Option<String>, String) {
    let answer = world.refused(&[("payment-signature", payment)]);
    let error = body(&answer)["error"].as_str().unwrap().to_owned();
    (answer.status, header(&answer, "retry-after").map(str::to_owned), error)
}

fn too_much(seconds: &str) -> (u16, Option<String>, String) {
    (429, Some(seconds.to_owned()), "payer_limit_exceeded".to_owned())
}

// limits

#[test]
fn a_payer_that_asks_too_often_waits_and_its_payment_stays_good() {
    let mut world = world(&json!({"limits": {"payer": {"requests": 2, "window": "60s"}}}));
    for nonce in 1..3 {
        let payment = payment(&mut world, 1, nonce);
        world.verifying(&[("payment-signature", &payment)]);
    }
    world.now += 20;
    let third = payment(&mut world, 1, 3);
    assert_eq!(refused(&mut world, &third), too_much("40"));
    // Others are not concerned, and what is refused is neither counted nor held.
    let other = payment(&mut world, 2, 3);
    world.verifying(&[("payment-signature", &other)]);
    assert_eq!(refused(&mut world, &third), too_much("40"));
    world.now += 40;
    world.verifying(&[("payment-signature", &third)]);
}

#[test]
fn money_is_counted_and_comes_back_if_it_was_not_paid() {
    let mut world = world(&json!({"limits": {"payer": {"spend": "$0.002", "window": "60s"}}}));
    let first = payment(&mut world, 1, 1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &first)]);
    let second = payment(&mut world, 1, 2);
    world.verifying(&[("payment-signature", &second)]);
    let third = payment(&mut world, 1, 3);
    assert_eq!(refused(&mut world, &third), too_much("60"));
    world.env(|env| gate.on_end(End::ClientGone, env));
    world.verifying(&[("payment-signature", &third)]);
    assert_eq!(refused(&mut world, &first), too_much("60"));
}

#[test]
fn a_cooldown_holds_from_one_request_to_the_next() {
    let mut world = world(&json!({"limits": {"cooldown": "10s"}}));
    let (first, second) = (payment(&mut world, 1, 1), payment(&mut world, 1, 2));
    world.verifying(&[("payment-signature", &first)]);
    assert_eq!(refused(&mut world, &second), too_much("10"));
    world.now += 10;
    world.verifying(&[("payment-signature", &second)]);
}

#[test]
fn a_payment_that_is_refused_for_another_reason_is_not_counted() {
    let mut world = world(&json!({"limits": {"payer": {"requests": 2, "window": "60s"}}}));
    let first = payment(&mut world, 1, 1);
    world.verifying(&[("payment-signature", &first)]);
    for _ in 0..5 {
        assert_eq!(refused(&mut world, &first).2, "payment_in_use");
    }
    let second = payment(&mut world, 1, 2);
    world.verifying(&[("payment-signature", &second)]);
}

// payment_identifier

/// A payment with these extensions.
fn named(world: &mut World, nonce: u8, extensions: &Value) -> Vec<u8> {
    let accepted = world.challenge()["accepts"][0].clone();
    let mut payment = v2(&accepted, Terms::good(nonce).payload(&Payer::new(1)));
    payment["extensions"] = extensions.clone();
    base64(&payment)
}

fn identifier(id: &str, required: bool) -> Value {
    json!({"payment-identifier": {"info": {"required": required, "id": id}, "schema": {}}})
}

const ID: &str = "pay_7d5d747be160e280504c099d984bcfe0";

fn optional() -> World {
    world(&json!({"payment_identifier": "optional"}))
}

fn error(answer: &Answer) -> (u16, String) {
    (answer.status, body(answer)["error"].as_str().unwrap().to_owned())
}

#[test]
fn it_is_advertised_as_the_official_packages_do() {
    assert_eq!(World::new().challenge().get("extensions"), None);
    let advertised = optional().challenge()["extensions"].clone();
    assert_eq!(advertised["payment-identifier"]["info"], json!({"required": false}));
    assert_eq!(advertised["payment-identifier"]["schema"]["properties"]["id"]["minLength"], 16);
    let mut required = world(&json!({"payment_identifier": "required"}));
    let challenge = required.refused(&[]);
    let v2 = unbase64(header(&challenge, "payment-required").unwrap());
    assert_eq!(v2["extensions"]["payment-identifier"]["info"], json!({"required": true}));
    // Only v2 has words for it.
    assert_eq!(body(&challenge).get("accepts"), None);
    assert_eq!(header(&challenge, "x-payment-amount"), None);
}

#[test]
fn where_it_is_off_it_means_nothing() {
    let mut world = World::new();
    let first = named(&mut world, 1, &identifier(ID, true));
    let second = named(&mut world, 2, &identifier(ID, true));
    world.verifying(&[("payment-signature", &first)]);
    world.verifying(&[("payment-signature", &second)]);
}

#[test]
fn one_identifier_stands_for_one_payment_and_request() {
    let mut world = optional();
    let first = named(&mut world, 1, &identifier(ID, false));
    let anew = named(&mut world, 2, &identifier(ID, false));
    let other = named(&mut world, 2, &identifier("another-identifier", false));
    let settlement = world.settling(&[("payment-signature", &first)]);
    let conflict = (409, "payment_identifier_conflict".to_owned());
    let in_use = world.refused(&[("payment-signature", &first)]);
    assert_eq!(error(&in_use), (409, "payment_in_use".to_owned()));
    // Signed anew, for want of an answer: it does not pay twice.
    assert_eq!(error(&world.refused(&[("payment-signature", &anew)])), conflict);
    let Released::Edit(_, mut gate) = world.settled(settlement, &SETTLED) else {
        panic!("not let through")
    };
    world.env(|env| gate.on_end(End::ClientGone, env));
    assert_eq!(error(&world.refused(&[("payment-signature", &anew)])), conflict);
    match world.request("/paid?other", &[("payment-signature", &first)], None).1 {
        RequestEffect::Answer(answer) => assert_eq!(error(&answer), conflict),
        _ => panic!("not answered"),
    }
    // The same again is had again.
    let again = world.request("/paid", &[("payment-signature", &first)], None);
    assert!(matches!(again, (Gate::Prepaid(_), RequestEffect::Forward(_))));
    world.verifying(&[("payment-signature", &other)]);
}

#[test]
fn a_payment_that_is_given_back_gives_its_name_back() {
    let mut world = optional();
    let first = named(&mut world, 1, &identifier(ID, false));
    let anew = named(&mut world, 2, &identifier(ID, false));
    let (mut gate, _) = world.forwarded(&[("payment-signature", &first)]);
    let _ = world.respond(&mut gate, 500, true);
    let settlement = world.settling(&[("payment-signature", &anew)]);
    // One that is pending keeps it.
    let Released::Answer(_) = world.settled(settlement, &CalloutReply::Lost) else {
        panic!("not answered")
    };
    assert_eq!(
        error(&world.refused(&[("payment-signature", &first)])),
        (409, "payment_identifier_conflict".to_owned())
    );
    assert!(matches!(
        world.request("/paid", &[("payment-signature", &anew)], None).1,
        RequestEffect::Settle(_)
    ));
}

#[test]
fn names_belong_to_their_payers() {
    let mut world = optional();
    let accepted = world.challenge()["accepts"][0].clone();
    for payer in 1..4 {
        let mut payment = v2(&accepted, Terms::good(1).payload(&Payer::new(payer)));
        payment["extensions"] = identifier(ID, false);
        world.verifying(&[("payment-signature", &base64(&payment))]);
    }
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let mut required = world(&json!({"payment_identifier": "required"}));
    for (extensions, status, reason) in [
        (json!({}), 400, "payment_identifier_required"),
        (json!({"other": {"info": {}}}), 400, "payment_identifier_required"),
        (
            json!({"payment-identifier": {"info": {"required": true}}}),
            400,
            "payment_identifier_required",
        ),
        (
            json!({"payment-identifier": {"info": {"required": true, "id": null}}}),
            400,
            "payment_identifier_required",
        ),
        (identifier(ID, false), 402, "extension_echo_mismatch"),
        (json!({"payment-identifier": {"info": {"id": ID}}}), 402, "extension_echo_mismatch"),
        (json!({"payment-identifier": {}}), 402, "extension_echo_mismatch"),
        (json!({"payment-identifier": 7}), 402, "extension_echo_mismatch"),
        (identifier("too-short", true), 400, "invalid_payload"),
        (identifier(&"x".repeat(129), true), 400, "invalid_payload"),
        (identifier("no spaces in an identifier", true), 400, "invalid_payload"),
        (
            json!({"payment-identifier": {"info": {"required": true, "id": 12_345_678_901_234_567_u64}}}),
            400,
            "invalid_payload",
        ),
    ] {
        let payment = named(&mut required, 1, &extensions);
        let answer = required.refused(&[("payment-signature", &payment)]);
        assert_eq!(error(&answer), (status, reason.to_owned()), "{extensions}");
    }
    let payment = named(&mut required, 1, &identifier(&"x".repeat(128), true));
    required.verifying(&[("payment-signature", &payment)]);
}
