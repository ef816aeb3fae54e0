//! Top-ups against a facilitator that refuses, fails, forgets and is slow: credited once, or not at all.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/databases.rs"]
mod databases;
#[path = "support/payments.rs"]
mod support;

use std::sync::Arc;

use databases::Database;
use sqlx::Row as _;
use support::{Facilitator, Script, ledger, pay, payment, serve};
use x402_envoy::x402::Refusal;
use x402_ledger::api::fund::{Funding, fund};
use x402_ledger::api::webhook::{Applied, Event, apply};
use x402_ledger::payments::books::{Books as _, State, Topup};
use x402_ledger::payments::sweeper::sweep;
use x402_ledger::payments::topup::{Outcome, Topups};
use x402_ledger::store::{Filter, Kind, Store};

on_both!(
    a_payment_is_credited_once_with_its_receipt_as_often_as_it_is_sent,
    what_is_no_tiers_price_never_reaches_the_facilitator,
    a_refusal_frees_the_payment,
    after_a_failure_it_is_pending_until_it_is_known,
    after_garbage_it_is_pending_until_it_is_known,
    a_ledger_that_dies_while_it_settles_is_succeeded_by_the_next,
    a_used_nonce_proves_nothing_above_the_bound,
    a_client_that_leaves_ends_no_settlement,
    races_of_one_payment_are_credited_once,
    any_amount_is_funded_once,
    two_who_pay_the_same_intent_at_once,
    races_of_webhook_and_payment_are_credited_once,
);

async fn world(database: &Database, script: &[Script]) -> (Arc<Facilitator>, Books, Arc<Topups<Store>>) {
    let facilitator = Arc::new(Facilitator::default());
    facilitator.script.lock().unwrap().extend(script);
    let url = serve(facilitator.clone()).await;
    let topups = ledger(database.store.clone(), &url);
    (facilitator, Books::of(database).await, topups)
}

/// What became of it all, past the state machine.
#[derive(Clone)]
struct Books(Database);

impl Books {
    /// With tenants a and b.
    async fn of(database: &Database) -> Self {
        for tenant in ["a", "b"] {
            let sql = format!("INSERT INTO tenants (id, name, created_at) VALUES ('{tenant}', '', 0)");
            database.run(&sql).await.unwrap();
        }
        Self(database.clone())
    }

    /// Every credit, as (tenant, micro-dollars), the latest first.
    async fn credits(&self) -> Vec<(String, i64)> {
        let topups = Filter {
            kind: Some(Kind::X402Topup),
            ..Filter::default()
        };
        let rows = self.0.store.transactions(&topups, 1_000).await.unwrap();
        self.0.adds_up().await;
        rows.into_iter().map(|row| (row.tenant, row.amount)).collect()
    }

    /// The only top-up that is not `created`.
    async fn only(&self) -> Topup {
        let rows = sqlx::query("SELECT id FROM topups WHERE state <> 'created'")
            .fetch_all(&self.0.sql)
            .await
            .unwrap();
        assert_eq!(rows.len(), 1);
        self.0
            .store
            .topup(&rows[0].try_get::<String, _>(0).unwrap())
            .await
            .unwrap()
            .unwrap()
    }

    /// As time passes: every lease has lapsed, and everything unknown is due.
    async fn lapse(&self) {
        self.0
            .run("UPDATE topups SET next_attempt_at = 0, lease_until = CASE WHEN lease_until = 0 THEN 0 ELSE 1 END")
            .await
            .unwrap();
    }
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

async fn a_payment_is_credited_once_with_its_receipt_as_often_as_it_is_sent(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
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
    assert_eq!((books.credits().await, books.only().await.payload), (one(5_000_000), None));
    assert_eq!(*facilitator.settle_calls.lock().unwrap(), 1);
    assert_eq!(refusal(&pay(&topups, "b", &paid).await), Refusal::NonceAlreadyUsed);
    assert_eq!(books.credits().await.len(), 1);
}

async fn what_is_no_tiers_price_never_reaches_the_facilitator(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
    assert!(matches!(pay(&topups, "a", &payment(1, 2_000_000)).await, Outcome::Refused { .. }));
    assert_eq!(books.credits().await.len(), 0);
    assert_eq!(*facilitator.verified.lock().unwrap(), 0);
}

async fn a_refusal_frees_the_payment(database: Database) {
    let (_, books, topups) = world(&database, &[Script::Refuse]).await;
    let paid = payment(1, 1_000_000);
    assert_eq!(refusal(&pay(&topups, "a", &paid).await), Refusal::InsufficientFunds);
    let failed = books.only().await;
    assert_eq!(
        (failed.state, failed.payload, failed.error.as_deref()),
        (State::Failed, None, Some("insufficient_funds"))
    );
    assert!(matches!(pay(&topups, "a", &paid).await, Outcome::Credited { .. }));
    assert_eq!(books.credits().await, one(1_000_000));
}

async fn after_a_failure_it_is_pending_until_it_is_known(database: Database) {
    is_pending_until_it_is_known(&database, Script::Fail).await;
}

async fn after_garbage_it_is_pending_until_it_is_known(database: Database) {
    is_pending_until_it_is_known(&database, Script::Garbage).await;
}

async fn is_pending_until_it_is_known(database: &Database, script: Script) {
    let (facilitator, books, topups) = world(database, &[script]).await;
    assert_eq!(pay(&topups, "a", &payment(1, 1_000_000)).await, Outcome::Pending, "{script:?}");
    let unknown = books.only().await;
    assert_eq!((unknown.state, unknown.payload.is_some()), (State::Unknown, true));
    assert_eq!(sweep(&topups).await.unwrap(), 0, "it is not due yet");
    books.lapse().await;
    assert_eq!(sweep(&topups).await.unwrap(), 1);
    assert_eq!(
        (books.credits().await, facilitator.moved.lock().unwrap().len()),
        (one(1_000_000), 1)
    );
    books.lapse().await;
    assert_eq!((sweep(&topups).await.unwrap(), books.credits().await.len()), (0, 1));
}

async fn a_used_nonce_proves_nothing_above_the_bound(database: Database) {
    let (_, books, topups) = world(&database, &[Script::Fail]).await;
    let paid = payment(1, 5_000_000);
    for _ in 0..3 {
        assert_eq!(pay(&topups, "a", &paid).await, Outcome::Pending);
    }
    assert_eq!((books.only().await.state, books.credits().await.len()), (State::Unknown, 0));
}

async fn a_client_that_leaves_ends_no_settlement(database: Database) {
    let (facilitator, books, topups) = world(&database, &[Script::Wait]).await;
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
    assert_eq!(
        (books.credits().await, *facilitator.settle_calls.lock().unwrap()),
        (one(1_000_000), 1)
    );
}

async fn a_ledger_that_dies_while_it_settles_is_succeeded_by_the_next(database: Database) {
    let (facilitator, books) = (Arc::new(Facilitator::default()), Books::of(&database).await);
    facilitator.script.lock().unwrap().push_back(Script::Wait);
    let url = serve(facilitator.clone()).await;
    let paid = payment(1, 1_000_000);
    // With a runtime and connections of its own, which end with it.
    let first = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    first.spawn({
        let (paid, url, at) = (paid.clone(), url.clone(), database.url.clone());
        async move { pay(&ledger(Store::open(&at, 2).await.unwrap(), &url), "a", &paid).await }
    });
    facilitator.arrived.notified().await;
    // The money has moved, and nothing says so.
    first.shutdown_background();
    assert_eq!((books.only().await.state, books.credits().await.len()), (State::Processing, 0));
    books.lapse().await;
    let next = ledger(database.store.clone(), &url);
    assert_eq!(sweep(&next).await.unwrap(), 1);
    assert!(matches!(pay(&next, "a", &paid).await, Outcome::Credited { .. }));
    assert_eq!(
        (books.credits().await, facilitator.moved.lock().unwrap().len()),
        (one(1_000_000), 1)
    );
}

async fn races_of_one_payment_are_credited_once(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
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
        assert_eq!(books.credits().await.len(), usize::from(round));
        assert_eq!(*facilitator.settle_calls.lock().unwrap(), u32::from(round));
    }
}

async fn any_amount_is_funded_once(database: Database) {
    let (_, books, topups) = world(&database, &[]).await;
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
    assert_eq!(books.credits().await, one(12_340_000));
    // A client that does not name the intent pays the newest that it could mean, and then one of its own.
    let none = ask("a", "2.00", None, "").await.1;
    let newest = ask("a", "2.00", None, "").await.1;
    assert_ne!(none["payment_intent_id"], newest["payment_intent_id"]);
    let paid: Vec<_> = [
        ask("a", "2.00", None, &support::header(11, 2_000_000)).await.1,
        ask("a", "2.00", None, &support::header(12, 2_000_000)).await.1,
        ask("a", "2.00", None, &support::header(13, 2_000_000)).await.1,
    ]
    .into_iter()
    .map(|body| body["payment_intent_id"].clone())
    .collect();
    // Two that were asked for in the same millisecond are equally new.
    assert!([&newest, &none].iter().all(|asked| paid[..2].contains(&asked["payment_intent_id"])));
    assert!(!paid[..2].contains(&paid[2]) && books.credits().await.len() == 4);
}

async fn two_who_pay_the_same_intent_at_once(database: Database) {
    let (facilitator, books, topups) = world(&database, &[Script::Wait]).await;
    let ask = |intent: Option<String>, nonce: u8| {
        let topups = topups.clone();
        tokio::spawn(async move {
            let header = if nonce == 0 {
                String::new()
            } else {
                support::header(nonce, 3_000_000)
            };
            let headers = [(&b"payment-signature"[..], header.as_bytes())];
            let funding = Funding {
                tenant: "a",
                amount: "3.00",
                intent: intent.as_deref(),
                headers: &headers,
                origin: ("https", "api.example.com"),
            };
            let answer = fund(&topups, &funding).await.unwrap();
            (answer.status, serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap())
        })
    };
    let id = ask(None, 0).await.unwrap().1["payment_intent_id"].as_str().unwrap().to_owned();
    let first = ask(None, 1);
    facilitator.arrived.notified().await;
    // Named it would be paid twice; not named it may be anybody's.
    assert_eq!(ask(Some(id.clone()), 2).await.unwrap().0, 409);
    assert_eq!(ask(None, 3).await.unwrap().0, 200);
    facilitator.go.notify_one();
    let (status, body) = first.await.unwrap();
    assert_eq!((status, body["payment_intent_id"].as_str().unwrap()), (200, &*id));
    assert_eq!(books.credits().await.len(), 2);
}

async fn races_of_webhook_and_payment_are_credited_once(database: Database) {
    let (_, books, topups) = world(&database, &[]).await;
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
        assert_eq!(apply(&database.store, &event("2.00"), 0).await.unwrap(), Applied::OtherAmount);
        let said = tokio::spawn({
            let (database, event) = (database.clone(), event("1.00"));
            async move {
                [
                    apply(&database.store, &event, 0).await.unwrap(),
                    apply(&database.store, &event, 0).await.unwrap(),
                ]
            }
        });
        let header = support::header(round, 1_000_000);
        let headers = [(&b"payment-signature"[..], header.as_bytes())];
        (funding.intent, funding.headers) = (Some(id), &headers);
        fund(&topups, &funding).await.unwrap();
        assert_eq!(said.await.unwrap(), [Applied::Done; 2]);
        assert_eq!(fund(&topups, &funding).await.unwrap().status, 200);
        assert_eq!(books.credits().await.len(), usize::from(round));
    }
}
