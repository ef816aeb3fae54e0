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
#[path = "support/node.rs"]
mod node;
#[path = "support/shared.rs"]
mod shared;
#[path = "support/payments.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use databases::Database;
use sqlx::Row as _;
use support::{Facilitator, Script, ledger, pay, payment, serve};
use x402_envoy::replay::SHARED_SECRET;
use x402_envoy::x402::{Network, Refusal};
use x402_ledger::api::fund::{Funding, fund};
use x402_ledger::api::webhook::{Applied, Event, apply};
use x402_ledger::payments::books::{Books as _, State, Topup};
use x402_ledger::payments::cipher::Cipher;
use x402_ledger::payments::claims::{Claims, Holder};
use x402_ledger::payments::sweeper::sweep;
use x402_ledger::payments::topup::{Outcome, Topups};
use x402_ledger::reconcile::{Node, reconcile};
use x402_ledger::resolve::{Found, ResolveError, resolve};
use x402_ledger::store::{Filter, Kind, Store};

on_both!(
    a_payment_is_credited_once_with_its_receipt_as_often_as_it_is_sent,
    what_is_no_tiers_price_never_reaches_the_facilitator,
    a_refusal_frees_the_payment,
    after_a_failure_it_is_pending_until_it_is_known,
    after_garbage_it_is_pending_until_it_is_known,
    a_ledger_that_dies_while_it_settles_is_succeeded_by_the_next,
    a_used_nonce_proves_nothing_above_the_bound,
    a_top_up_without_an_end_is_ended_by_hand,
    a_client_that_leaves_ends_no_settlement,
    races_of_one_payment_are_credited_once,
    any_amount_is_funded_once,
    two_who_pay_the_same_intent_at_once,
    races_of_webhook_and_payment_are_credited_once,
    what_tops_up_buys_no_request,
    what_buys_a_request_tops_nothing_up,
    races_of_a_key_and_none_are_settled_once,
    what_was_claimed_by_another_name_is_still_known,
    top_ups_are_compared_with_the_chain,
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
    // However slow this is.
    database.run("UPDATE topups SET next_attempt_at = 9000000000000000").await.unwrap();
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

async fn a_top_up_without_an_end_is_ended_by_hand(database: Database) {
    let (facilitator, books, topups) = world(&database, &[Script::Fail, Script::Fail]).await;
    // More than is inferred.
    let (paid, unpaid) = (payment(1, 5_000_000), payment(2, 5_000_000));
    assert_eq!(pay(&topups, "a", &paid).await, Outcome::Pending);
    let open = books.only().await;
    let store = &database.store;
    let found = Found::Paid("0x5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a");
    let claim = store.intent_of(&open.id).await.unwrap().unwrap();
    // A top-up is had by its own name and by its claim's, once.
    assert_eq!(resolve(store, &claim.claim, found, 1).await.unwrap(), "paid: it is credited");
    for id in [&open.id, &claim.claim] {
        let again = resolve(store, id, found, 1).await;
        assert!(matches!(again, Err(ResolveError::NotOpen { state: "settled", .. })), "{again:?}");
    }
    assert_eq!(books.credits().await, one(5_000_000));
    assert!(matches!(pay(&topups, "a", &paid).await, Outcome::Credited { .. }));

    assert_eq!(pay(&topups, "a", &unpaid).await, Outcome::Pending);
    let rows = sqlx::query("SELECT id FROM topups WHERE state = 'unknown'")
        .fetch_all(&database.sql)
        .await
        .unwrap();
    let id: String = rows[0].try_get(0).unwrap();
    let until = store.intent_of(&id).await.unwrap().unwrap().expires_at;
    let failed = Found::Failed("not on the chain");
    assert!(matches!(
        resolve(store, &id, failed, until - 1).await,
        Err(ResolveError::Early { .. })
    ));
    assert!(matches!(resolve(store, &id, found, until).await, Err(ResolveError::Named { .. })));
    database
        .run("UPDATE topups SET state = 'processing', lease_until = 9000000000000000 WHERE state = 'unknown'")
        .await
        .unwrap();
    let busy = resolve(store, &id, failed, until).await;
    assert!(
        matches!(
            busy,
            Err(ResolveError::Busy {
                until: 9_000_000_000_000,
                ..
            })
        ),
        "{busy:?}"
    );
    database
        .run("UPDATE topups SET state = 'unknown' WHERE state = 'processing'")
        .await
        .unwrap();
    assert_eq!(
        resolve(store, &id, failed, until).await.unwrap(),
        "failed: nothing is credited, and the payment buys nothing"
    );
    assert!(resolve(store, &id, found, until).await.is_err(), "it has an end now");
    assert!(matches!(pay(&topups, "a", &unpaid).await, Outcome::Refused { .. }));
    books.lapse().await;
    assert_eq!(sweep(&topups).await.unwrap(), 0);
    assert_eq!(
        (books.credits().await, *facilitator.settle_calls.lock().unwrap()),
        (one(5_000_000), 2)
    );
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
    let (facilitator, books, topups) = world(&database, &[]).await;
    let mut won = BTreeMap::new();
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
        // Before it is paid; while it is settled, before the facilitator's answer or with it; when it is settled.
        let when = round % 4;
        let said = {
            let (database, event, facilitator) = (database.clone(), event("1.00"), facilitator.clone());
            async move {
                if when == 1 || when == 2 {
                    facilitator.arrived.notified().await;
                }
                if when == 2 {
                    facilitator.go.notify_one();
                }
                let said = [
                    apply(&database.store, &event, 0).await.unwrap(),
                    apply(&database.store, &event, 0).await.unwrap(),
                ];
                if when == 1 {
                    facilitator.go.notify_one();
                }
                said
            }
        };
        if when == 1 || when == 2 {
            facilitator.script.lock().unwrap().push_back(Script::Wait);
        }
        let header = support::header(round, 1_000_000);
        let headers = [(&b"payment-signature"[..], header.as_bytes())];
        (funding.intent, funding.headers) = (Some(id), &headers);
        let said = if when == 3 {
            fund(&topups, &funding).await.unwrap();
            said.await
        } else {
            let said = tokio::spawn(said);
            fund(&topups, &funding).await.unwrap();
            said.await.unwrap()
        };
        assert_eq!(said, [Applied::Done; 2]);
        assert_eq!(fund(&topups, &funding).await.unwrap().status, 200);
        let by = database.store.topup(id).await.unwrap().unwrap().transaction.unwrap();
        *won.entry((when, by == "0x1")).or_insert(0) += 1;
        assert_eq!(books.credits().await.len(), usize::from(round));
    }
    // What the webhook says first is what is kept, though the money moves.
    assert_eq!((won[&(1, true)], won[&(3, false)]), (25, 25), "{won:?}");
    assert!(facilitator.moved.lock().unwrap().len() >= 75);
}

/// The same payments without a key, at a ledger of the fleet.
struct Fleet {
    claims: Arc<Claims>,
    store: Store,
}

impl Fleet {
    fn of(database: &Database, url: &str) -> Self {
        Self {
            claims: shared::claims(&database.store, url),
            store: database.store.clone(),
        }
    }

    /// What Envoy says of a request with the payment of this nonce, and the body of its calls.
    fn call(nonce: u8, request: u8) -> (Holder, Vec<u8>) {
        let claim = hex::encode(support::claim(&SHARED_SECRET, nonce).as_bytes());
        let holder = Holder::parse(&format!("{};claim={claim};until=1900000000", shared::hex(request))).unwrap();
        (holder, shared::body(nonce, "exact", "1000000"))
    }

    /// `""` where it is good, or why it is not.
    async fn verify(&self, nonce: u8, request: u8) -> String {
        let (holder, body) = Self::call(nonce, request);
        let answer = self.claims.verify(0, &holder, body).await.unwrap();
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        said["invalidReason"].as_str().unwrap_or_default().to_owned()
    }

    async fn settle(&self, nonce: u8, request: u8) -> bool {
        let (holder, body) = Self::call(nonce, request);
        let answer = self.claims.settle(0, &holder, body).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["success"] == true
    }
}

async fn what_tops_up_buys_no_request(database: Database) {
    let (facilitator, books, topups) = world(&database, &[Script::Wait, Script::Refuse]).await;
    let fleet = Fleet::of(&database, &facilitator.url());
    let paying = tokio::spawn({
        let topups = topups.clone();
        async move { pay(&topups, "a", &payment(1, 1_000_000)).await }
    });
    facilitator.arrived.notified().await;
    assert_eq!(fleet.verify(1, 1).await, "ledger_payment_in_use");
    assert!(fleet.store.standing().await.unwrap().claims.iter().all(|(_, count)| *count == 0));
    // However long it takes.
    assert_eq!(fleet.store.lapse_intents(i64::MAX - 1).await.unwrap(), 0);
    assert!(!fleet.settle(1, 1).await);
    facilitator.go.notify_one();
    assert!(matches!(paying.await.unwrap(), Outcome::Credited { .. }));
    assert_eq!(fleet.verify(1, 1).await, "nonce_already_used");
    assert!(!fleet.settle(1, 1).await);
    // What is refused may be had by whoever comes next.
    assert!(matches!(pay(&topups, "a", &payment(2, 1_000_000)).await, Outcome::Refused { .. }));
    assert_eq!(fleet.verify(2, 2).await, "");
    assert!(fleet.settle(2, 2).await);
    assert_eq!(*facilitator.settle_calls.lock().unwrap(), 3);
    assert_eq!(books.credits().await, one(1_000_000));
}

async fn what_buys_a_request_tops_nothing_up(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
    let fleet = Fleet::of(&database, &facilitator.url());
    let paid = payment(1, 1_000_000);
    assert_eq!(fleet.verify(1, 1).await, "");
    assert_eq!(pay(&topups, "a", &paid).await, Outcome::InUse);
    assert!(fleet.store.end_request(&shared::hex(1), 1).await.unwrap());
    // Given back, taken again, and paid.
    assert_eq!(fleet.verify(1, 2).await, "");
    assert!(fleet.settle(1, 2).await);
    for _ in 0..2 {
        assert_eq!(refusal(&pay(&topups, "a", &paid).await), Refusal::NonceAlreadyUsed);
        fleet.store.deliver_intent(&shared::hex(2)).await.unwrap();
    }
    assert_eq!((books.credits().await.len(), *facilitator.settle_calls.lock().unwrap()), (0, 1));
    // One that was given back is credited.
    assert_eq!(fleet.verify(2, 3).await, "");
    assert!(fleet.store.end_request(&shared::hex(3), 1).await.unwrap());
    assert!(matches!(pay(&topups, "a", &payment(2, 1_000_000)).await, Outcome::Credited { .. }));
    assert_eq!(books.credits().await, one(1_000_000));
}

async fn races_of_a_key_and_none_are_settled_once(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
    let fleet = Arc::new(Fleet::of(&database, &facilitator.url()));
    let (mut topped_up, mut served) = (0, 0);
    for round in 1..=20u8 {
        let with_key = tokio::spawn({
            let topups = topups.clone();
            async move { matches!(pay(&topups, "a", &payment(round, 1_000_000)).await, Outcome::Credited { .. }) }
        });
        let without = tokio::spawn({
            let fleet = fleet.clone();
            // Where the pre-check is enough, /settle is the first that is heard of it.
            async move { (round % 2 == 0 || fleet.verify(round, round).await.is_empty()) && fleet.settle(round, round).await }
        });
        let (with_key, without) = (with_key.await.unwrap(), without.await.unwrap());
        assert!(with_key != without, "{round}: {with_key} {without}");
        topped_up += usize::from(with_key);
        served += usize::from(without);
    }
    assert_eq!((topped_up + served, books.credits().await.len()), (20, topped_up));
    assert_eq!(*facilitator.settle_calls.lock().unwrap(), 20);
}

async fn what_was_claimed_by_another_name_is_still_known(database: Database) {
    let (facilitator, books, topups) = world(&database, &[]).await;
    let paid = payment(1, 1_000_000);
    let first = pay(&topups, "a", &paid).await;
    // As versions before hashed it, without a claim of the fleet's.
    let before = hex::encode(support::claim(&support::SECRET, 1).as_bytes());
    database.run(&format!("UPDATE topups SET claim = '{before}'")).await.unwrap();
    database.run("DELETE FROM intents").await.unwrap();
    assert_eq!(pay(&topups, "a", &paid).await, first);
    assert_eq!(
        (books.credits().await, *facilitator.settle_calls.lock().unwrap()),
        (one(1_000_000), 1)
    );
}

async fn top_ups_are_compared_with_the_chain(database: Database) {
    let (facilitator, books, topups) = world(
        &database,
        &[Script::Settle, Script::Settle, Script::Settle, Script::Fail, Script::Fail],
    )
    .await;
    // More than is inferred, so that two stay open.
    let amounts = [1_000_000, 5_000_000, 1_000_000, 5_000_000, 5_000_000];
    for (nonce, amount) in (1..).zip(amounts) {
        pay(&topups, "a", &payment(nonce, amount)).await;
    }
    assert_eq!(books.credits().await.len(), 3);
    // The facilitator's transactions are named for their nonces.
    let transaction = |nonce: u8| format!("0x{}", format!("{nonce:02x}").repeat(32));
    let chain = node::Chain {
        // The third one never came in, the second one too little; the fourth has, and the fifth has not. Another one is nobody's.
        transfers: vec![
            (transaction(1), 1_000_000),
            (transaction(2), 4_000_000),
            (transaction(4), 5_000_000),
            (transaction(9), 7),
        ],
        used: vec![(transaction(4), transaction(4))],
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let network = Network::parse("eip155:84532").unwrap();
    let cipher = Cipher::new(&"ab".repeat(32)).unwrap();
    let node = Node::new(&node::node(chain).await, http);
    let offers = topups.offers();
    let report = reconcile(&database.store, offers, Some(&cipher), &network, &node, 5).await.unwrap();
    assert_eq!((report.known, report.moved), (5, 4));
    let mut told: Vec<String> = report
        .differs
        .iter()
        .map(|line| line.split_once(": ").unwrap().1.to_owned())
        .collect();
    told.sort();
    let mut expected = [
        format!("credited with 5.00, and transaction {} moved 4000000", transaction(2)),
        format!("the chain has no transaction {}", transaction(3)),
        format!("its settlement is open, and transaction {} has paid it", transaction(4)),
        "its settlement is open, and its nonce is not used".to_owned(),
        "7 came in, and the ledger knows nothing of it".to_owned(),
    ];
    expected.sort();
    assert_eq!(told, expected, "{:?}", report.differs);
    assert_eq!(*facilitator.settle_calls.lock().unwrap(), 5);
}
