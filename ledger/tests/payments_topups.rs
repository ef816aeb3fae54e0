//! Top-ups against a facilitator that refuses, fails, forgets and is slow: credited once, or not at all.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/payments.rs"]
mod support;

use std::sync::Arc;

use support::{Facilitator, Memory, Script, ledger, payment, serve};
use x402_envoy::x402::{Payment, Refusal, Resource};
use x402_ledger::api::fund::{Funding, fund};
use x402_ledger::api::webhook::{Applied, Event, apply};
use x402_ledger::payments::books::State;
use x402_ledger::payments::sweeper::sweep;
use x402_ledger::payments::topup::{Outcome, Paying, Topups};

async fn pay(topups: &Arc<Topups<Memory>>, tenant: &str, payment: &Payment) -> Outcome {
    let offers = topups.offers().all();
    let resource = Resource {
        url: "https://api.example.com/v1/chat",
        description: "",
        mime_type: "",
    };
    let paying = Paying {
        tenant,
        payment,
        offers: &offers,
        resource,
        intent: None,
    };
    topups.pay(&paying).await.unwrap()
}

async fn world(script: &[Script]) -> (Arc<Facilitator>, Memory, Arc<Topups<Memory>>) {
    let facilitator = Arc::new(Facilitator::default());
    facilitator.script.lock().unwrap().extend(script);
    let url = serve(facilitator.clone()).await;
    let books = Memory::default();
    (facilitator, books.clone(), ledger(books, &url))
}

fn one(amount: i64) -> Vec<(String, i64)> {
    vec![("a".to_owned(), amount)]
}

fn refusal(outcome: &Outcome) -> Refusal {
    match outcome {
        Outcome::Refused { refusal, .. } => *refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_payment_is_credited_once_with_its_receipt_as_often_as_it_is_sent() {
    let (facilitator, books, topups) = world(&[]).await;
    let paid = payment(1, 5_000_000);
    let first = pay(&topups, "a", &paid).await;
    assert!(
        matches!(
            &first,
            Outcome::Credited {
                receipt: ("payment-response", _),
                ..
            }
        ),
        "{first:?}"
    );
    assert_eq!(pay(&topups, "a", &paid).await, first);
    assert_eq!((books.credits(), books.only().payload), (one(5_000_000), None));
    assert_eq!(*facilitator.settle_calls.lock().unwrap(), 1);
    assert_eq!(refusal(&pay(&topups, "b", &paid).await), Refusal::NonceAlreadyUsed);
    assert_eq!(books.credits().len(), 1);
}

#[tokio::test]
async fn what_is_no_tiers_price_never_reaches_the_facilitator() {
    let (facilitator, books, topups) = world(&[]).await;
    assert!(matches!(pay(&topups, "a", &payment(1, 2_000_000)).await, Outcome::Refused { .. }));
    assert_eq!((*facilitator.verified.lock().unwrap(), books.credits().len()), (0, 0));
}

#[tokio::test]
async fn a_refusal_frees_the_payment() {
    let (_, books, topups) = world(&[Script::Refuse]).await;
    let paid = payment(1, 1_000_000);
    assert_eq!(refusal(&pay(&topups, "a", &paid).await), Refusal::InsufficientFunds);
    let failed = books.only();
    assert_eq!(
        (failed.state, failed.payload, failed.error.as_deref()),
        (State::Failed, None, Some("insufficient_funds"))
    );
    assert!(matches!(pay(&topups, "a", &paid).await, Outcome::Credited { .. }));
    assert_eq!(books.credits(), one(1_000_000));
}

#[tokio::test]
async fn what_is_unknown_is_pending_until_it_is_known() {
    for script in [Script::Fail, Script::Garbage] {
        let (facilitator, books, topups) = world(&[script]).await;
        assert_eq!(pay(&topups, "a", &payment(1, 1_000_000)).await, Outcome::Pending, "{script:?}");
        let unknown = books.only();
        assert_eq!((unknown.state, unknown.payload.is_some()), (State::Unknown, true));
        assert_eq!(sweep(&topups).await.unwrap(), 0, "it is not due yet");
        books.lapse();
        assert_eq!(sweep(&topups).await.unwrap(), 1);
        assert_eq!((books.credits(), facilitator.moved.lock().unwrap().len()), (one(1_000_000), 1));
        books.lapse();
        assert_eq!((sweep(&topups).await.unwrap(), books.credits().len()), (0, 1));
    }
}

#[tokio::test]
async fn a_used_nonce_proves_nothing_above_the_bound() {
    let (_, books, topups) = world(&[Script::Fail]).await;
    let paid = payment(1, 5_000_000);
    for _ in 0..3 {
        assert_eq!(pay(&topups, "a", &paid).await, Outcome::Pending);
    }
    assert_eq!((books.only().state, books.credits().len()), (State::Unknown, 0));
}

#[tokio::test]
async fn a_client_that_leaves_ends_no_settlement() {
    let (facilitator, books, topups) = world(&[Script::Wait]).await;
    let paid = payment(1, 1_000_000);
    let request = tokio::spawn({
        let (topups, paid) = (topups.clone(), paid.clone());
        async move { pay(&topups, "a", &paid).await }
    });
    facilitator.arrived.notified().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    facilitator.go.notify_one();
    assert!(matches!(pay(&topups, "a", &paid).await, Outcome::Credited { .. }));
    assert_eq!((books.credits(), *facilitator.settle_calls.lock().unwrap()), (one(1_000_000), 1));
}

#[test]
fn a_ledger_that_dies_while_it_settles_is_succeeded_by_the_next() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let (outside, first) = (runtime(), runtime());
    let facilitator = Arc::new(Facilitator::default());
    facilitator.script.lock().unwrap().push_back(Script::Wait);
    let url = outside.block_on(serve(facilitator.clone()));
    let (books, paid) = (Memory::default(), payment(1, 1_000_000));
    let dying = ledger(books.clone(), &url);
    first.spawn({
        let paid = paid.clone();
        async move { pay(&dying, "a", &paid).await }
    });
    outside.block_on(facilitator.arrived.notified());
    // The money has moved, and nothing says so.
    first.shutdown_background();
    assert_eq!((books.only().state, books.credits().len()), (State::Processing, 0));
    books.lapse();
    outside.block_on(async {
        let next = ledger(books.clone(), &url);
        assert_eq!(sweep(&next).await.unwrap(), 1);
        assert!(matches!(pay(&next, "a", &paid).await, Outcome::Credited { .. }));
    });
    assert_eq!((books.credits(), facilitator.moved.lock().unwrap().len()), (one(1_000_000), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_of_one_payment_are_credited_once() {
    let (facilitator, books, topups) = world(&[]).await;
    for round in 1..=50u8 {
        let paid = payment(round, 1_000_000);
        let racing = || {
            let (topups, paid) = (topups.clone(), paid.clone());
            tokio::spawn(async move { pay(&topups, "a", &paid).await })
        };
        let (one, two) = (racing(), racing());
        for outcome in [one.await.unwrap(), two.await.unwrap()] {
            assert!(matches!(outcome, Outcome::Credited { .. }), "{outcome:?}");
        }
        assert_eq!(books.credits().len(), usize::from(round));
        assert_eq!(*facilitator.settle_calls.lock().unwrap(), u32::from(round));
    }
}

#[tokio::test]
async fn any_amount_is_funded_once() {
    let (_, books, topups) = world(&[]).await;
    let ask = async |tenant: &str, amount: &str, intent: Option<&str>, header: &str| {
        let headers = [(&b"payment-signature"[..], header.as_bytes())];
        let funding = Funding {
            tenant,
            amount,
            intent,
            headers: &headers,
            origin: ("https", "api.example.com"),
        };
        let answer = fund(&topups, &funding).await.unwrap();
        (
            answer.status,
            serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(),
            answer.headers,
        )
    };
    for wrong in ["0.00", "100.01", "x", "-1"] {
        let (status, body, _) = ask("a", wrong, None, "").await;
        assert_eq!((status, body["error"]["code"].as_str().unwrap()), (400, "invalid_amount"));
        assert!(body["error"]["message"].as_str().unwrap().contains("from 0.01 to 100.00"));
    }
    let (status, body, headers) = ask("a", "12.34", None, "").await;
    assert_eq!(
        (
            status,
            body["amount"].as_str().unwrap(),
            body["accepts"][0]["maxAmountRequired"].as_str().unwrap()
        ),
        (402, "12.34", "12340000")
    );
    let id = body["payment_intent_id"].as_str().unwrap();
    assert!(headers.contains(&("x-payment-intent-id", id.to_owned())) && headers.iter().any(|(name, _)| *name == "payment-required"));
    let paid = support::header(9, 12_340_000);
    assert_eq!(ask("b", "12.34", Some(id), &paid).await.0, 404);
    assert_eq!(ask("a", "12.35", Some(id), &paid).await.0, 400);
    let (status, body, headers) = ask("a", "12.34", Some(id), &paid).await;
    assert_eq!(
        (
            status,
            body["payment_intent_id"].as_str().unwrap(),
            body["status"].as_str().unwrap()
        ),
        (200, id, "settled")
    );
    assert!(headers.iter().any(|(name, _)| *name == "payment-response"));
    assert_eq!(ask("a", "12.34", None, &paid).await.1, body);
    assert_eq!(ask("a", "12.34", Some(id), &support::header(10, 12_340_000)).await.0, 200);
    assert_eq!(books.credits(), one(12_340_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_of_webhook_and_payment_are_credited_once() {
    let (_, books, topups) = world(&[]).await;
    for round in 1..=100u8 {
        let headers: &[(&[u8], &[u8])] = &[];
        let mut funding = Funding {
            tenant: "a",
            amount: "1.00",
            intent: None,
            headers,
            origin: ("https", "api.example.com"),
        };
        let asked: serde_json::Value = serde_json::from_slice(&fund(&topups, &funding).await.unwrap().body).unwrap();
        let id = asked["payment_intent_id"].as_str().unwrap();
        let event = |amount: &str| -> Event {
            let data = serde_json::json!({"payment_intent_id": id, "amount": amount, "transaction": "0x1", "network": "eip155:84532"});
            serde_json::from_value(serde_json::json!({"id": "evt_1", "type": "payment_intent.succeeded", "data": data})).unwrap()
        };
        assert_eq!(apply(&books, &event("2.00"), 0).await.unwrap(), Applied::OtherAmount);
        let said = tokio::spawn({
            let (books, event) = (books.clone(), event("1.00"));
            async move { [apply(&books, &event, 0).await.unwrap(), apply(&books, &event, 0).await.unwrap()] }
        });
        let header = support::header(round, 1_000_000);
        let headers = [(&b"payment-signature"[..], header.as_bytes())];
        (funding.intent, funding.headers) = (Some(id), &headers);
        fund(&topups, &funding).await.unwrap();
        assert_eq!(said.await.unwrap(), [Applied::Done; 2]);
        assert_eq!(fund(&topups, &funding).await.unwrap().status, 200);
        assert_eq!(books.credits().len(), usize::from(round));
    }
}
