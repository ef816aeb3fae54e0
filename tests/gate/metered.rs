//! The metered flow, event by event: what streams, what is settled at each end, and what becomes of the claim.

use crate::support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::world::{SETTLED, TOKEN, VALID, World, body};
use support::{Payer, permit, unbase64};
use x402_envoy::gate::{
    BodyEffect, CalloutReply, Edits, EndEffect, Endpoint, Gate, LastWords, Next, Note, Owed, Released, RequestEffect, Response,
    ResponseEffect, Settlement, Unread, VerifiedEffect,
};
use x402_envoy::pricing::{End, Place, RequestFacts};
use x402_envoy::reader::{self, BodyFacts};

const SPENDER: alloy_primitives::Address = alloy_primitives::address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
const PATH: &str = "/v1/chat/completions";
/// 1000 bytes of input and 100 of overhead at 2.5, and 100 tokens of output at 10.
const QUOTE: u64 = 3750;
const REFUSED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#,
};
const GARBAGE: CalloutReply<'static> = CalloutReply::Answered {
    status: 502,
    body: b"<html>",
};

const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn configuration(terms: &Value) -> Value {
    json!({
        "pay_to": {"eip155": support::SELLER.to_string()},
        "accept": [{"scheme": "upto", "network": "eip155:84532", "asset": "USDC", "transfer": "permit", "spender": SPENDER.to_string()}],
        "facilitators": [{"cluster": "facilitator", "url": "http://127.0.0.1:4022"}],
        "settlement": {"retries": 0},
        "unmatched": "deny",
        "routes": [{
            "name": "chat", "match": {"path": PATH}, "flow": "metered", "metered": terms,
            "price": {"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}},
        }],
    })
}

/// What the reader hands over of a chat completion of 1000 bytes and 100 tokens.
fn chat(world: &World, stream: bool) -> BodyFacts {
    let body = |padding: usize| {
        let content = "x".repeat(padding);
        json!({"messages": [{"role": "user", "content": content}], "max_tokens": 100, "stream": stream}).to_string()
    };
    let body = body(1000 - body(0).len());
    assert_eq!(body.len(), 1000);
    let place = Place {
        method: b"POST",
        authority: b"api.example.com",
        path: PATH.as_bytes(),
        envoy_route: None,
        is_cors_preflight: false,
    };
    let request = RequestFacts {
        place,
        headers: &[],
        body: None,
    };
    let reading = world
        .config
        .routes
        .read(None, &request, body.as_bytes(), Some(b"application/json"), None, false);
    reader::decode(&reader::encode(&reading.facts)).unwrap()
}

/// A world whose first payer has paid for a completion and waits for the answer.
struct Chat {
    world: World,
    gate: Gate,
}

impl Chat {
    fn new(terms: &Value, stream: bool) -> Self {
        Self::of(&configuration(terms), stream)
    }

    fn of(config: &Value, stream: bool) -> Self {
        let mut world = World::with(config);
        let (mut gate, effect) = send(&mut world, stream, 0);
        let dispatch = match effect {
            RequestEffect::Verify(dispatch) => dispatch,
            RequestEffect::Answer(answer) => panic!("answered {}", String::from_utf8_lossy(&answer.body)),
            RequestEffect::Forward(_) | RequestEffect::Settle(_) => panic!("let through"),
        };
        let (call, waiting) = dispatch.split();
        let sent: Value = serde_json::from_slice(&call.body).unwrap();
        assert_eq!(
            amount_of(&sent),
            QUOTE.to_string(),
            "the facilitator is asked about the whole quote"
        );
        assert!(matches!(gate, Gate::Done));
        gate = waiting.sent(TOKEN).0;
        let Some(VerifiedEffect::Request(RequestEffect::Forward(edits))) = world.env(|env| gate.on_verified(TOKEN, &VALID, env)) else {
            panic!("not forwarded")
        };
        assert!(
            edits.set.contains(&("accept-encoding", "identity".into())),
            "the answer must be readable"
        );
        Self { world, gate }
    }

    fn streamed() -> Self {
        let mut chat = Self::new(&json!({}), true);
        let edits = chat.begins(&[("content-type", "text/event-stream")]);
        assert!(edits.remove.contains(&"content-length".into()));
        assert!(edits.add.contains(&("trailer", "x-payment-response".into())));
        chat
    }

    fn headers(&mut self, status: u16, headers: &[(&str, &str)], ended: bool) -> ResponseEffect {
        let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let response = Response {
            status,
            from_backend: true,
            ended,
            headers: &headers,
        };
        self.world.env(|env| self.gate.on_response(&response, env))
    }

    /// The backend's headers, which must not wait for anything.
    fn begins(&mut self, headers: &[(&str, &str)]) -> Edits {
        match self.headers(200, headers, false) {
            ResponseEffect::Edit(edits) => edits,
            _ => panic!("held back"),
        }
    }

    /// A part of the answer, not the last: what passes of it.
    fn part(&mut self, bytes: &str) -> String {
        let now_ms = self.world.now * 1000;
        let passed = self.gate.pass(bytes.as_bytes(), || now_ms).unwrap_or_else(|Unread| {
            let effect = self.world.env(|env| self.gate.on_response_body(bytes.as_bytes(), false, env));
            assert!(matches!(effect.next, Next::Go), "nothing but the end waits");
            effect.bytes
        });
        passed.map_or(bytes.into(), |bytes| String::from_utf8(bytes).unwrap())
    }

    fn last(&mut self, bytes: &str) -> BodyEffect {
        self.world.env(|env| self.gate.on_response_body(bytes.as_bytes(), true, env))
    }

    /// The last part, and the settlement that its end waits for.
    fn settles(&mut self, bytes: &str) -> Settlement {
        match self.last(bytes).next {
            Next::Settle(settlement) => *settlement,
            _ => panic!("not settled"),
        }
    }

    fn ends(&mut self, end: End) -> Option<Box<Settlement>> {
        match self.world.env(|env| self.gate.on_end(end, env))? {
            Owed::Settlement(settlement) => Some(settlement),
            Owed::Capture(_) => panic!("nothing was reserved"),
        }
    }

    fn outcome(&self) -> &str {
        let said = self.world.notes.attributes.iter().rev().find(|(name, _)| *name == "outcome");
        said.map_or("", |(_, value)| value)
    }

    /// What the same payment is answered now.
    fn again(&mut self) -> (u16, String) {
        match send(&mut self.world, true, 0).1 {
            RequestEffect::Answer(answer) => (answer.status, body(&answer)["error"].as_str().unwrap_or_default().into()),
            RequestEffect::Verify(_) => (0, "verified".into()),
            RequestEffect::Forward(_) | RequestEffect::Settle(_) => panic!("let through"),
        }
    }
}

/// A request that pays with the permit of this nonce, valid for so many seconds.
fn send_valid_for(world: &mut World, nonce: u64, seconds: u64) -> RequestEffect {
    let payment = permit(&Payer::new(1), SPENDER, QUOTE, nonce, seconds);
    let body = chat(world, true);
    world.request(PATH, &[("x-payment", &payment)], Some(&body)).1
}

/// A request that pays with the permit of this nonce.
fn send(world: &mut World, stream: bool, nonce: u64) -> (Gate, RequestEffect) {
    let payment = permit(&Payer::new(1), SPENDER, QUOTE, nonce, 300);
    let body = chat(world, stream);
    world.request(PATH, &[("x-payment", &payment)], Some(&body))
}

fn amount_of(call: &Value) -> String {
    let requirements = &call["paymentRequirements"];
    let amount = [&requirements["maxAmountRequired"], &requirements["amount"]];
    amount.iter().find_map(|amount| amount.as_str()).unwrap().into()
}

fn settled_amount(settlement: &Settlement) -> String {
    assert_eq!(settlement.call().endpoint, Endpoint::Settle);
    amount_of(&serde_json::from_slice(&settlement.call().body).unwrap())
}

fn finished(effect: Released) -> Option<LastWords> {
    match effect {
        Released::End(EndEffect::Finish(words)) => words,
        _ => panic!("not finished"),
    }
}

#[test]
fn an_answer_streams_at_once_and_what_it_used_is_settled_at_its_end() {
    let mut chat = Chat::streamed();
    assert_eq!(chat.part(TEXT), TEXT);
    assert_eq!(chat.part(USAGE), "", "the client did not ask for it");
    let settlement = chat.settles(DONE);
    assert_eq!(settled_amount(&settlement), "98"); // 11 × 2.5 + 7 × 10 = 97.5
    assert_eq!(settlement.receipt_name(), "x-payment-response");
    assert_eq!(chat.world.env(|env| settlement.patience_ms(env)), Some(10_000));
    assert!(chat.ends(End::Complete).is_none(), "the root context has it");
    let words = finished(chat.world.settled(settlement, &SETTLED)).unwrap();
    let receipt = unbase64(&words.value);
    assert_eq!((receipt["success"].as_bool(), receipt["amount"].as_str()), (Some(true), Some("98")));
    assert_eq!(words.comment.unwrap(), format!(": x-payment-response {}\n\n", words.value));
    assert_eq!(chat.world.counted(&Note::Settled("settled")), 1);
    assert_eq!(chat.world.counted(&Note::Earned("USDC".into(), "base-sepolia".into(), 98)), 1);
    assert_eq!(chat.again(), (402, "nonce_already_used".into()));
}

#[test]
fn what_is_due_is_reported_now_and_then_where_claims_are_shared() {
    let mut config = configuration(&json!({}));
    config["replay"] = json!({"claims": "shared"});
    let mut chat = Chat::of(&config, true);
    chat.begins(&[("content-type", "text/event-stream")]);
    let reported = |chat: &mut Chat, seconds: u64| -> Vec<(String, String)> {
        chat.world.now += seconds;
        chat.part(TEXT);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let reports = std::mem::take(&mut chat.world.notes.captures);
        let bodies = reports
            .iter()
            .map(|report| serde_json::from_slice::<Value>(&report.call().body).unwrap());
        bodies.map(|said| (text(&said["outcome"]), text(&said["amount"]))).collect()
    };
    assert_eq!(reported(&mut chat, 9), []);
    // (1000 ÷ 4 + 100) × 2.5 of input, and ten bytes of text, which are three begun tokens.
    assert_eq!(reported(&mut chat, 1), [("used".into(), "905".into())]);
    assert_eq!(reported(&mut chat, 9), []);
    assert_eq!(reported(&mut chat, 1), [("used".into(), "925".into())]);
    let settlement = chat.settles(DONE);
    assert!(settlement.call().intent.as_deref().unwrap().ends_with(";delivered"));
    assert_eq!(settled_amount(&settlement), "925");
}

#[test]
fn a_json_answer_has_its_receipt_in_the_trailer_alone() {
    let mut chat = Chat::new(&json!({}), false);
    chat.begins(&[("content-type", "application/json"), ("content-length", "99")]);
    let settlement = chat.settles(r#"{"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":1}}"#);
    assert_eq!(settled_amount(&settlement), "60");
    let words = finished(chat.world.settled(settlement, &SETTLED)).unwrap();
    assert_eq!(words.comment, None);
}

#[test]
fn an_answer_without_a_body_has_its_receipt_in_the_headers() {
    let mut chat = Chat::new(&json!({"missing_usage": "maximum"}), false);
    let ResponseEffect::Settle(settlement) = chat.headers(204, &[], true) else {
        panic!("not settled")
    };
    assert_eq!(settled_amount(&settlement), QUOTE.to_string());
    let Released::Edit(edits, _) = chat.world.settled(*settlement, &SETTLED) else {
        panic!("not released")
    };
    assert!(edits.set.iter().any(|(name, _)| *name == "x-payment-response"));
}

#[test]
fn an_answer_without_a_body_that_was_cut_off_does_not_buy_one_with_a_body() {
    for is_late in [true, false] {
        let mut chat = Chat::new(&json!({}), true);
        let ResponseEffect::Settle(settlement) = chat.headers(304, &[], true) else {
            panic!("not settled")
        };
        assert_eq!(settled_amount(&settlement), "875", "no more than its input");
        let Released::Edit(_, mut gate) = chat.world.settled(*settlement, &SETTLED) else {
            panic!("not released")
        };
        if is_late {
            chat.world.env(|env| gate.on_late(env));
        } else {
            assert!(chat.world.env(|env| gate.on_end(End::ClientGone, env)).is_none());
        }
        assert_eq!(chat.again(), (402, "nonce_already_used".into()));
    }
}

#[test]
fn the_comment_never_runs_into_what_the_backend_left_unfinished() {
    for (last, comment) in [
        (DONE, ": x-payment-response R\n\n"),
        ("data: [DONE]\r\n\r\n", ": x-payment-response R\n\n"),
        ("data: [DONE]\n", ": x-payment-response R\n"),
        ("data: [DONE]", "\n: x-payment-response R\n"),
        (": bye", "\n: x-payment-response R\n"),
    ] {
        let mut chat = Chat::streamed();
        chat.part(USAGE);
        let settlement = chat.settles(last);
        let words = finished(chat.world.settled(settlement, &SETTLED)).unwrap();
        assert_eq!(words.comment.unwrap().replace(&words.value, "R"), comment, "{last:?}");
    }
}

#[test]
fn each_end_is_charged_once_and_by_its_own_rule() {
    let estimate = "895"; // 250 and 100 tokens of input at 2.5, and 5 bytes of text: 2 tokens at 10
    for (end, terms, expected) in [
        (End::ClientGone, json!({}), Some(estimate)),
        (End::ClientGone, json!({"on_client_abort": "maximum"}), Some("3750")),
        (End::BackendFailed, json!({}), Some(estimate)),
        (End::BackendFailed, json!({"on_backend_failure": "free"}), None),
        (
            End::Interrupted,
            json!({"on_client_abort": "maximum", "on_backend_failure": "free"}),
            Some(estimate),
        ),
    ] {
        let mut chat = Chat::new(&terms, true);
        chat.begins(&[("content-type", "text/event-stream")]);
        chat.part(TEXT);
        let settlement = chat.ends(end);
        assert!(chat.ends(end).is_none(), "once");
        assert_eq!(settlement.as_deref().map(settled_amount).as_deref(), expected, "{end:?} {terms}");
        match settlement {
            Some(settlement) => {
                let settlement = chat.world.env(|env| settlement.abandon(env));
                let settlement = settlement.expect("the client has had it, and pays though it is not there to wait");
                let _ = chat.world.settled(*settlement, &SETTLED);
                assert_eq!(chat.again().1, "nonce_already_used");
            }
            None => {
                assert_eq!(chat.outcome(), "backend_failed");
                assert_eq!(chat.again().1, "verified", "it was given back");
            }
        }
    }
}

#[test]
fn nothing_due_is_not_settled_and_the_receipt_says_so() {
    let mut chat = Chat::streamed();
    chat.part(TEXT);
    let effect = chat.last("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n");
    let Next::End(EndEffect::Finish(Some(words))) = effect.next else {
        panic!("not at its end")
    };
    assert_eq!(unbase64(&words.value)["amount"], "0");
    assert_eq!(chat.world.counted(&Note::Released), 1);
    assert!(chat.ends(End::Complete).is_none());
    assert_eq!(chat.again().1, "verified");
}

#[test]
fn a_usage_above_the_quote_is_capped_and_counted() {
    for (headers, usage) in [
        (
            vec![("content-type", "text/event-stream")],
            "{\"prompt_tokens\":1101,\"completion_tokens\":100}",
        ),
        (
            vec![
                ("content-type", "text/event-stream"),
                ("settlement-overrides", "{\"amount\":\"3751\"}"),
            ],
            "{\"prompt_tokens\":1,\"completion_tokens\":1}",
        ),
    ] {
        let mut chat = Chat::new(&json!({}), true);
        let edits = chat.begins(&headers);
        assert_eq!(edits.remove.contains(&"settlement-overrides".into()), headers.len() > 1);
        let settlement = chat.settles(&format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n"));
        assert_eq!(settled_amount(&settlement), QUOTE.to_string());
        assert_eq!(chat.world.counted(&Note::UsageAboveQuote), 1);
    }
}

#[test]
fn a_refused_settlement_breaks_the_answer_off_and_buys_nothing_more() {
    let mut chat = Chat::new(&json!({"ban": "0s"}), true);
    chat.begins(&[("content-type", "text/event-stream")]);
    let settlement = chat.settles(USAGE);
    let effect = chat.world.settled(settlement, &REFUSED);
    assert!(matches!(effect, Released::End(EndEffect::Break)));
    assert_eq!(chat.world.counted(&Note::ServedUnsettled), 1);
    assert_eq!(chat.outcome(), "served_unsettled");
    assert_eq!(chat.again().1, "nonce_already_used");
}

#[test]
fn an_unknown_settlement_ends_without_a_receipt_and_stays_pending() {
    for (reply, outcome) in [
        (CalloutReply::Lost, "settlement_pending"),
        (GARBAGE, "settlement_pending"),
        (CalloutReply::NotSent, "served_unsettled"),
    ] {
        let mut chat = Chat::streamed();
        let settlement = chat.settles(USAGE);
        assert!(finished(chat.world.settled(settlement, &reply)).is_none());
        assert_eq!(chat.outcome(), outcome);
        assert_eq!(chat.again(), (503, "settlement_pending".into()), "{reply:?}");
    }
}

#[test]
fn an_error_costs_nothing_and_gives_the_payment_back() {
    for status in [400, 404, 429, 500, 503] {
        let mut chat = Chat::new(&json!({}), true);
        assert!(matches!(chat.headers(status, &[], false), ResponseEffect::Edit(_)));
        assert!(!chat.gate.reads_response());
        assert!(chat.ends(End::Complete).is_none());
        assert_eq!(chat.again().1, "verified");
    }
}

#[test]
fn trailers_that_look_like_ours_are_removed() {
    let mut chat = Chat::streamed();
    let trailers: [(&[u8], &[u8]); 4] = [
        (b"payment-response", b"x"),
        (b"x-payment-response", b"x"),
        (b"settlement-overrides", b"x"),
        (b"grpc-status", b"0"),
    ];
    let forged = ["payment-response", "x-payment-response", "settlement-overrides"];
    let removed = |gate: &Gate| -> Vec<String> {
        let mut names: Vec<String> = gate
            .on_response_trailers(&trailers)
            .remove
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort_unstable();
        names
    };
    let mut expected = forged.map(String::from);
    expected.sort_unstable();
    assert_eq!(removed(&chat.gate), expected);
    let _ = chat.settles(USAGE);
    assert_eq!(removed(&chat.gate), expected);
    assert!(removed(&Gate::Done).is_empty(), "an answer that is not sold is the backend's own");
}

#[test]
fn a_running_count_of_zero_is_no_free_answer_for_who_leaves() {
    let mut chat = Chat::streamed();
    chat.part("data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":0}}\n\n");
    let settlement = chat.ends(End::ClientGone).unwrap();
    assert_eq!(settled_amount(&settlement), "30"); // 4 × 2.5, and 5 bytes: 2 tokens at 10
}

/// What is delivered while a payment expires could not be settled any more.
#[test]
fn an_answer_ends_in_time_to_be_settled() {
    let minutes = |limit: u64| {
        let mut configuration = configuration(&json!({}));
        configuration["routes"][0]["price"] = json!({"per_minute": {"amount": "$0.000125", "minimum": 1, "maximum": limit}});
        configuration
    };
    for (configuration, ms) in [(configuration(&json!({})), 240_000), (minutes(3), 180_000), (minutes(4), 240_000)] {
        let mut world = World::with(&configuration);
        let maximum = configuration["routes"][0]["price"]["per_minute"]["maximum"].as_u64();
        let value = maximum.map_or(QUOTE, |minutes| minutes * 125);
        let body = chat(&world, true);
        let payment = permit(&Payer::new(1), SPENDER, value, 1, 300);
        let dispatch = match world.request(PATH, &[("x-payment", &payment)], Some(&body)).1 {
            RequestEffect::Verify(dispatch) => dispatch,
            RequestEffect::Answer(answer) => panic!("{}", String::from_utf8_lossy(&answer.body)),
            _ => panic!("not verified"),
        };
        let gate = vouched(&mut world, dispatch.split().1.sent(TOKEN).0).ok().unwrap();
        assert_eq!(world.env(|env| gate.longest_ms(env)), Some(ms));
        world.now += 100;
        assert_eq!(world.env(|env| gate.longest_ms(env)), Some(ms.min(140_000)));
    }
}

#[test]
fn a_backend_that_takes_too_long_sells_nothing() {
    let mut chat = Chat::new(&json!({}), true);
    chat.world.now += 240;
    let ResponseEffect::Answer(answer) = chat.headers(200, &[("content-type", "text/event-stream")], false) else {
        panic!("let out")
    };
    assert_eq!(
        (answer.status, body(&answer)["error"].as_str()),
        (402, Some("invalid_exact_evm_payload_authorization_valid_before"))
    );
    assert_eq!(chat.world.counted(&Note::Released), 1);
}

#[test]
fn a_payment_that_expires_soon_buys_no_metered_answer() {
    for (seconds, taken) in [(10, false), (149, false), (150, true), (300, true)] {
        let mut world = World::with(&configuration(&json!({})));
        match send_valid_for(&mut world, 1, seconds) {
            RequestEffect::Verify(_) => assert!(taken, "{seconds}"),
            RequestEffect::Answer(answer) => {
                assert!(!taken, "{seconds}");
                assert_eq!(answer.status, 402);
                assert!(
                    body(&answer)["message"]
                        .as_str()
                        .unwrap()
                        .contains("sign for maxTimeoutSeconds, 300 s")
                );
            }
            _ => panic!("let through"),
        }
    }
}

/// It may have been settled, however short the time that is left.
#[test]
fn a_pending_payment_that_expires_soon_is_not_challenged() {
    let mut chat = Chat::streamed();
    let settlement = chat.settles(USAGE);
    assert!(finished(chat.world.settled(settlement, &CalloutReply::Lost)).is_none());
    for _ in 0..2 {
        assert_eq!(chat.again(), (503, "settlement_pending".into()));
        chat.world.now += 200;
    }
}

/// A metered request of the first payer with this nonce: the facilitator is asked, or the answer's status and reason.
fn asked(world: &mut World, nonce: u64) -> Result<Gate, (u16, String)> {
    match send(world, true, nonce) {
        (_, RequestEffect::Verify(dispatch)) => Ok(dispatch.split().1.sent(TOKEN).0),
        (_, RequestEffect::Answer(answer)) => Err((answer.status, body(&answer)["error"].as_str().unwrap().into())),
        (_, RequestEffect::Forward(_) | RequestEffect::Settle(_)) => panic!("let through"),
    }
}

/// The facilitator vouches for it.
fn vouched(world: &mut World, mut gate: Gate) -> Result<Gate, (u16, String)> {
    match world.env(|env| gate.on_verified(TOKEN, &VALID, env)) {
        Some(VerifiedEffect::Request(RequestEffect::Forward(_))) => Ok(gate),
        Some(VerifiedEffect::Request(RequestEffect::Answer(answer))) => {
            Err((answer.status, body(&answer)["error"].as_str().unwrap().into()))
        }
        _ => panic!("neither forwarded nor answered"),
    }
}

fn verified(world: &mut World, nonce: u64) -> Result<Gate, (u16, String)> {
    asked(world, nonce).and_then(|gate| vouched(world, gate))
}

#[test]
fn what_one_payer_has_open_is_bounded_until_it_ends() {
    let terms = json!({"exposure": {"payer": "$0.0075"}});
    let exceeded = (429, "exposure_exceeded".to_owned());
    let ends: [fn(&mut World, Gate); 2] = [
        |world, mut gate| assert!(world.env(|env| gate.on_end(End::ClientGone, env)).is_none()),
        |world, gate| {
            let settlement = streams(world, gate);
            assert!(finished(world.settled(settlement, &SETTLED)).is_some());
        },
    ];
    for end in ends {
        let mut world = World::with(&configuration(&terms));
        // Whoever has not been vouched for takes nothing from others.
        let _unverified: Vec<Gate> = (10..20).map(|nonce| asked(&mut world, nonce).ok().unwrap()).collect();
        let first = verified(&mut world, 1).ok().unwrap();
        let third = asked(&mut world, 3).ok().unwrap();
        let _second = verified(&mut world, 2).ok().unwrap();
        assert_eq!(asked(&mut world, 4).err(), Some(exceeded.clone()));
        // It was asked about while there was room, which is gone.
        assert_eq!(vouched(&mut world, third).err(), Some(exceeded.clone()));
        end(&mut world, first);
        // The payments that were sent too early are as good as before.
        let _third = verified(&mut world, 3).ok().unwrap();
        assert_eq!(asked(&mut world, 4).err(), Some(exceeded.clone()));
    }
}

#[test]
fn what_is_not_known_to_be_settled_stays_open_until_the_payment_expires() {
    let mut world = World::with(&configuration(&json!({"exposure": {"total": "$0.0075"}})));
    for nonce in 1..=2 {
        let gate = verified(&mut world, nonce).ok().unwrap();
        let settlement = streams(&mut world, gate);
        assert!(finished(world.settled(settlement, &CalloutReply::Lost)).is_none());
    }
    assert_eq!(asked(&mut world, 3).err(), Some((429, "exposure_exceeded".into())));
    world.now += 300;
    assert!(matches!(send_valid_for(&mut world, 4, 1300), RequestEffect::Answer(answer) if answer.status == 429));
    // After the payments' end, and a sixteenth of the time that they were good for.
    world.now += 30;
    let late = send_valid_for(&mut world, 4, 1300);
    assert!(matches!(late, RequestEffect::Verify(_)));
}

#[test]
fn who_did_not_pay_is_refused_for_a_while() {
    for (terms, seconds) in [
        (json!({}), Some(3600)),
        (json!({"ban": "120s"}), Some(120)),
        (json!({"ban": "0s"}), None),
    ] {
        let mut world = World::with(&configuration(&terms));
        let gate = verified(&mut world, 1).ok().unwrap();
        let settlement = streams(&mut world, gate);
        assert!(matches!(world.settled(settlement, &REFUSED), Released::End(EndEffect::Break)));
        match seconds {
            None => assert!(asked(&mut world, 2).is_ok()),
            Some(seconds) => {
                assert_eq!(asked(&mut world, 2).err(), Some((429, "payer_banned".into())));
                let RequestEffect::Answer(answer) = send(&mut world, true, 2).1 else {
                    panic!("not answered")
                };
                let retry: u64 = support::world::header(&answer, "retry-after").unwrap().parse().unwrap();
                assert!((seconds..=seconds + 1).contains(&retry), "{retry}");
                world.now += seconds + 1;
                assert!(matches!(send_valid_for(&mut world, 3, seconds + 300), RequestEffect::Verify(_)));
            }
        }
    }
}

/// A verified request whose answer has come to its end.
fn streams(world: &mut World, mut gate: Gate) -> Settlement {
    let response = Response {
        status: 200,
        from_backend: true,
        ended: false,
        headers: &[(b"content-type", b"text/event-stream")],
    };
    assert!(matches!(world.env(|env| gate.on_response(&response, env)), ResponseEffect::Edit(_)));
    match world.env(|env| gate.on_response_body(USAGE.as_bytes(), true, env)).next {
        Next::Settle(settlement) => *settlement,
        _ => panic!("not settled"),
    }
}

/// What can happen to an answer after its headers.
#[derive(Clone, Debug)]
enum Event {
    Part(String),
    Last(String),
    Ends(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let text = prop_oneof![
        Just(TEXT.to_owned()),
        Just(USAGE.to_owned()),
        Just(DONE.to_owned()),
        Just("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":999999999,\"completion_tokens\":7}}\n\n".to_owned()),
        "[ -~\n]{0,40}",
    ];
    let event = prop_oneof![
        6 => text.clone().prop_map(Event::Part),
        1 => text.prop_map(Event::Last),
        1 => (0u8..4).prop_map(Event::Ends),
    ];
    proptest::collection::vec(event, 0..12)
}

proptest! {
    /// Whatever happens in whatever order: at most one settlement, never above the quote, and the claim ends as it says.
    #[test]
    fn any_order_of_events_settles_at_most_once(
        events in events(),
        reply in 0usize..4,
        terms in prop_oneof![Just(json!({})), Just(json!({"missing_usage": "free", "on_backend_failure": "free"})), Just(json!({"on_client_abort": "maximum"}))],
    ) {
        let mut chat = Chat::new(&terms, true);
        chat.begins(&[("content-type", "text/event-stream")]);
        let mut settlements = Vec::new();
        let all = [End::Complete, End::ClientGone, End::BackendFailed, End::Interrupted];
        // Every stream ends, and Envoy says so.
        for event in events.into_iter().chain([Event::Ends(1)]) {
            match event {
                Event::Part(bytes) => {
                    let effect = chat.world.env(|env| chat.gate.on_response_body(bytes.as_bytes(), false, env));
                    prop_assert!(matches!(effect.next, Next::Go));
                }
                Event::Last(bytes) => match chat.last(&bytes).next {
                    Next::Settle(settlement) => settlements.push(*settlement),
                    Next::End(EndEffect::Break) => prop_assert!(false, "broken off without a settlement"),
                    Next::Go | Next::End(_) => {}
                },
                Event::Ends(end) => settlements.extend(chat.ends(all[usize::from(end)]).map(|settlement| *settlement)),
            }
        }
        prop_assert!(settlements.len() <= 1);
        let Some(settlement) = settlements.pop() else {
            prop_assert_eq!(chat.again().1, "verified");
            return Ok(());
        };
        let amount: u64 = settled_amount(&settlement).parse().unwrap();
        prop_assert!((1..=QUOTE).contains(&amount));
        let reply = [SETTLED, REFUSED, CalloutReply::Lost, CalloutReply::NotSent][reply];
        let _ = chat.world.settled(settlement, &reply);
        let expected = match reply {
            SETTLED => "nonce_already_used",
            REFUSED => "payer_banned",
            _ => "settlement_pending",
        };
        prop_assert_eq!(chat.again().1, expected);
    }
}
