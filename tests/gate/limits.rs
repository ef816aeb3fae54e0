//! What one payer may ask for, and what it calls its payments.

use crate::support;

use serde_json::{Value, json};
use std::cell::Cell;
use support::world::{SETTLED, TOKEN, VALID, World, body, configuration, header, solana};
use support::{Payer, Terms, base64, permit, unbase64, v2};
use x402_envoy::gate::{CalloutReply, Env, Gate, Notes, Released, Request, RequestEffect, Response, ResponseEffect, VerifiedEffect, open};
use x402_envoy::pricing::{End, Place};
use x402_envoy::replay::{Cas, Conflict, MemoryStore, SharedStore, UnixSeconds};
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
fn money_that_was_not_paid_comes_back_in_its_own_window_alone() {
    let mut world = world(&json!({"limits": {"payer": {"spend": "$0.002", "window": "60s"}}}));
    let mut slow = Vec::new();
    for nonce in 1..3 {
        let payment = payment(&mut world, 1, nonce);
        slow.push(world.verifying(&[("payment-signature", &payment)]).0);
    }
    world.now += 60;
    for nonce in 3..5 {
        let payment = payment(&mut world, 1, nonce);
        world.verifying(&[("payment-signature", &payment)]);
    }
    let more = payment(&mut world, 1, 5);
    assert_eq!(refused(&mut world, &more), too_much("60"));
    for mut gate in slow {
        world.env(|env| gate.on_end(End::ClientGone, env));
    }
    assert_eq!(refused(&mut world, &more), too_much("60"));
}

#[test]
fn who_does_as_it_is_told_while_nobody_can_be_asked_is_not_counted() {
    let limits = json!({"cooldown": "30s", "payer": {"requests": 1, "spend": "$0.001", "window": "24h"}});
    for flow in ["authorization", "upfront"] {
        let route = json!({"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}, "flow": flow});
        let mut world = world(&json!({"limits": limits, "routes": [route]}));
        let first = payment(&mut world, 1, 1);
        let sent: &[(&str, &[u8])] = &[("payment-signature", &first)];
        for _ in 0..5 {
            let answer = match world.request("/paid", sent, None).1 {
                RequestEffect::Verify(dispatch) => {
                    let waiting = dispatch.split().1;
                    world.env(|env| waiting.not_sent(env)).1
                }
                RequestEffect::Settle(settlement) => match world.settled(*settlement, &CalloutReply::NotSent) {
                    Released::Answer(answer) => RequestEffect::Answer(answer.into()),
                    _ => panic!("not answered"),
                },
                effect => effect,
            };
            match answer {
                RequestEffect::Answer(answer) => assert_eq!(error(&answer), (503, "facilitator_unavailable".to_owned()), "{flow}"),
                _ => panic!("not answered"),
            }
            world.now += 5;
        }
        // The facilitator is back.
        assert!(!matches!(world.request("/paid", sent, None).1, RequestEffect::Answer(_)), "{flow}");
        let second = payment(&mut world, 1, 2);
        assert_eq!(refused(&mut world, &second).0, 429, "{flow}");
    }
}

#[test]
fn what_the_backend_lets_off_is_not_counted() {
    const SPENDER: alloy_primitives::Address = alloy_primitives::address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
    let upto =
        json!([{"scheme": "upto", "network": "eip155:84532", "asset": "USDC", "transfer": "permit", "spender": SPENDER.to_string()}]);
    let mut world = world(&json!({"accept": upto, "limits": {"payer": {"spend": "$0.0015", "window": "60s"}}}));
    let mut paid = |nonce, amount: &str| {
        let payment = permit(&Payer::new(1), SPENDER, 1000, nonce, 300);
        let (mut gate, _) = world.forwarded(&[("x-payment", &payment)]);
        let told = format!("{{\"amount\":\"{amount}\"}}");
        let response = Response {
            status: 200,
            from_backend: true,
            ended: false,
            headers: &[(b"settlement-overrides", told.as_bytes())],
        };
        match world.env(|env| gate.on_response(&response, env)) {
            ResponseEffect::Settle(settlement) => assert!(matches!(world.settled(*settlement, &SETTLED), Released::Edit(..))),
            ResponseEffect::Edit(_) => {}
            _ => panic!("not let through"),
        }
    };
    for nonce in 1..6 {
        paid(nonce, "100");
    }
    paid(6, "0");
    let payment = permit(&Payer::new(1), SPENDER, 1000, 7, 300);
    paid(8, "600");
    assert_eq!(
        error(&world.refused(&[("x-payment", &payment)])),
        (429, "payer_limit_exceeded".to_owned())
    );
}

#[test]
fn nobody_is_counted_by_a_payment_that_somebody_else_has_made_up() {
    const NOT_SIGNED: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"isValid":false,"invalidReason":"invalid_exact_svm_payload_signature_invalid"}"#,
    };
    let (mut world, payment, payer) = solana(&json!({"limits": {"cooldown": "10s", "payer": {"requests": 1, "window": "60s"}}}));
    let sent: &[(&str, &[u8])] = &[("payment-signature", &payment)];
    for _ in 0..3 {
        let (mut gate, _) = world.verifying(sent);
        let refused = world.env(|env| gate.on_verified(TOKEN, &NOT_SIGNED, env));
        assert!(matches!(refused, Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) if answer.status == 402));
    }
    // The payer's own is, once the facilitator has vouched for it.
    let (mut gate, edits) = world.forwarded(sent);
    assert!(edits.set.iter().any(|(name, value)| *name == "x-x402-payer" && *value == payer));
    let _ = world.respond(&mut gate, 500, true);
    let (mut gate, _) = world.verifying(sent);
    match world.env(|env| gate.on_verified(TOKEN, &VALID, env)) {
        Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) => {
            assert_eq!(error(&answer), (429, "payer_limit_exceeded".to_owned()));
        }
        _ => panic!("not answered"),
    }
    // And its payment stays unused.
    world.now += 60;
    world.forwarded(sent);
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
fn a_payment_that_has_bought_nothing_and_never_will_gives_its_name_back() {
    const REVERTED: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"transaction_failed","transaction":"0x34f0300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0ba"}"#,
    };
    const USED: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":""}"#,
    };
    let limits = json!({"payer": {"spend": "$0.001", "window": "1h"}});
    for reply in [Some(REVERTED), Some(USED), None] {
        let mut world = world(&json!({"payment_identifier": "optional", "limits": limits}));
        let first = named(&mut world, 1, &identifier(ID, false));
        let (mut gate, _) = world.forwarded(&[("payment-signature", &first)]);
        let effect = match reply {
            Some(reply) => match world.respond(&mut gate, 200, true) {
                ResponseEffect::Settle(settlement) => world.settled(*settlement, &reply),
                _ => panic!("not settling"),
            },
            None => {
                // The backend has taken so long that the payment has expired.
                world.now += 400;
                match world.respond(&mut gate, 200, true) {
                    ResponseEffect::Answer(answer) => Released::Answer(answer),
                    _ => panic!("not answered"),
                }
            }
        };
        let Released::Answer(answer) = effect else { panic!("not answered") };
        assert!(answer.status == 402 && header(&answer, "payment-required").is_some());
        // So the client does as it is told.
        let accepted = world.challenge()["accepts"][0].clone();
        let terms = Terms {
            valid_before: world.now + 300,
            ..Terms::good(2)
        };
        let mut anew = v2(&accepted, terms.payload(&Payer::new(1)));
        anew["extensions"] = identifier(ID, false);
        world.verifying(&[("payment-signature", &base64(&anew))]);
    }
}

/// A store in which something happens before the first write to a claim.
struct Interrupted<'a> {
    store: &'a MemoryStore,
    meanwhile: Cell<Option<&'a dyn Fn()>>,
}

impl SharedStore for Interrupted<'_> {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.store.get(key)
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        if key.contains("claims")
            && let Some(meanwhile) = self.meanwhile.take()
        {
            meanwhile();
        }
        self.store.compare_and_swap(key, value, cas)
    }
}

#[test]
fn who_loses_the_race_for_a_payment_leaves_its_name_to_the_winner() {
    let mut world = optional();
    let first = named(&mut world, 1, &identifier(ID, false));
    let anew = named(&mut world, 2, &identifier(ID, false));
    let send = |store: &dyn SharedStore| {
        let place = Place {
            method: b"GET",
            authority: b"api.example.com",
            path: b"/paid",
            envoy_route: None,
            is_cors_preflight: false,
        };
        let request = Request {
            place,
            scheme: b"https",
            headers: &[(b"payment-signature", &first)],
            body: None,
            ended: true,
        };
        let mut env = Env {
            now: UnixSeconds(world.now),
            now_ms: world.now * 1000,
            config: &world.config,
            former: None,
            supported: &world.table,
            store,
            claims: &world.claims,
            secret: &[9; 16],
            mark: &x402_envoy::gate::mark(&[9; 16]),
            payers: &x402_envoy::evm::Payers::default(),
            leases: &std::cell::RefCell::default(),
            challenges: &std::cell::RefCell::default(),
            random: || [7; 16],
            notes: &mut Notes::default(),
        };
        open(&request, &mut env).1
    };
    let winner = || assert!(matches!(send(&world.store), RequestEffect::Verify(_)));
    let store = Interrupted {
        store: &world.store,
        meanwhile: Cell::new(Some(&winner)),
    };
    match send(&store) {
        RequestEffect::Answer(answer) => assert_eq!(error(&answer), (409, "payment_in_use".to_owned())),
        _ => panic!("both have it"),
    }
    let answer = world.refused(&[("payment-signature", &anew)]);
    assert_eq!(error(&answer), (409, "payment_identifier_conflict".to_owned()));
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
