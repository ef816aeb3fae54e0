//! Prepaid credits, event by event: what the ledger is asked, and what each of its answers and each end of a stream comes to.

use crate::support;

use serde_json::{Value, json};
use support::world::{TOKEN, World, configuration};
use support::{Payer, Terms, base64, v2};
use x402_envoy::gate::{
    CalloutReply, Capture, Edits, Endpoint, Gate, Note, Owed, RequestEffect, Response, ResponseEffect, VerifiedEffect, end_leases,
    pays_by_credit,
};
use x402_envoy::pricing::End;
use x402_envoy::x402::Answer;

const KEY: (&str, &[u8]) = ("authorization", b"Bearer sk-canary");
/// `printf sk-canary | sha256sum`
const KEY_HASH: &str = "4bfe7fabc8de906cdc89971cd69e6703da4bf23ce364222512d95a3d4fb8f7d1";
const RESERVED: &[u8] = br#"{"outcome":"reserved","tenant":"ten_1","balance":"7","receipt":null}"#;

fn shop(change: impl FnOnce(&mut Value)) -> World {
    let mut config = configuration();
    config["ledger"] = json!({"cluster": "ledger", "url": "http://ledger.internal"});
    config["access"] = json!({"dummy_api_keys": ["x402"], "credits": {"enabled": true}});
    config["routes"] = json!([{"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}}]);
    change(&mut config);
    World::with(&config)
}

/// Asks, and gives the call to the ledger back with the gate that waits for it.
fn asked(world: &mut World, headers: &[(&str, &[u8])]) -> (Gate, Value) {
    let RequestEffect::Verify(dispatch) = world.request("/paid", headers, None).1 else {
        panic!("the ledger is not asked")
    };
    let (call, waiting) = dispatch.split();
    assert_eq!((call.endpoint, call.facilitator), (Endpoint::Reserve, world.config.ledger_index()));
    let (gate, edits) = waiting.sent(TOKEN);
    assert!(edits.is_none(), "the request goes on before it is reserved");
    assert!(!gate.lets_request_on());
    (gate, serde_json::from_slice(&call.body).unwrap())
}

fn told(world: &mut World, gate: &mut Gate, reply: &CalloutReply<'_>) -> RequestEffect {
    match world.env(|env| gate.on_verified(TOKEN, reply, env)) {
        Some(VerifiedEffect::Request(effect)) => effect,
        _ => panic!("nothing for the request"),
    }
}

fn reserved(world: &mut World, gate: &mut Gate) -> Edits {
    match told(
        world,
        gate,
        &CalloutReply::Answered {
            status: 200,
            body: RESERVED,
        },
    ) {
        RequestEffect::Forward(edits) => edits,
        _ => panic!("not forwarded"),
    }
}

fn refused(effect: RequestEffect) -> Answer {
    match effect {
        RequestEffect::Answer(answer) => std::rc::Rc::unwrap_or_clone(answer),
        _ => panic!("not answered"),
    }
}

fn response(status: u16, headers: &'static [(&'static [u8], &'static [u8])]) -> Response<'static> {
    Response {
        status,
        from_backend: true,
        ended: false,
        headers,
    }
}

fn capture(world: &mut World, gate: &mut Gate, end: End) -> Capture {
    match world.env(|env| gate.on_end(end, env)) {
        Some(Owed::Capture(capture)) => capture,
        _ => panic!("nothing is captured"),
    }
}

fn due(world: &mut World, gate: &mut Gate, end: End) -> u64 {
    let capture = capture(world, gate, end);
    let body: Value = serde_json::from_slice(&capture.call().body).unwrap();
    assert_eq!(capture.call().endpoint, Endpoint::Capture);
    assert_eq!(body["amount"], capture.due().to_string());
    capture.due()
}

#[test]
fn the_quote_is_reserved_and_captured() {
    let mut world = shop(|_| {});
    let (mut gate, asked) = asked(&mut world, &[KEY]);
    assert_eq!(asked["amount"], "1000");
    assert_eq!(
        (&asked["route"], &asked["limits"], &asked["headers"]),
        (&json!("paid"), &Value::Null, &json!([]))
    );
    assert_eq!(asked["resource"], "https://api.example.com/paid");
    let edits = reserved(&mut world, &mut gate);
    assert!(
        edits.remove.iter().any(|name| &**name == "authorization"),
        "the backend gets the key"
    );
    let set = |name: &str| edits.set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (set("x-x402-payer"), set("x-x402-network"), set("x-x402-amount")),
        (Some("ten_1"), Some("credits"), Some("1000"))
    );
    let effect = world.env(|env| gate.on_response(&response(200, &[(b"payment-response", b"forged")]), env));
    let ResponseEffect::Edit(edits) = effect else {
        panic!("not let through")
    };
    assert!(edits.remove.iter().any(|name| &**name == "payment-response"));
    assert!(edits.set.iter().any(|(name, value)| *name == "cache-control" && value == "private"));
    assert_eq!(due(&mut world, &mut gate, End::Complete), 1000);
}

#[test]
fn only_the_hash_of_the_key_travels() {
    let mut world = shop(|_| {});
    let (_, asked) = asked(&mut world, &[KEY]);
    assert_eq!(asked["key"], KEY_HASH);
    assert!(!asked.to_string().contains("sk-canary"));
    assert!(!format!("{:?}", world.notes).contains("sk-canary"));
}

#[test]
fn nothing_is_due_for_what_is_not_sold() {
    for (status, from_backend) in [(400, true), (404, true), (500, true), (503, false)] {
        let mut world = shop(|_| {});
        let (mut gate, _) = asked(&mut world, &[KEY]);
        reserved(&mut world, &mut gate);
        let answer = Response {
            from_backend,
            ..response(status, &[])
        };
        assert!(matches!(world.env(|env| gate.on_response(&answer, env)), ResponseEffect::Edit(_)));
        assert_eq!(due(&mut world, &mut gate, End::Complete), 0, "{status}");
        assert!(world.notes.events.contains(&Note::Released));
    }
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    let local = Response {
        from_backend: false,
        ..response(200, &[])
    };
    let ResponseEffect::Answer(answer) = world.env(|env| gate.on_response(&local, env)) else {
        panic!("another filter's answer is given away")
    };
    assert_eq!(answer.status, 502);
    assert_eq!(due(&mut world, &mut gate, End::Complete), 0);
}

#[test]
fn nothing_is_due_where_no_answer_came() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    assert_eq!(due(&mut world, &mut gate, End::ClientGone), 0);
    // And where the client left before it was reserved: the ledger may have done so by now.
    let (mut gate, _) = asked(&mut world, &[KEY]);
    assert_eq!(due(&mut world, &mut gate, End::ClientGone), 0);
}

#[test]
fn a_timeout_that_overtakes_the_ledger_gives_up() {
    let mut world = shop(|_| {});
    let (mut gate, asked) = asked(&mut world, &[KEY]);
    let local = Response {
        from_backend: false,
        ..response(504, &[])
    };
    assert!(matches!(world.env(|env| gate.on_response(&local, env)), ResponseEffect::Pass));
    let released: Value = serde_json::from_slice(&world.notes.captures[0].call().body).unwrap();
    assert_eq!(released, json!({"id": asked["id"], "amount": "0"}));
    let late = CalloutReply::Answered {
        status: 200,
        body: RESERVED,
    };
    assert!(
        world.env(|env| gate.on_verified(TOKEN, &late, env)).is_none(),
        "nothing is to be resumed"
    );
    assert!(world.env(|env| gate.on_end(End::Interrupted, env)).is_none());
}

#[test]
fn whoever_need_not_pay_spends_nothing() {
    let world = shop(|config| {
        config["access"]["bypass"] = json!([{"header": "x-internal-caller", "value": "hunter2hunter2"}]);
    });
    let headers: [(&[u8], &[u8]); 2] = [(b"authorization", b"Bearer sk-1"), (b"x-internal-caller", b"hunter2hunter2")];
    assert!(!pays_by_credit(&world.config, &headers));
    assert!(pays_by_credit(&world.config, &headers[..1]));
}

#[test]
fn a_client_that_leaves_pays_what_is_priced_by_the_request() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
    assert_eq!(due(&mut world, &mut gate, End::ClientGone), 1000);
}

#[test]
fn the_backend_may_lower_the_price_and_not_raise_it() {
    for (header, charged) in [
        (&br#"{"amount":"400"}"#[..], 400),
        (br#"{"amount":"50%"}"#, 500),
        (br#"{"amount":"0"}"#, 0),
        (br#"{"amount":"5000"}"#, 1000),
        (b"nonsense", 1000),
    ] {
        let mut world = shop(|_| {});
        let (mut gate, _) = asked(&mut world, &[KEY]);
        reserved(&mut world, &mut gate);
        let headers: [(&[u8], &[u8]); 1] = [(b"settlement-overrides", header)];
        let answer = Response {
            headers: &headers,
            ..response(200, &[])
        };
        let _ = world.env(|env| gate.on_response(&answer, env));
        assert_eq!(due(&mut world, &mut gate, End::Complete), charged);
    }
}

#[test]
fn what_the_ledger_answers_is_the_client_s_answer() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    let body = br#"{"outcome":"answer","status":402,"headers":[["payment-required","e30="]],"body":"{}"}"#;
    let answer = refused(told(&mut world, &mut gate, &CalloutReply::Answered { status: 200, body }));
    assert_eq!(
        (answer.status, answer.headers),
        (402, vec![("payment-required", "e30=".to_owned())])
    );
    assert!(world.notes.events.contains(&Note::Challenged(0)));
    assert!(world.env(|env| gate.on_end(End::Complete, env)).is_none(), "nothing was reserved");
}

#[test]
fn a_ledger_that_is_no_help_serves_nobody_and_holds_nothing() {
    for (reply, given_up) in [
        (CalloutReply::NotSent, false),
        (CalloutReply::Lost, true),
        (CalloutReply::Answered { status: 500, body: b"{}" }, true),
        (CalloutReply::Answered { status: 200, body: b"{}" }, true),
        // It certainly reserved nothing.
        (
            CalloutReply::Answered {
                status: 401,
                body: RESERVED,
            },
            false,
        ),
    ] {
        let mut world = shop(|_| {});
        let (mut gate, asked) = asked(&mut world, &[KEY]);
        let answer = refused(told(&mut world, &mut gate, &reply));
        assert_eq!(answer.status, 503);
        assert!(
            !answer.headers.iter().any(|(name, _)| *name == "payment-required"),
            "nobody is told to pay again"
        );
        assert!(answer.headers.iter().any(|(name, _)| *name == "retry-after"));
        let released: Vec<Value> = world
            .notes
            .captures
            .iter()
            .map(|capture| serde_json::from_slice(&capture.call().body).unwrap())
            .collect();
        let expected = json!({"id": asked["id"], "amount": "0"});
        assert_eq!(released, if given_up { vec![expected] } else { Vec::new() });
    }
    let mut world = shop(|_| {});
    let RequestEffect::Verify(dispatch) = world.request("/paid", &[KEY], None).1 else {
        panic!("the ledger is not asked")
    };
    let (_, effect) = world.env(|env| dispatch.split().1.not_sent(env));
    assert_eq!(refused(effect).status, 503);
}

#[test]
fn the_payment_goes_to_the_ledger_and_not_to_the_backend() {
    let mut world = shop(|_| {});
    // For whatever it is made: what it buys here is the ledger's to say.
    let payment = base64(&v2(
        &json!({"scheme": "exact", "network": "eip155:84532"}),
        Terms::good(1).payload(&Payer::new(1)),
    ));
    let (mut gate, asked) = asked(&mut world, &[KEY, ("payment-signature", &payment), ("x-other", b"1")]);
    assert_eq!(
        asked["headers"],
        json!([["payment-signature", String::from_utf8(payment.clone()).unwrap()]])
    );
    let body = br#"{"outcome":"reserved","tenant":"ten_1","balance":"7","receipt":["payment-response","e30="]}"#;
    let RequestEffect::Forward(edits) = told(&mut world, &mut gate, &CalloutReply::Answered { status: 200, body }) else {
        panic!("not forwarded")
    };
    assert!(edits.remove.iter().any(|name| &**name == "payment-signature"));
    let ResponseEffect::Edit(edits) = world.env(|env| gate.on_response(&response(200, &[]), env)) else {
        panic!("not let through")
    };
    assert!(edits.set.contains(&("payment-response", "e30=".to_owned())));
}

#[test]
fn a_payment_that_nobody_can_read_is_refused_before_the_ledger_is_asked() {
    for payment in [&b"\xff\xfe"[..], b"%%%", b"e30="] {
        let mut world = shop(|_| {});
        let answer = refused(world.request("/paid", &[KEY, ("payment-signature", payment)], None).1);
        assert_eq!(answer.status, 400);
        assert!(!answer.headers.iter().any(|(name, _)| *name == "payment-required"));
    }
}

#[test]
fn minutes_are_counted_up_to_what_was_reserved() {
    for (ms, minutes) in [(0, 2), (61_000, 2), (121_000, 3), (200_000, 4), (900_000, 5)] {
        let mut world = shop(|config| {
            config["routes"] = json!([{"name": "paid", "match": {"path": "/paid"},
                                       "price": {"per_minute": {"amount": "$0.10", "minimum": 2, "maximum": 5}}}]);
        });
        let (mut gate, asked) = asked(&mut world, &[KEY]);
        assert_eq!(asked["amount"], "500000");
        reserved(&mut world, &mut gate);
        assert_eq!(world.env(|env| gate.longest_ms(env)), Some(300_000));
        let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
        assert!(gate.has_sold() && gate.reads_response());
        let (now, ms) = (world.now * 1000, ms);
        let owed = world.env(|env| {
            env.now_ms = now + ms;
            gate.on_end(End::Interrupted, env)
        });
        let Some(Owed::Capture(capture)) = owed else {
            panic!("nothing is captured")
        };
        assert_eq!(capture.due(), minutes * 100_000, "{ms}");
    }
}

#[test]
fn limits_of_the_account_go_along() {
    let mut world = shop(|config| config["limits"] = json!({"account": {"requests": 5, "window": "60s", "spend": "$2"}}));
    let (_, asked) = asked(&mut world, &[KEY]);
    assert_eq!(asked["limits"], json!({"requests": 5, "window_ms": 60_000, "spend": "2000000"}));
}

#[test]
fn what_is_due_is_told_until_it_is_heard() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
    let mut capture = capture(&mut world, &mut gate, End::Complete);
    let mut waits = Vec::new();
    for reply in [
        CalloutReply::NotSent,
        CalloutReply::Lost,
        CalloutReply::Answered { status: 503, body: b"" },
    ] {
        let (again, ms) = world.env(|env| capture.answered(&reply, env)).expect("it is told again");
        waits.push(ms);
        capture = again;
    }
    assert_eq!(waits, [500, 1000, 2000]);
    let heard = CalloutReply::Answered { status: 200, body: b"{}" };
    assert!(world.env(|env| capture.answered(&heard, env)).is_none());
    assert!(world.notes.events.ends_with(&[Note::Spent(1000), Note::Captured("captured")]));
}

#[test]
fn it_is_given_up_after_a_while_and_that_is_said() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
    let mut left = Some(capture(&mut world, &mut gate, End::Complete));
    let mut waited = 0;
    while let Some(capture) = left.take() {
        if let Some((again, ms)) = world.env(|env| capture.answered(&CalloutReply::Lost, env)) {
            waited += ms;
            left = Some(again);
        }
    }
    assert!((480_000..720_000).contains(&waited), "{waited}");
    assert_eq!(world.notes.events.last(), Some(&Note::Captured("lost")));
    assert!(world.notes.warnings.iter().any(|line| line.contains("1000 millionths")));
}

#[test]
fn a_release_is_given_up_sooner_for_clients_can_cause_them_at_will() {
    let mut world = shop(|_| {});
    let (mut gate, _) = asked(&mut world, &[KEY]);
    let mut left = Some(capture(&mut world, &mut gate, End::ClientGone));
    let mut tries = 0;
    while let Some(capture) = left.take() {
        tries += 1;
        left = world.env(|env| capture.answered(&CalloutReply::Lost, env)).map(|(again, _)| again);
    }
    assert_eq!(tries, 6);
    assert_eq!(world.notes.events.last(), Some(&Note::Captured("unreleased")));
    assert!(world.notes.warnings.is_empty());
}

#[test]
fn nobody_else_is_treated_otherwise() {
    let on = shop(|_| {});
    let off = shop(|config| config["access"]["credits"]["enabled"] = json!(false));
    for (headers, by_credit) in [
        (&[(&b"authorization"[..], &b"Bearer sk-1"[..])][..], true),
        (&[(b"authorization", b"Bearer x402")], false),
        (&[(b"x-api-key", b"sk-1")], false),
        (&[], false),
    ] {
        assert_eq!(pays_by_credit(&on.config, headers), by_credit);
        assert!(!pays_by_credit(&off.config, headers));
    }
    for mut world in [on, off] {
        assert_eq!(refused(world.request("/paid", &[], None).1).status, 402);
        assert_eq!(
            refused(world.request("/paid", &[("authorization", b"Bearer x402")], None).1).status,
            402
        );
    }
    let mut off = shop(|config| config["access"]["credits"]["enabled"] = json!(false));
    assert_eq!(refused(off.request("/paid", &[KEY], None).1).status, 402);
}

/// A shop that lets so much be open while the ledger cannot be asked.
fn trusting(most: &str) -> World {
    let most = most.to_owned();
    shop(move |config| config["access"]["credits"]["on_ledger_failure"] = json!({ "allow_up_to": most }))
}

const FAILED: CalloutReply<'static> = CalloutReply::Answered { status: 503, body: b"{}" };

#[test]
fn while_the_ledger_fails_as_much_is_served_as_may_be_open() {
    // Two at a tenth of a cent each, and not a third.
    let mut world = trusting("$0.002");
    let mut served = Vec::new();
    for reply in [CalloutReply::Lost, FAILED] {
        let (mut gate, _) = asked(&mut world, &[KEY]);
        let RequestEffect::Forward(edits) = told(&mut world, &mut gate, &reply) else {
            panic!("not served")
        };
        assert!(edits.set.contains(&("x-x402-payer", "unknown".into())));
        served.push(gate);
    }
    assert!(world.notes.captures.is_empty(), "what may be held is charged, not given back");
    let (mut gate, _) = asked(&mut world, &[KEY]);
    assert_eq!(refused(told(&mut world, &mut gate, &CalloutReply::NotSent)).status, 503);
    assert_eq!(world.counted(&Note::Reserved("trusted")), 2);
    // What was not due is open no more, once the ledger knows that nothing is to be held.
    let mut gate = served.pop().unwrap();
    let _ = world.env(|env| gate.on_response(&response(500, &[]), env));
    let released = capture(&mut world, &mut gate, End::Complete);
    assert_eq!(released.due(), 0);
    let ok = CalloutReply::Answered {
        status: 200,
        body: br#"{"captured":"0"}"#,
    };
    assert!(world.env(|env| released.answered(&ok, env)).is_none());
    let (mut again, _) = asked(&mut world, &[KEY]);
    assert!(matches!(
        told(&mut world, &mut again, &CalloutReply::NotSent),
        RequestEffect::Forward(_)
    ));
    // What is due is charged by the key, and stays open where there is no such key.
    let mut gate = served.pop().unwrap();
    let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
    let charged = capture(&mut world, &mut gate, End::Complete);
    let body: Value = serde_json::from_slice(&charged.call().body).unwrap();
    assert_eq!((&body["amount"], &body["key"]), (&json!("1000"), &json!(KEY_HASH)));
    let unknown = CalloutReply::Answered { status: 404, body: b"{}" };
    assert!(world.env(|env| charged.answered(&unknown, env)).is_none());
    let (mut gate, _) = asked(&mut world, &[KEY]);
    assert_eq!(refused(told(&mut world, &mut gate, &CalloutReply::NotSent)).status, 503);
}

#[test]
fn nobody_is_trusted_who_pays_nor_by_a_ledger_that_refuses_envoy() {
    let mut world = trusting("$1");
    let (mut gate, _) = asked(&mut world, &[KEY]);
    let refuses = CalloutReply::Answered { status: 401, body: b"{}" };
    assert_eq!(refused(told(&mut world, &mut gate, &refuses)).status, 503);
    let payment = base64(&v2(
        &json!({"scheme": "exact", "network": "eip155:84532"}),
        Terms::good(1).payload(&Payer::new(1)),
    ));
    let (mut gate, _) = asked(&mut world, &[KEY, ("payment-signature", &payment)]);
    assert_eq!(refused(told(&mut world, &mut gate, &CalloutReply::Lost)).status, 503);
    assert_eq!(world.counted(&Note::Reserved("trusted")), 0);
    let mut closed = shop(|_| {});
    let (mut gate, _) = asked(&mut closed, &[KEY]);
    assert_eq!(refused(told(&mut closed, &mut gate, &CalloutReply::NotSent)).status, 503);
}

#[test]
fn what_was_reserved_is_captured_without_the_key() {
    let mut world = trusting("$1");
    let (mut gate, _) = asked(&mut world, &[KEY]);
    reserved(&mut world, &mut gate);
    let _ = world.env(|env| gate.on_response(&response(200, &[]), env));
    let captured = capture(&mut world, &mut gate, End::Complete);
    let body: Value = serde_json::from_slice(&captured.call().body).unwrap();
    assert_eq!(body.get("key"), None);
}

const LEASED: &[u8] = br#"{"outcome":"reserved","tenant":"ten_1","balance":"7","receipt":null,
    "lease":{"amount":"2500","ttl_ms":10000}}"#;
/// The name that the lease was asked for by.
const LEASE: &str = "70707070707070707070707070707070";

fn leasing() -> World {
    shop(|config| config["access"]["credits"]["lease"] = json!("$0.0025"))
}

/// A request that is served at once, or `None`: the ledger is asked.
fn at_once(world: &mut World, headers: &[(&str, &[u8])]) -> Option<Gate> {
    match world.request("/paid", headers, None) {
        (gate @ Gate::Spending(_), RequestEffect::Forward(_)) => Some(gate),
        (_, RequestEffect::Verify(_)) => None,
        _ => panic!("neither served nor asked about"),
    }
}

/// A world whose worker has a lease: its key has come twice.
fn leased() -> World {
    let mut world = leasing();
    let (_, first) = asked(&mut world, &[KEY]);
    assert_eq!(first.get("lease"), None, "nobody leases for a key that comes now and then");
    let (mut gate, second) = asked(&mut world, &[KEY]);
    assert_eq!(second["lease"], json!({"id": LEASE, "amount": "2500"}));
    assert_ne!(second["id"], LEASE);
    let reply = CalloutReply::Answered { status: 200, body: LEASED };
    assert!(matches!(told(&mut world, &mut gate, &reply), RequestEffect::Forward(_)));
    world
}

fn finish(world: &mut World, mut gate: Gate, status: u16) -> Option<Capture> {
    let _ = world.env(|env| gate.on_response(&response(status, &[]), env));
    match world.env(|env| gate.on_end(End::Complete, env)) {
        Some(Owed::Capture(capture)) => Some(capture),
        None => None,
        Some(Owed::Settlement(_)) => panic!("nothing was signed"),
    }
}

fn said(capture: &Capture) -> (String, String) {
    let body: Value = serde_json::from_slice(&capture.call().body).unwrap();
    (body["id"].as_str().unwrap().to_owned(), body["amount"].as_str().unwrap().to_owned())
}

#[test]
fn a_busy_key_is_served_from_a_lease() {
    let mut world = leased();
    let first = at_once(&mut world, &[KEY]).unwrap();
    let second = at_once(&mut world, &[KEY]).unwrap();
    assert!(at_once(&mut world, &[KEY]).is_none(), "there is not enough left for a third");
    assert_eq!(world.counted(&Note::Reserved("leased")), 2);
    assert!(at_once(&mut world, &[("authorization", b"Bearer sk-other")]).is_none());
    // What one did not use another may.
    assert!(finish(&mut world, first, 500).is_none());
    let third = at_once(&mut world, &[KEY]).unwrap();
    assert!(finish(&mut world, second, 200).is_none());
    // Nothing begins when its time is over, and the last to end tells the ledger of all.
    world.now += 10;
    assert!(at_once(&mut world, &[KEY]).is_none());
    world.env(|env| end_leases(false, env));
    assert!(world.notes.captures.is_empty());
    let capture = finish(&mut world, third, 200).unwrap();
    assert_eq!(said(&capture), (LEASE.to_owned(), "2000".to_owned()));
    assert_eq!(capture.due(), 2_000);
}

#[test]
fn a_lease_that_nobody_uses_goes_back() {
    for (all, seconds) in [(false, 10), (true, 0)] {
        let mut world = leased();
        world.now += seconds;
        world.env(|env| end_leases(all, env));
        assert_eq!(said(&world.notes.captures[0]), (LEASE.to_owned(), "0".to_owned()));
        assert!(at_once(&mut world, &[KEY]).is_none());
    }
}

#[test]
fn a_lease_whose_answer_is_lost_goes_back_with_its_reservation() {
    let both = |asked: &Value| {
        vec![
            (LEASE.to_owned(), "0".to_owned()),
            (asked["id"].as_str().unwrap().to_owned(), "0".to_owned()),
        ]
    };
    for client_leaves in [false, true] {
        let mut world = leasing();
        asked(&mut world, &[KEY]);
        let (mut gate, second) = asked(&mut world, &[KEY]);
        assert_eq!(second["lease"]["id"], LEASE);
        if client_leaves {
            let Some(Owed::Capture(capture)) = world.env(|env| gate.on_end(End::ClientGone, env)) else {
                panic!("nothing is given back")
            };
            world.notes.captures.push(capture);
        } else {
            let _ = told(&mut world, &mut gate, &CalloutReply::Lost);
        }
        let given_up: Vec<_> = world.notes.captures.iter().map(said).collect();
        assert_eq!(given_up, both(&second));
        // One that was not asked for is not given up.
        let mut world = leasing();
        let (mut gate, first) = asked(&mut world, &[KEY]);
        let _ = told(&mut world, &mut gate, &CalloutReply::Lost);
        let given_up: Vec<_> = world.notes.captures.iter().map(said).collect();
        assert_eq!(given_up, both(&first)[1..]);
    }
}

#[test]
fn a_payment_is_the_ledgers_whatever_is_leased() {
    let mut world = leased();
    let payment = base64(&v2(
        &json!({"scheme": "exact", "network": "eip155:84532"}),
        Terms::good(1).payload(&Payer::new(1)),
    ));
    assert!(at_once(&mut world, &[KEY, ("payment-signature", &payment)]).is_none());
    assert!(at_once(&mut world, &[KEY]).is_some());
}

#[test]
fn nothing_is_leased_unless_it_is_configured() {
    let mut world = shop(|_| {});
    for _ in 0..3 {
        let (_, asked) = asked(&mut world, &[KEY]);
        assert_eq!(asked.get("lease"), None);
    }
}
