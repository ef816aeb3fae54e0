//! What a settled payment still buys: the same answer where it was not delivered, further requests where it was sold for several.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, World, body, configuration, header, solana};
use support::{Payer, Terms, base64, unbase64, v2};
use x402_envoy::gate::{CalloutReply, Edits, Gate, Note, Released, RequestEffect, ResponseEffect};
use x402_envoy::pricing::End;
use x402_envoy::reader::{BodyFacts, Facts, Why};
use x402_envoy::replay::UnixSeconds;

/// A world with these settings; `upfront` is a route of that flow.
fn world(more: &Value) -> World {
    let mut configuration = configuration();
    let price = json!({"per_request": "$0.001"});
    configuration["routes"].as_array_mut().unwrap().extend([
        json!({"name": "upfront", "match": {"path": "/upfront"}, "price": price, "flow": "upfront"}),
        json!({"name": "three", "match": {"path": "/three*"}, "price": price, "limits": {"requests_per_payment": 3}}),
    ]);
    for (name, value) in more.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    World::with(&configuration)
}

/// One request, its payment sent as it is.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    payment: &'a [u8],
    facts: Option<&'a BodyFacts>,
    ended: bool,
}

impl<'a> Asked<'a> {
    fn get(path: &'a str, payment: &'a [u8]) -> Self {
        Self {
            method: "GET",
            path,
            payment,
            facts: None,
            ended: true,
        }
    }

    fn send(&self, world: &mut World) -> (Gate, RequestEffect) {
        let headers = [("payment-signature", self.payment)];
        world.request_of(self.method, self.path, &headers, self.facts, self.ended)
    }

    /// The gate of an answer that is on its way, paid for by this very request.
    fn paid(&self, world: &mut World) -> Gate {
        let (gate, effect) = self.send(world);
        let mut gate = match effect {
            RequestEffect::Verify(dispatch) => {
                let mut gate = dispatch.split().1.sent(support::world::TOKEN).0;
                let valid = world.env(|env| gate.on_verified(support::world::TOKEN, &support::world::VALID, env));
                assert!(valid.is_some());
                gate
            }
            RequestEffect::Settle(settlement) => match world.settled(*settlement, &SETTLED) {
                Released::Forward(_, gate) => *gate,
                _ => panic!("not let through"),
            },
            RequestEffect::Forward(_) => gate,
            RequestEffect::Answer(answer) => panic!("answered {}", String::from_utf8_lossy(&answer.body)),
        };
        match world.respond(&mut gate, 200, true) {
            ResponseEffect::Settle(settlement) => match world.settled(*settlement, &SETTLED) {
                Released::Edit(_, gate) => *gate,
                _ => panic!("not let through"),
            },
            ResponseEffect::Edit(_) => gate,
            _ => panic!("not on its way"),
        }
    }

    /// The gate of a request that nothing is settled for.
    fn entitled(&self, world: &mut World) -> Gate {
        match self.send(world) {
            (gate @ Gate::Prepaid(_), RequestEffect::Forward(edits)) => {
                let paid = |name| edits.set.iter().any(|(set, _)| *set == name);
                assert!(paid("x-x402-payer") && paid("x-x402-amount"));
                gate
            }
            (_, RequestEffect::Answer(answer)) => panic!("answered {}", String::from_utf8_lossy(&answer.body)),
            _ => panic!("it is to be paid for"),
        }
    }

    /// The status and reason with which it is answered.
    fn refused(&self, world: &mut World) -> (u16, String) {
        match self.send(world) {
            (Gate::Answered, RequestEffect::Answer(answer)) => (answer.status, body(&answer)["error"].as_str().unwrap().to_owned()),
            _ => panic!("not answered"),
        }
    }
}

fn used() -> (u16, String) {
    (402, "nonce_already_used".to_owned())
}

fn end(world: &mut World, mut gate: Gate, end: End) {
    assert!(world.env(|env| gate.on_end(end, env)).is_none());
}

fn receipt(edits: &Edits) -> Value {
    unbase64(&edits.set.iter().find(|(name, _)| *name == "payment-response").unwrap().1)
}

#[test]
fn an_answer_that_was_not_delivered_is_served_once_more_with_its_receipt() {
    for cut in [End::ClientGone, End::BackendFailed, End::Interrupted] {
        let mut world = world(&json!({}));
        let payment = world.payment(1);
        let asked = Asked::get("/paid?q=1", &payment);
        let gate = asked.paid(&mut world);
        // Envoy does not know yet that the client is gone: it is to wait, not to pay again.
        assert_eq!(asked.refused(&mut world), (409, "payment_in_use".to_owned()));
        end(&mut world, gate, cut);

        let mut gate = asked.entitled(&mut world);
        assert_eq!(asked.refused(&mut world), (409, "payment_in_use".to_owned()));
        let ResponseEffect::Edit(edits) = world.respond(&mut gate, 200, true) else {
            panic!("not let through")
        };
        assert_eq!(receipt(&edits)["success"], true);
        assert_eq!(
            receipt(&edits)["transaction"],
            "0x34f0300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0ba"
        );
        end(&mut world, gate, cut);
        assert_eq!(asked.refused(&mut world), used());
        assert_eq!(world.counted(&Note::Settled("settled")), 1);
        assert_eq!((world.counted(&Note::Undelivered), world.counted(&Note::Entitled("again"))), (2, 1));
    }
}

#[test]
fn what_was_delivered_is_not_served_again() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/paid", &payment);
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::Complete);
    assert_eq!(asked.refused(&mut world), used());

    let payment = world.payment(2);
    let asked = Asked::get("/paid", &payment);
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::ClientGone);
    let mut gate = asked.entitled(&mut world);
    let _ = world.respond(&mut gate, 200, true);
    end(&mut world, gate, End::Complete);
    assert_eq!(asked.refused(&mut world), used());
}

#[test]
fn only_the_same_request_is_served_again() {
    let json = |digest| {
        BodyFacts::Json(Facts {
            digest: [digest; 32],
            ..Facts::default()
        })
    };
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let (first, other, unreadable) = (json(1), json(2), BodyFacts::Unreadable(Why::NotJson));
    let asked = Asked {
        method: "POST",
        facts: Some(&first),
        ended: false,
        ..Asked::get("/paid?q=1", &payment)
    };
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::ClientGone);
    for different in [
        Asked { method: "GET", ..asked },
        Asked {
            path: "/paid?q=2",
            ..asked
        },
        Asked {
            facts: Some(&other),
            ..asked
        },
        Asked {
            facts: Some(&unreadable),
            ..asked
        },
        Asked { facts: None, ..asked },
        Asked {
            facts: None,
            ended: true,
            ..asked
        },
    ] {
        assert_eq!(different.refused(&mut world), used());
    }
    asked.entitled(&mut world);
}

#[test]
fn a_body_that_nobody_saw_is_not_served_again() {
    for (facts, ended) in [(None, false), (Some(BodyFacts::Unreadable(Why::Encoded)), false)] {
        let mut world = world(&json!({}));
        let payment = world.payment(1);
        let asked = Asked {
            method: "POST",
            facts: facts.as_ref(),
            ended,
            ..Asked::get("/paid", &payment)
        };
        let gate = asked.paid(&mut world);
        end(&mut world, gate, End::ClientGone);
        assert_eq!(asked.refused(&mut world), used());
    }
}

#[test]
fn a_client_that_left_while_its_payment_was_settled_comes_back_for_its_answer() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Edit(_, gate) = world.settled(settlement, &SETTLED) else {
        panic!("not let through")
    };
    // What the host does where nobody waits any more.
    let mut gate = *gate;
    world.env(|env| gate.on_late(env));
    // It had nothing yet: a connection that breaks once more is the first.
    for _ in 0..2 {
        let mut gate = Asked::get("/paid", &payment).entitled(&mut world);
        let _ = world.respond(&mut gate, 200, true);
        end(&mut world, gate, End::ClientGone);
    }
    assert_eq!(Asked::get("/paid", &payment).refused(&mut world), used());
}

#[test]
fn what_was_paid_up_front_is_served_again_until_the_backend_has_answered() {
    let mut world = world(&json!({}));
    let (_, RequestEffect::Answer(challenge)) = world.request("/upfront", &[], None) else {
        panic!("not challenged")
    };
    let accepted = unbase64(header(&challenge, "payment-required").unwrap())["accepts"][0].clone();
    let payment = base64(&v2(&accepted, Terms::good(1).payload(&Payer::new(1))));
    let asked = Asked::get("/upfront", &payment);
    let (_, RequestEffect::Settle(settlement)) = asked.send(&mut world) else {
        panic!("not paying")
    };
    let Released::Forward(_, gate) = world.settled(*settlement, &SETTLED) else {
        panic!("not let through")
    };
    let mut gate = *gate;
    // No failure of the backend, and nobody's leaving before there is an answer, uses up anything.
    for (status, from_backend) in [(500, true), (404, true), (503, false)] {
        let ResponseEffect::Edit(edits) = world.respond(&mut gate, status, from_backend) else {
            panic!("not passed on")
        };
        assert_eq!(receipt(&edits)["success"], true);
        end(&mut world, gate, End::Complete);
        gate = asked.entitled(&mut world);
    }
    end(&mut world, gate, End::ClientGone);
    let mut gate = asked.entitled(&mut world);
    let _ = world.respond(&mut gate, 200, true);
    end(&mut world, gate, End::Complete);
    assert_eq!(asked.refused(&mut world), used());
    assert_eq!(world.counted(&Note::Settled("settled")), 1);
}

#[test]
fn it_is_served_again_within_the_window_even_if_the_payment_has_expired() {
    let mut world = world(&json!({"redeliver": {"times": 1, "window": "10m"}}));
    let payment = world.payment(1);
    let asked = Asked::get("/paid", &payment);
    let gate = asked.paid(&mut world);
    let other = world.payment(2);
    world.now += 290;
    end(&mut world, gate, End::ClientGone);
    // It was good for 300 seconds.
    world.now += 60;
    let late = (402, "invalid_exact_evm_payload_authorization_valid_before".to_owned());
    assert_eq!(Asked::get("/paid", &other).refused(&mut world), late);
    let gate = asked.entitled(&mut world);
    end(&mut world, gate, End::ClientGone);
    world.now += 601;
    assert_eq!(asked.refused(&mut world), late);
}

#[test]
fn an_answer_that_breaks_off_long_after_its_payment_has_expired_is_served_again() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/paid", &payment);
    let gate = asked.paid(&mut world);
    world.now += 3600;
    end(&mut world, gate, End::BackendFailed);
    world.now += 119;
    let mut gate = asked.entitled(&mut world);
    let _ = world.respond(&mut gate, 200, true);
    end(&mut world, gate, End::ClientGone);
    assert_eq!(asked.refused(&mut world), used());
}

#[test]
fn a_payment_that_does_not_say_when_it_expires_is_known_as_long_as_its_answer_is_to_be_had() {
    const SETTLED: CalloutReply<'static> = CalloutReply::Answered {
        status: 200,
        body: br#"{"success":true,"transaction":"5VERYLongSignature","network":"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}"#,
    };
    let (mut world, payment, _) = solana(&json!({}));
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let Released::Edit(_, gate) = world.settled(settlement, &SETTLED) else {
        panic!("not let through")
    };
    world.now += 1000;
    end(&mut world, *gate, End::BackendFailed);
    world.now += 60;
    Asked::get("/paid", &payment).entitled(&mut world);
    assert_eq!(
        Asked::get("/paid", &payment).refused(&mut world),
        (409, "payment_in_use".to_owned())
    );
}

#[test]
fn what_another_filter_answers_is_not_what_was_paid_for() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    for asked in [Asked::get("/three", &payment), Asked::get("/three/other", &payment)] {
        let mut gate = if asked.path == "/three" {
            asked.paid(&mut world);
            asked.entitled(&mut world)
        } else {
            asked.entitled(&mut world)
        };
        let ResponseEffect::Answer(answer) = world.respond(&mut gate, 200, false) else {
            panic!("a cache's answer was had for nothing")
        };
        assert_eq!((answer.status, body(&answer)["error"].as_str()), (502, Some("answer_not_sold")));
        // It was paid for all the same.
        assert!(header(&answer, "payment-required").is_none() && !String::from_utf8_lossy(&answer.body).contains("nothing was charged"));
        assert_eq!(unbase64(header(&answer, "payment-response").unwrap())["success"], true);
    }
    Asked::get("/three", &payment).entitled(&mut world);
}

#[test]
fn it_can_be_switched_off() {
    let mut world = world(&json!({"redeliver": {"times": 0}}));
    let payment = world.payment(1);
    let asked = Asked::get("/paid", &payment);
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::ClientGone);
    assert_eq!(asked.refused(&mut world), used());
}

#[test]
fn the_store_is_empty_again_when_it_is_over() {
    let mut world = world(&json!({}));
    for nonce in 1..20 {
        let payment = world.payment(nonce);
        let gate = Asked::get("/paid", &payment).paid(&mut world);
        end(&mut world, gate, End::ClientGone);
    }
    let (before, later) = (world.store.bytes().1, UnixSeconds(world.now + 100_000));
    assert!(before > 0);
    world.claims.sweep(&world.store, 0..u32::MAX, later);
    x402_envoy::replay::Attempts::new(1).sweep(&world.store, 0..u32::MAX, later);
    x402_envoy::replay::Entitlements::new(1).sweep(&world.store, 0..u32::MAX, later);
    assert_eq!(world.store.bytes().1, 0);
}

// Several requests for one payment

#[test]
fn one_payment_buys_several_requests_of_its_route() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/three", &payment);
    let gate = asked.paid(&mut world);
    // The others need not wait for the first one's answer, nor for each other.
    let second = asked.entitled(&mut world);
    let third = Asked {
        method: "POST",
        ended: false,
        ..Asked::get("/three/other", &payment)
    }
    .entitled(&mut world);
    assert_eq!(asked.refused(&mut world), used());
    assert_eq!(Asked::get("/paid", &payment).refused(&mut world), used());
    for mut gate in [second, third] {
        let ResponseEffect::Edit(edits) = world.respond(&mut gate, 200, true) else {
            panic!("not let through")
        };
        assert_eq!(receipt(&edits)["success"], true);
        end(&mut world, gate, End::Complete);
    }
    end(&mut world, gate, End::Complete);
    assert_eq!(asked.refused(&mut world), used());
    assert_eq!(
        (world.counted(&Note::Settled("settled")), world.counted(&Note::Entitled("more"))),
        (1, 2)
    );
}

/// A route whose longer queries cost twice as much, and a payment for one of them.
fn by_length() -> (World, Vec<u8>) {
    let dynamic = json!({"base": "$0.001", "multipliers": [{"when": "query_length > 5", "times": 2}]});
    let mut world = world(&json!({"routes": [
        {"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}},
        {"name": "some", "match": {"path": "/some*"}, "price": {"dynamic": dynamic}, "limits": {"requests_per_payment": 3}},
    ]}));
    let (_, RequestEffect::Answer(challenge)) = world.request("/some?q=longer", &[], Some(&BodyFacts::None)) else {
        panic!("not challenged")
    };
    let accepted = unbase64(header(&challenge, "payment-required").unwrap())["accepts"][0].clone();
    assert_eq!(accepted["amount"], "2000");
    let terms = Terms {
        value: 2000,
        ..Terms::good(1)
    };
    let payment = base64(&v2(&accepted, terms.payload(&Payer::new(1))));
    (world, payment)
}

fn priced<'a>(path: &'a str, payment: &'a [u8]) -> Asked<'a> {
    Asked {
        facts: Some(&BodyFacts::None),
        ..Asked::get(path, payment)
    }
}

#[test]
fn one_payment_buys_requests_with_lower_quotes_too() {
    let (mut world, payment) = by_length();
    let cheaper = priced("/some/other?q=1", &payment);
    // Nothing that is not settled buys anything there.
    assert_eq!(cheaper.refused(&mut world).0, 402);
    let first = priced("/some?q=longer", &payment).paid(&mut world);
    cheaper.entitled(&mut world);
    priced("/some?q=1", &payment).entitled(&mut world);
    assert_eq!(cheaper.refused(&mut world).0, 402);
    end(&mut world, first, End::Complete);
}

#[test]
fn one_payment_buys_nothing_with_a_higher_quote() {
    let (mut world, _) = by_length();
    let (_, RequestEffect::Answer(challenge)) = world.request("/some", &[], Some(&BodyFacts::None)) else {
        panic!("not challenged")
    };
    let accepted = unbase64(header(&challenge, "payment-required").unwrap())["accepts"][0].clone();
    let payment = base64(&v2(&accepted, Terms::good(1).payload(&Payer::new(1))));
    priced("/some", &payment).paid(&mut world);
    assert_eq!(priced("/some?q=longer", &payment).refused(&mut world).0, 402);
    priced("/some?q=1", &payment).entitled(&mut world);
}

#[test]
fn a_payment_in_use_is_not_to_be_signed_anew_for_another_of_several() {
    let (mut world, payment) = by_length();
    let (_, RequestEffect::Verify(dispatch)) = priced("/some?q=longer", &payment).send(&mut world) else {
        panic!("not verifying")
    };
    for path in ["/some?q=longer", "/some/other?q=longer", "/some?q=1", "/some/other?q=1"] {
        assert_eq!(
            priced(path, &payment).refused(&mut world),
            (409, "payment_in_use".to_owned()),
            "{path}"
        );
    }
    drop(dispatch);
}

#[test]
fn what_was_not_delivered_of_several_comes_back() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/three", &payment);
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::Complete);
    // The backend fails as often as it likes.
    for _ in 0..5 {
        let mut gate = asked.entitled(&mut world);
        let _ = world.respond(&mut gate, 500, true);
        end(&mut world, gate, End::Complete);
    }
    // An answer that had begun comes back once for the whole payment.
    for _ in 0..3 {
        let mut gate = asked.entitled(&mut world);
        let _ = world.respond(&mut gate, 200, true);
        end(&mut world, gate, End::ClientGone);
    }
    assert_eq!(asked.refused(&mut world), used());
}

#[test]
fn several_requests_end_with_the_payment() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/three", &payment);
    let gate = asked.paid(&mut world);
    end(&mut world, gate, End::Complete);
    world.now += 320;
    let late = (402, "invalid_exact_evm_payload_authorization_valid_before".to_owned());
    assert_eq!(asked.refused(&mut world), late);
}

/// A payment that names what it is for, as the official clients' do.
fn payment_for(world: &mut World, path: &str, payer: u8) -> Vec<u8> {
    let (_, RequestEffect::Answer(challenge)) = world.request(path, &[], None) else {
        panic!("not challenged")
    };
    let challenge = unbase64(header(&challenge, "payment-required").unwrap());
    let mut payment = v2(&challenge["accepts"][0], Terms::good(payer).payload(&Payer::new(payer)));
    payment["resource"] = challenge["resource"].clone();
    base64(&payment)
}

#[test]
fn nobody_is_asked_for_another_payment_while_the_first_of_several_requests_is_paid() {
    let mut world = world(&json!({}));
    let payment = payment_for(&mut world, "/three", 1);
    let (asked, other) = (Asked::get("/three", &payment), Asked::get("/three/other", &payment));
    let mismatch = (402, "resource_mismatch".to_owned());
    assert_eq!(
        other.refused(&mut world),
        mismatch,
        "the first one has to be for what the payment names"
    );
    let (_, RequestEffect::Verify(dispatch)) = asked.send(&mut world) else {
        panic!("not verifying")
    };
    assert_eq!(other.refused(&mut world), (409, "payment_in_use".to_owned()));
    let mut gate = dispatch.split().1.sent(support::world::TOKEN).0;
    let _ = world.env(|env| gate.on_verified(support::world::TOKEN, &support::world::VALID, env));
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settling")
    };
    assert!(matches!(world.settled(*settlement, &CalloutReply::Lost), Released::Answer(_)));
    assert_eq!(other.refused(&mut world), (503, "settlement_pending".to_owned()));
    let gate = asked.paid(&mut world);
    for _ in 0..2 {
        let gate = other.entitled(&mut world);
        end(&mut world, gate, End::ClientGone);
    }
    end(&mut world, gate, End::Complete);
    for _ in 0..2 {
        let mut gate = other.entitled(&mut world);
        let _ = world.respond(&mut gate, 200, true);
        end(&mut world, gate, End::Complete);
    }
    assert_eq!(other.refused(&mut world), used());
}

#[test]
fn a_payment_about_to_expire_is_not_to_be_replaced_while_its_settlement_is_in_doubt() {
    for times in [0, 1] {
        let mut world = world(&json!({"redeliver": {"times": times}}));
        let payment = world.payment(1);
        let settlement = world.settling(&[("payment-signature", &payment)]);
        assert!(matches!(world.settled(settlement, &CalloutReply::Lost), Released::Answer(_)));
        let asked = Asked::get("/paid", &payment);
        let skew = world.config.pre_check.clock_skew;
        // It was good for 300 seconds, and is not taken up again in the last of them: what was sent may yet be mined.
        for passes in [300 - skew, skew, skew] {
            world.now += passes;
            assert_eq!(asked.refused(&mut world), (503, "settlement_pending".to_owned()), "{passes}");
        }
        world.now += 1;
        let late = (402, "invalid_exact_evm_payload_authorization_valid_before".to_owned());
        assert_eq!(asked.refused(&mut world), late);
    }
}

#[test]
fn an_unknown_settlement_sells_nothing_more() {
    let mut world = world(&json!({}));
    let payment = world.payment(1);
    let asked = Asked::get("/three", &payment);
    let (_, RequestEffect::Verify(dispatch)) = asked.send(&mut world) else {
        panic!("not verifying")
    };
    let mut gate = dispatch.split().1.sent(support::world::TOKEN).0;
    let _ = world.env(|env| gate.on_verified(support::world::TOKEN, &support::world::VALID, env));
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settling")
    };
    assert!(matches!(world.settled(*settlement, &CalloutReply::Lost), Released::Answer(_)));
    let (_, RequestEffect::Settle(settlement)) = asked.send(&mut world) else {
        panic!("not taken up")
    };
    assert_eq!(asked.refused(&mut world), (409, "payment_in_use".to_owned()));
    assert!(matches!(world.settled(*settlement, &SETTLED), Released::Forward(..)));
    asked.entitled(&mut world);
    asked.entitled(&mut world);
    assert_eq!(asked.refused(&mut world), used());
}
