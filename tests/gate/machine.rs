//! The gate, event by event: each way through the state machine, each end of a claim.

use crate::support;

use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, VALID, World, body, configuration, header};
use support::{NOW, Payer, Terms, base64, unbase64, v1, v2};
use x402_envoy::gate::{
    CalloutReply, CalloutToken, Edits, Endpoint, Gate, Note, Released, Request, RequestEffect, ResponseEffect, VerifiedEffect, open,
};
use x402_envoy::pricing::{End, Place};
use x402_envoy::reader::{BodyFacts, read_body};
use x402_envoy::x402::{Answer, Refusal};

/// What becomes of an answer's headers, with or without a settlement before.
enum Out {
    Answer(Answer),
    Edit(Edits),
    Other,
}

impl From<ResponseEffect> for Out {
    fn from(effect: ResponseEffect) -> Self {
        match effect {
            ResponseEffect::Answer(answer) => Self::Answer(answer),
            ResponseEffect::Edit(edits) => Self::Edit(edits),
            ResponseEffect::Pass | ResponseEffect::Wait | ResponseEffect::Settle(_) => Self::Other,
        }
    }
}

impl From<Released> for Out {
    fn from(effect: Released) -> Self {
        match effect {
            Released::Answer(answer) => Self::Answer(answer),
            Released::Edit(edits, _) => Self::Edit(edits),
            Released::Forward(..) | Released::End(_) | Released::Again(..) => Self::Other,
        }
    }
}

fn answer(effect: impl Into<Out>) -> Answer {
    match effect.into() {
        Out::Answer(answer) => answer,
        _ => panic!("not answered"),
    }
}

fn edits(effect: impl Into<Out>) -> Edits {
    match effect.into() {
        Out::Edit(edits) => edits,
        _ => panic!("not let through"),
    }
}

#[test]
fn a_request_without_payment_is_challenged_for_every_client() {
    let mut world = World::new();
    let answer = world.refused(&[]);
    assert_eq!(answer.status, 402);
    let v2 = unbase64(header(&answer, "payment-required").unwrap());
    assert_eq!(v2["resource"]["url"], "https://api.example.com/paid");
    assert_eq!(v2["accepts"][0]["amount"], "1000");
    assert_eq!(body(&answer)["accepts"][0]["maxAmountRequired"], "1000");
    assert_eq!(header(&answer, "x-payment-amount"), Some("0.001"));
    assert_eq!(world.counted(&Note::Challenged(2)), 1);
}

#[test]
fn a_paid_request_is_verified_forwarded_settled_and_receipted() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, call) = world.verifying(&[("payment-signature", &payment), ("x-x402-payer", b"0xforged")]);
    assert_eq!((call.facilitator, call.endpoint), (0, Endpoint::Verify));
    let sent: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(sent["x402Version"], 2);
    assert_eq!(sent["paymentRequirements"], sent["paymentPayload"]["accepted"]);

    let Some(VerifiedEffect::Request(RequestEffect::Forward(to_backend))) = world.env(|env| gate.on_verified(TOKEN, &VALID, env)) else {
        panic!("not forwarded")
    };
    assert!(to_backend.remove.contains(&"payment-signature".into()));
    assert!(to_backend.remove.contains(&"x-x402-payer".into()));
    assert!(to_backend.set.contains(&("x-x402-payer", Payer::new(1).address().to_string())));
    assert!(to_backend.set.contains(&("x-x402-amount", "1000".into())));

    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settling")
    };
    assert_eq!(settlement.call().endpoint, Endpoint::Settle);
    assert_eq!(settlement.call().body, call.body, "the settlement names what was verified");
    let Released::Edit(to_client, mut gate) = world.settled(*settlement, &SETTLED) else {
        panic!("not let through")
    };
    let receipt = to_client.set.iter().find(|(name, _)| *name == "payment-response").unwrap();
    assert_eq!(unbase64(&receipt.1)["success"], true);
    assert!(to_client.set.contains(&("cache-control", "max-age=60, private".into())));
    assert!(to_client.add.contains(&("vary", "PAYMENT-SIGNATURE, X-PAYMENT".into())));
    assert!(to_client.remove.contains(&"payment-response".into()) && to_client.remove.contains(&"settlement-overrides".into()));

    let meanwhile = world.refused(&[("payment-signature", &payment)]);
    assert_eq!(
        (meanwhile.status, body(&meanwhile)["error"].as_str()),
        (409, Some("payment_in_use"))
    );
    world.env(|env| gate.on_end(End::Complete, env));
    let again = world.refused(&[("payment-signature", &payment)]);
    assert_eq!((again.status, body(&again)["error"].as_str()), (402, Some("nonce_already_used")));
    assert_eq!(world.counted(&Note::Settled("settled")), 1);
    assert_eq!(world.counted(&Note::Earned("USDC".into(), "base-sepolia".into(), 1000)), 1);
}

#[test]
fn a_payment_in_use_is_a_conflict_and_is_free_again_when_the_client_leaves() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    let second = world.refused(&[("payment-signature", &payment)]);
    assert_eq!((second.status, body(&second)["error"].as_str()), (409, Some("payment_in_use")));
    assert_eq!(
        header(&second, "payment-required"),
        None,
        "a client that is told to wait is not asked to pay again"
    );
    world.env(|env| gate.on_end(End::ClientGone, env));
    let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
    assert_eq!(world.refused(&[("payment-signature", &payment)]).status, 409);
    world.env(|env| gate.on_end(End::ClientGone, env));
    world.verifying(&[("payment-signature", &payment)]);
    assert_eq!(world.counted(&Note::Released), 2);
}

#[test]
fn an_answer_for_another_call_changes_nothing() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    assert!(world.env(|env| gate.on_verified(CalloutToken(8), &VALID, env)).is_none());
    assert!(world.env(|env| gate.on_verified(TOKEN, &VALID, env)).is_some());
    assert!(world.env(|env| gate.on_verified(TOKEN, &VALID, env)).is_none(), "resumed once");
}

#[test]
fn what_the_facilitator_refuses_is_passed_on_and_the_payment_given_back() {
    let mut world = World::new();
    let payment = world.payment(1);
    for (reply, status, reason) in [
        (
            r#"{"isValid":false,"invalidReason":"insufficient_funds"}"#,
            402,
            "insufficient_funds",
        ),
        (
            r#"{"isValid":false,"invalidReason":"permit2_allowance_required"}"#,
            412,
            "permit2_allowance_required",
        ),
    ] {
        let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
        let reply = CalloutReply::Answered {
            status: 200,
            body: reply.as_bytes(),
        };
        let Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) = world.env(|env| gate.on_verified(TOKEN, &reply, env)) else {
            panic!("not answered")
        };
        assert_eq!((answer.status, body(&answer)["error"].as_str()), (status, Some(reason)));
        assert!(header(&answer, "payment-required").is_some());
    }
}

#[test]
fn a_facilitator_that_is_no_use_is_not_the_payers_fault() {
    let mut world = World::new();
    let payment = world.payment(1);
    for reply in [
        CalloutReply::Lost,
        CalloutReply::NotSent,
        CalloutReply::Answered {
            status: 500,
            body: b"oops",
        },
        CalloutReply::Answered { status: 200, body: b"{}" },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"isValid":"true"}"#,
        },
    ] {
        let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
        let Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) = world.env(|env| gate.on_verified(TOKEN, &reply, env)) else {
            panic!("not answered")
        };
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (503, Some("facilitator_unavailable")),
            "{reply:?}"
        );
        assert!(header(&answer, "retry-after").is_some() && header(&answer, "payment-required").is_none());
    }
    let (_, RequestEffect::Verify(dispatch)) = world.request("/paid", &[("payment-signature", &payment)], None) else {
        panic!("not verifying")
    };
    let (Gate::Answered, RequestEffect::Answer(answer)) = world.env(|env| dispatch.split().1.not_sent(env)) else {
        panic!("not answered")
    };
    assert_eq!(answer.status, 503);
    world.verifying(&[("payment-signature", &payment)]);
}

#[test]
fn the_next_facilitator_is_asked_when_one_is_of_no_use() {
    let mut configuration = configuration();
    configuration["facilitators"] = json!([
        {"cluster": "first", "url": "http://127.0.0.1:1"},
        {"cluster": "second", "url": "http://127.0.0.1:2"},
    ]);
    let mut world = World::with(&configuration);
    let payment = world.payment(1);
    let (mut gate, first) = world.verifying(&[("payment-signature", &payment)]);
    let Some(VerifiedEffect::Request(RequestEffect::Verify(dispatch))) = world.env(|env| gate.on_verified(TOKEN, &CalloutReply::Lost, env))
    else {
        panic!("not asked again")
    };
    let (second, waiting) = dispatch.split();
    assert_eq!((first.facilitator, second.facilitator), (0, 1));
    assert_eq!(first.body, second.body);
    let mut gate = waiting.sent(TOKEN).0;
    assert!(matches!(
        world.env(|env| gate.on_verified(TOKEN, &VALID, env)),
        Some(VerifiedEffect::Request(RequestEffect::Forward(_)))
    ));
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settling")
    };
    assert_eq!(settlement.call().facilitator, 1, "who verified settles");
    assert_eq!(
        world.refused(&[("payment-signature", &payment)]).status,
        409,
        "the claim was held all along"
    );
}

#[test]
fn nothing_is_settled_for_an_answer_that_is_not_paid_for() {
    let mut world = World::new();
    let payment = world.payment(1);
    for (status, from_backend) in [
        (400, true),
        (402, true),
        (404, true),
        (500, true),
        (503, true),
        (504, false),
        (413, false),
    ] {
        let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
        let passed = edits(world.respond(&mut gate, status, from_backend));
        assert!(passed.set.is_empty(), "{status} {from_backend}");
    }
    // Another filter's answer, a route's own, a switch of protocols: not the backend's to sell, and nobody's to have.
    for (status, from_backend) in [(200, false), (301, false), (0, true), (101, true)] {
        let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
        let answer = answer(world.respond(&mut gate, status, from_backend));
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (502, Some("answer_not_sold")),
            "{status}"
        );
    }
    for (nonce, status) in (10..).zip([200, 204, 206, 301, 304]) {
        let payment = world.payment(nonce);
        let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
        assert!(
            matches!(world.respond(&mut gate, status, true), ResponseEffect::Settle(_)),
            "{status}"
        );
    }
}

#[test]
fn a_refused_settlement_is_a_402_with_the_failed_receipt() {
    let mut world = World::new();
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let reply = br#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#;
    let answer = answer(world.settled(settlement, &CalloutReply::Answered { status: 200, body: reply }));
    assert_eq!((answer.status, body(&answer)["error"].as_str()), (402, Some("insufficient_funds")));
    assert!(header(&answer, "payment-required").is_some());
    assert_eq!(unbase64(header(&answer, "payment-response").unwrap())["success"], false);
    world.verifying(&[("payment-signature", &payment)]);
}

#[test]
fn a_nonce_that_somebody_else_has_spent_buys_nothing_any_more() {
    let mut world = World::new();
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let reply = br#"{"success":false,"errorReason":"invalid_exact_evm_nonce_already_used","transaction":""}"#;
    let first = answer(world.settled(settlement, &CalloutReply::Answered { status: 200, body: reply }));
    assert_eq!(
        (first.status, body(&first)["error"].as_str()),
        (402, Some("invalid_exact_evm_nonce_already_used"))
    );
    let again = world.refused(&[("payment-signature", &payment)]);
    assert_eq!((again.status, body(&again)["error"].as_str()), (402, Some("nonce_already_used")));
}

#[test]
fn each_call_has_its_own_time() {
    let mut configuration = configuration();
    configuration["facilitators"][0]["verify_timeout"] = json!("2s");
    configuration["facilitators"][0]["settle_timeout"] = json!("30s");
    let mut world = World::with(&configuration);
    let payment = world.payment(1);
    let (mut gate, verify) = world.verifying(&[("payment-signature", &payment)]);
    assert_eq!(verify.timeout_ms, 2_000);
    assert!(world.env(|env| gate.on_verified(TOKEN, &VALID, env)).is_some());
    let ResponseEffect::Settle(settlement) = world.respond(&mut gate, 200, true) else {
        panic!("not settling")
    };
    assert_eq!(settlement.call().timeout_ms, 30_000);
}

#[test]
fn an_upgrade_is_not_free_because_nobody_has_seen_its_body() {
    let mut configuration = configuration();
    let route = json!({"name": "rest", "match": {"path": "/model"}, "price": "free"});
    configuration["routes"].as_array_mut().unwrap().push(route);
    let mut world = World::with(&configuration);
    for method in ["GET", "POST"] {
        let (_, RequestEffect::Answer(answer)) = world.request_of(method, "/model", &[("upgrade", b"chat")], None, false) else {
            panic!("let through: {method}")
        };
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (400, Some("upgrade_not_payable")),
            "{method}"
        );
    }
    assert!(matches!(
        world.request("/healthz", &[("upgrade", b"chat")], None).1,
        RequestEffect::Forward(_)
    ));
}

/// Answers are kept, and each client and each price has its own.
#[test]
fn a_challenge_is_what_it_would_be_if_none_had_been_made_before() {
    let clients: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("origin", b"https://shop.example")],
        &[("accept", b"text/html"), ("user-agent", b"Mozilla/5.0")],
        &[("host", b"ignored"), ("accept", b"*/*")],
    ];
    let mut world = World::new();
    for _ in 0..3 {
        for client in clients {
            assert_eq!(world.refused(client), World::new().refused(client));
        }
    }
    assert_ne!(world.refused(clients[0]), world.refused(clients[1]));
    assert_ne!(world.refused(clients[0]), world.refused(clients[2]));
    assert_eq!(world.counted(&Note::Challenged(2)), 16);
}

/// What is wrong with a payment is said to each as if it were the first.
#[test]
fn a_refusal_is_what_it_would_be_if_none_had_been_made_before() {
    let accepted = World::new().challenge()["accepts"][0].clone();
    let payment = |terms: Terms, signer: u8| {
        let mut payload = terms.payload(&Payer::new(signer));
        payload["authorization"]["from"] = json!(Payer::new(1).address().to_string());
        base64(&v2(&accepted, payload))
    };
    let of_value = |value| Terms { value, ..Terms::good(1) };
    let payments = [
        payment(Terms::good(1), 2),
        payment(Terms::good(2), 3),
        payment(of_value(1), 1),
        payment(of_value(2), 1),
    ];
    let mut world = World::new();
    let mut said = std::collections::BTreeSet::new();
    for _ in 0..2 {
        world.refused(&[]);
        for payment in &payments {
            for origin in [&[][..], &[("origin", &b"https://shop.example"[..])]] {
                let sent = [&[("payment-signature", &payment[..])], origin].concat();
                let answer = world.refused(&sent);
                assert_eq!(answer, World::new().refused(&sent));
                said.insert(answer.body);
            }
        }
    }
    // The two that are forged are told the same, those of too little each their own.
    assert_eq!(said.len(), 3);
    assert_eq!(world.counted(&Note::Refused(Refusal::InvalidSignature)), 8);
    assert_eq!(world.counted(&Note::Challenged(2)), 2);
}

/// Nor does it matter where the others were who asked before.
#[test]
fn a_kept_challenge_names_the_resource_that_was_asked_for() {
    let schemes = ["http", "https"];
    let authorities = ["api.example.com", "API.example.com:443", "other.example", "\u{e9}.example"];
    let paths = [
        "/paid",
        "/paid?a=1",
        "/paid?b#c",
        "/./paid",
        "//paid",
        "/p%61id",
        "http://elsewhere.example/paid",
    ];
    for public_url in [None, Some("https://shop.example/base/")] {
        let mut configuration = configuration();
        if let Some(url) = public_url {
            configuration["public_url"] = json!(url);
        }
        let ask = |world: &mut World, scheme: &str, authority: &str, path: &str| {
            let place = Place {
                method: b"GET",
                authority: authority.as_bytes(),
                path: path.as_bytes(),
                envoy_route: None,
                is_cors_preflight: false,
            };
            let request = Request {
                place,
                scheme: scheme.as_bytes(),
                headers: &[],
                body: None,
                ended: true,
            };
            match world.env(|env| open(&request, env)) {
                (Gate::Answered, RequestEffect::Answer(answer)) => answer,
                _ => panic!("not answered"),
            }
        };
        let mut world = World::with(&configuration);
        let mut resources = std::collections::BTreeSet::new();
        for _ in 0..2 {
            for scheme in schemes {
                for authority in authorities {
                    for path in paths {
                        let answer = ask(&mut world, scheme, authority, path);
                        assert_eq!(
                            answer,
                            ask(&mut World::with(&configuration), scheme, authority, path),
                            "{scheme} {authority} {path}"
                        );
                        resources.extend(header(&answer, "payment-required").map(|sent| unbase64(sent)["resource"]["url"].to_string()));
                    }
                }
            }
        }
        assert!(
            if public_url.is_some() {
                resources.len() == 1
            } else {
                resources.len() > 5
            },
            "{resources:?}"
        );
    }
}

#[test]
fn an_unknown_settlement_is_never_a_new_challenge() {
    for reply in [
        CalloutReply::Lost,
        CalloutReply::Answered { status: 500, body: b"" },
        CalloutReply::Answered { status: 200, body: b"{}" },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"success":false,"errorReason":"unexpected_settle_error","transaction":""}"#,
        },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"success":false,"errorReason":"settlement_pending","transaction":"0x01"}"#,
        },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"success":false,"errorReason":"invalid_exact_evm_transaction_failed","transaction":""}"#,
        },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"success":false,"errorReason":"something_new","transaction":""}"#,
        },
        CalloutReply::Answered {
            status: 200,
            body: br#"{"success":true,"transaction":""}"#,
        },
    ] {
        let mut world = World::new();
        let payment = world.payment(1);
        let settlement = world.settling(&[("payment-signature", &payment)]);
        let pending = answer(world.settled(settlement, &reply));
        // The same payment again is asked about again, before anything else, and by one request at a time.
        let (_, RequestEffect::Settle(resumed)) = world.request("/paid", &[("payment-signature", &payment)], None) else {
            panic!("not resumed")
        };
        assert_eq!(resumed.call().endpoint, Endpoint::Settle);
        assert_eq!(world.refused(&[("payment-signature", &payment)]).status, 409);
        let again = answer(world.settled(*resumed, &reply));
        for answer in [pending, again] {
            assert_eq!(
                (answer.status, body(&answer)["error"].as_str()),
                (503, Some("settlement_pending")),
                "{reply:?}"
            );
            assert!(header(&answer, "retry-after").is_some() && header(&answer, "payment-required").is_none());
            assert!(body(&answer).get("accepts").is_none());
        }
        assert_eq!(world.counted(&Note::Settled("unknown")), 2);
    }
}

#[test]
fn a_settlement_that_was_certainly_not_sent_costs_nothing() {
    let mut world = World::new();
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    let answer = answer(world.settled(settlement, &CalloutReply::NotSent));
    assert_eq!(
        (answer.status, body(&answer)["error"].as_str()),
        (503, Some("facilitator_unavailable"))
    );
    world.verifying(&[("payment-signature", &payment)]);
}

#[test]
fn each_flaw_of_a_payment_has_its_reason_and_reaches_no_facilitator() {
    let good = Terms::good(1);
    let other = alloy_primitives::Address::repeat_byte(0x22);
    let flaws: Vec<(&str, Terms, &str, &str)> = vec![
        (
            "too little",
            Terms {
                value: 999,
                ..good.clone()
            },
            "invalid_exact_evm_payload_authorization_value",
            "402.1",
        ),
        (
            "too much",
            Terms {
                value: 1001,
                ..good.clone()
            },
            "invalid_exact_evm_payload_authorization_value",
            "402.1",
        ),
        (
            "other recipient",
            Terms { to: other, ..good.clone() },
            "invalid_exact_evm_payload_recipient_mismatch",
            "402.2",
        ),
        (
            "expired",
            Terms {
                valid_before: NOW,
                ..good.clone()
            },
            "invalid_exact_evm_payload_authorization_valid_before",
            "402.5",
        ),
        (
            "about to expire",
            Terms {
                valid_before: NOW + 5,
                ..good.clone()
            },
            "invalid_exact_evm_payload_authorization_valid_before",
            "402.5",
        ),
        (
            "not valid yet",
            Terms {
                valid_after: NOW + 6,
                ..good.clone()
            },
            "invalid_exact_evm_payload_authorization_valid_after",
            "402.5",
        ),
        (
            "valid for too long",
            Terms {
                valid_before: NOW + 3606,
                ..good.clone()
            },
            "validity_too_long",
            "402.5",
        ),
        (
            "wrong name",
            Terms {
                domain: alloy_sol_types::eip712_domain! { name: "USD Coin", version: "2", chain_id: 84532, verifying_contract: support::USDC, },
                ..good.clone()
            },
            "invalid_exact_evm_payload_signature",
            "402.2",
        ),
        (
            "wrong chain",
            Terms {
                domain: alloy_sol_types::eip712_domain! { name: "USDC", version: "2", chain_id: 8453, verifying_contract: support::USDC, },
                ..good.clone()
            },
            "invalid_exact_evm_payload_signature",
            "402.2",
        ),
    ];
    for (flaw, terms, reason, code) in flaws {
        let mut world = World::new();
        let accepted = world.challenge()["accepts"][0].clone();
        let payment = base64(&v2(&accepted, terms.payload(&Payer::new(1))));
        let answer = world.refused(&[("payment-signature", &payment)]);
        assert_eq!(answer.status, 402, "{flaw}");
        assert_eq!(
            (body(&answer)["error"].as_str(), body(&answer)["code"].as_str()),
            (Some(reason), Some(code)),
            "{flaw}"
        );
        assert_eq!(unbase64(header(&answer, "payment-required").unwrap())["error"], reason, "{flaw}");
    }
    for terms in [
        Terms {
            valid_after: NOW + 5,
            ..good.clone()
        },
        Terms {
            valid_before: NOW + 6,
            ..good.clone()
        },
        Terms {
            valid_before: NOW + 3605,
            ..good
        },
    ] {
        let mut world = World::new();
        let payment = base64(&v1(terms.payload(&Payer::new(1))));
        world.verifying(&[("x-payment", &payment)]);
    }
}

#[test]
fn a_payment_for_other_requirements_or_another_resource_is_refused() {
    let mut world = World::new();
    let accepted = world.challenge()["accepts"][0].clone();
    for (field, value, reason) in [
        ("scheme", json!("upto"), "unsupported_scheme"),
        ("network", json!("eip155:8453"), "invalid_network"),
        ("asset", json!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), "invalid_asset"),
        ("amount", json!("1"), "invalid_payment_requirements"),
        (
            "payTo",
            json!("0x2222222222222222222222222222222222222222"),
            "invalid_payment_requirements",
        ),
        (
            "extra",
            json!({"name": "USDC", "version": "2", "assetTransferMethod": "permit2"}),
            "unsupported_transfer_method",
        ),
    ] {
        let mut changed = accepted.clone();
        changed[field] = value;
        let payment = base64(&v2(&changed, Terms::good(1).payload(&Payer::new(1))));
        let answer = world.refused(&[("payment-signature", &payment)]);
        assert_eq!(body(&answer)["error"], reason, "{field}");
    }
    let mut payment = v2(&accepted, Terms::good(1).payload(&Payer::new(1)));
    payment["resource"] = json!({"url": "https://api.example.com/other"});
    let answer = world.refused(&[("payment-signature", &base64(&payment))]);
    assert_eq!((answer.status, body(&answer)["error"].as_str()), (402, Some("resource_mismatch")));
    payment["resource"] = json!({"url": "HTTPS://API.example.com:443/paid"});
    world.verifying(&[("payment-signature", &base64(&payment))]);
}

#[test]
fn a_condition_that_fails_never_makes_a_priced_path_free() {
    let mut world = World::new();
    let facts = |body: &str| read_body(body.as_bytes(), Some(b"application/json"), None);
    for (body_facts, status, reason) in [
        (Some(facts(r#"{"model":"llama"}"#)), 400, "route_condition_failed"),
        (Some(facts(r#"{"model":"gpt-4o","model":"llama"}"#)), 400, "unreadable_body"),
        (Some(facts("model=gpt-4o")), 400, "unreadable_body"),
        (Some(BodyFacts::None), 400, "route_condition_failed"),
        (None, 500, "reader_missing"),
        (Some(facts(r#"{"model":"gpt-4o-mini"}"#)), 402, "Payment required"),
    ] {
        let (_, RequestEffect::Answer(answer)) = world.request("/model", &[], body_facts.as_ref()) else {
            panic!("let through: {body_facts:?}")
        };
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (status, Some(reason)),
            "{body_facts:?}"
        );
    }
    for (method, status, reason) in [
        ("GET", 400, "unreadable_body"),
        ("HEAD", 500, "reader_missing"),
        ("POST", 500, "reader_missing"),
    ] {
        let (_, RequestEffect::Answer(answer)) = world.request_of(method, "/model", &[], None, false) else {
            panic!("let through: {method}")
        };
        assert_eq!((answer.status, body(&answer)["error"].as_str()), (status, Some(reason)), "{method}");
    }
}

#[test]
fn who_need_not_pay() {
    let mut world = World::new();
    let forward = |world: &mut World, path: &str, headers: &[(&str, &[u8])]| match world.request(path, headers, None) {
        (gate, RequestEffect::Forward(edits)) => (gate, edits),
        _ => panic!("not let through"),
    };
    let (gate, edits) = forward(
        &mut world,
        "/healthz",
        &[
            ("authorization", b"Bearer x402"),
            ("payment-signature", b"x"),
            ("x-x402-amount", b"9"),
        ],
    );
    assert!(matches!(gate, Gate::Done));
    assert_eq!(
        edits.remove,
        ["x-x402-amount".into(), "authorization".into()],
        "a payment for a free route is the backend's to read"
    );
    let (_, edits) = forward(&mut world, "/elsewhere", &[("x-x402-payer", b"0x00")]);
    assert_eq!(edits.remove, ["x-x402-payer".into()]);
    let (_, edits) = forward(
        &mut world,
        "/paid",
        &[("x-internal-caller", b"hunter2hunter2"), ("x-payment", b"x")],
    );
    assert_eq!(edits.remove, ["x-payment".into()]);
    assert_eq!(world.refused(&[("x-internal-caller", b"hunter3hunter3")]).status, 402);
    assert_eq!(
        world
            .refused(&[("x-internal-caller", b"hunter2hunter2"), ("x-internal-caller", b"hunter2hunter2")])
            .status,
        402
    );
    assert_eq!(world.refused(&[("authorization", b"Bearer x402")]).status, 402);

    let (mut gate, _) = forward(&mut world, "/paid", &[("authorization", b"Bearer sk-real")]);
    let ResponseEffect::Edit(passed) = world.respond(&mut gate, 200, true) else {
        panic!("not let through")
    };
    assert_eq!(
        passed.remove,
        ["settlement-overrides".into(), "payment-response".into()],
        "receipts are not the backend's to give"
    );
    assert!(passed.set.is_empty() && passed.add.is_empty());
    let (mut gate, _) = forward(&mut world, "/paid", &[("authorization", b"Bearer sk-real")]);
    let out_of_credits = answer(world.respond(&mut gate, 402, true));
    assert!(
        header(&out_of_credits, "payment-required").is_some(),
        "the backend's own 402 becomes a challenge"
    );
}

#[test]
fn a_paid_request_that_comes_again_is_not_let_through() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, edits) = world.forwarded(&[("payment-signature", &payment)]);
    let mark = edits.set.iter().find(|(name, _)| *name == "x-x402-forwarded").unwrap().1.clone();
    // Envoy redirects internally: the first request ends without an answer, the second one carries its headers.
    world.env(|env| gate.on_end(End::ClientGone, env));
    for path in ["/paid", "/healthz", "/elsewhere", "/model"] {
        let (_, RequestEffect::Answer(answer)) = world.request(path, &[("x-x402-forwarded", mark.as_bytes())], None) else {
            panic!("{path} was let through")
        };
        assert_eq!(
            (answer.status, body(&answer)["error"].as_str()),
            (500, Some("internal_redirect_not_payable")),
            "{path}"
        );
    }
    let (_, RequestEffect::Forward(edits)) = world.request("/healthz", &[("x-x402-forwarded", b"forged")], None) else {
        panic!("a forged mark means nothing")
    };
    assert_eq!(edits.remove, ["x-x402-forwarded".into()]);
}

#[test]
fn a_signature_that_nobody_has_proven_holds_no_claim() {
    let mut world = World::new();
    let accepted = world.challenge()["accepts"][0].clone();
    let good = Terms::good(1).payload(&Payer::new(1));
    let mut forged = good.clone();
    forged["signature"] = json!(format!("0x{}", "ab".repeat(100)));
    let (forged, good) = (base64(&v2(&accepted, forged)), base64(&v2(&accepted, good)));
    let (mut attacker, _) = world.verifying(&[("payment-signature", &forged)]);
    let (mut payer, _) = world.forwarded(&[("payment-signature", &good)]);
    // A smart wallet may have signed twice: whoever is verified first has the claim.
    let Some(VerifiedEffect::Request(RequestEffect::Answer(second))) = world.env(|env| attacker.on_verified(TOKEN, &VALID, env)) else {
        panic!("two requests for one payment")
    };
    assert_eq!(second.status, 409);
    world.env(|env| attacker.on_end(End::ClientGone, env));
    assert_eq!(
        world.refused(&[("payment-signature", &good)]).status,
        409,
        "the attacker's end does not release the payer's claim"
    );
    assert!(matches!(world.respond(&mut payer, 200, true), ResponseEffect::Settle(_)));
}

#[test]
fn a_payment_that_ran_out_meanwhile_is_not_settled() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, _) = world.forwarded(&[("payment-signature", &payment)]);
    world.now += 1000;
    let late = answer(world.respond(&mut gate, 200, true));
    assert_eq!((late.status, body(&late)["code"].as_str()), (402, Some("402.5")));
}

/// Its claim is forgotten, and may be held by another payment with the same nonce: that is not for it to give back, or to leave to others.
#[test]
fn a_payment_that_ran_out_meanwhile_leaves_the_next_one_of_its_nonce_alone() {
    let ends: [fn(&mut World, Gate); 3] = [
        |world, mut gate| assert!(world.env(|env| gate.on_end(End::ClientGone, env)).is_none()),
        |world, mut gate| assert!(matches!(world.respond(&mut gate, 500, true), ResponseEffect::Edit(_))),
        |world, mut gate| assert!(matches!(world.respond(&mut gate, 200, true), ResponseEffect::Answer(_))),
    ];
    for end in ends {
        let mut world = World::new();
        let accepted = world.challenge()["accepts"][0].clone();
        let until = |seconds| {
            let terms = Terms {
                valid_before: NOW + seconds,
                ..Terms::good(1)
            };
            base64(&v2(&accepted, terms.payload(&Payer::new(1))))
        };
        let (first, second) = (until(300), until(900));
        let (gate, _) = world.forwarded(&[("payment-signature", &first)]);
        world.now += 306;
        let (_held, _) = world.forwarded(&[("payment-signature", &second)]);
        end(&mut world, gate);
        assert_eq!(world.refused(&[("payment-signature", &second)]).status, 409);
    }
    let mut world = World::new();
    let accepted = world.challenge()["accepts"][0].clone();
    let terms = Terms {
        valid_before: NOW + 900,
        ..Terms::good(1)
    };
    let second = base64(&v2(&accepted, terms.payload(&Payer::new(1))));
    let first = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &first)]);
    world.now += 306;
    let (_held, _) = world.forwarded(&[("payment-signature", &second)]);
    assert!(matches!(world.settled(settlement, &CalloutReply::Lost), Released::Answer(answer) if answer.status == 503));
    assert_eq!(
        world.refused(&[("payment-signature", &second)]).status,
        409,
        "it is in use, not pending"
    );
}

#[test]
fn a_client_that_left_before_the_settlement_is_not_charged() {
    let mut world = World::new();
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment)]);
    assert!(world.env(|env| Box::new(settlement).abandon(env)).is_none());
    world.verifying(&[("payment-signature", &payment)]);
}

#[test]
fn a_settlement_whose_vm_may_end_is_left_pending_and_still_counts_when_it_is_known() {
    let refused = br#"{"success":false,"errorReason":"insufficient_funds","transaction":""}"#;
    for (reply, again) in [
        (SETTLED, "nonce_already_used"),
        (CalloutReply::Lost, "resumed"),
        (
            CalloutReply::Answered {
                status: 200,
                body: refused,
            },
            "verifying",
        ),
    ] {
        let mut world = World::new();
        let payment = world.payment(1);
        let mut settlement = world.settling(&[("payment-signature", &payment)]);
        world.env(|env| settlement.leave_pending(env));
        let meanwhile = world.refused(&[("payment-signature", &payment)]);
        assert_eq!(body(&meanwhile)["error"], "settlement_pending");
        let _ = world.settled(settlement, &reply);
        match world.request("/paid", &[("payment-signature", &payment)], None).1 {
            RequestEffect::Answer(answer) => assert_eq!(body(&answer)["error"], again),
            RequestEffect::Verify(_) => assert_eq!(again, "verifying"),
            RequestEffect::Settle(_) => assert_eq!(again, "resumed"),
            RequestEffect::Forward(_) => panic!("let through"),
        }
    }
}

#[test]
fn an_answer_before_the_verdict_is_not_let_out() {
    let mut world = World::new();
    let payment = world.payment(1);
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    assert!(!gate.lets_request_on());
    let early = answer(world.respond(&mut gate, 200, true));
    assert_eq!(body(&early)["error"], "gate_misconfigured");
    let (mut gate, _) = world.verifying(&[("payment-signature", &payment)]);
    assert!(
        matches!(world.respond(&mut gate, 504, false), ResponseEffect::Pass),
        "a timeout of Envoy's passes"
    );
    world.verifying(&[("payment-signature", &payment)]);
}

#[test]
fn upgrades_and_ambiguous_paths_cannot_be_paid_for() {
    let mut world = World::new();
    assert_eq!(body(&world.refused(&[("upgrade", b"websocket")]))["error"], "upgrade_not_payable");
    for path in ["/pai%2564", "/x%2f..%2fpaid", "/paid;x=1", "/x\\..\\paid", "/paid%00"] {
        match world.request(path, &[], None) {
            (_, RequestEffect::Answer(answer)) => assert!(matches!(answer.status, 400 | 402), "{path}: {}", answer.status),
            _ => panic!("{path} was let through"),
        }
    }
}

#[test]
fn a_full_store_fails_closed() {
    let mut world = World::new();
    world.store.inject_conflicts(1_000);
    let payment = world.payment(1);
    let answer = world.refused(&[("payment-signature", &payment)]);
    assert_eq!((answer.status, body(&answer)["error"].as_str()), (503, Some("claims_unavailable")));
}

#[test]
fn nothing_signed_and_no_key_is_in_what_is_noted() {
    let mut world = World::new();
    let payment = world.payment(1);
    let settlement = world.settling(&[("payment-signature", &payment), ("authorization", b"Bearer sk-real")]);
    let _ = world.settled(settlement, &CalloutReply::Lost);
    let noted = format!("{:?}", world.notes);
    let sent = unbase64(std::str::from_utf8(&payment).unwrap());
    assert!(!noted.contains(sent["payload"]["signature"].as_str().unwrap()));
    assert!(!noted.contains("sk-real"));
}
