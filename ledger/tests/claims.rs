//! Claims of a fleet, against a facilitator that refuses, fails, forgets and is slow: one request at a time has a payment, and it is settled
//! at most once.
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
#[path = "support/shared.rs"]
mod shared;
#[path = "support/payments.rs"]
mod support;

use std::sync::Arc;

use databases::Database;
use serde_json::{Value, json};
use shared::{body, claims, hex, holder};
use sqlx::Row as _;
use support::{Facilitator, Script, serve};
use x402_ledger::payments::claims::{Claims, Holder};
use x402_ledger::resolve::{Found, ResolveError, resolve};
use x402_ledger::store::{Ended, Intent, Stage};

on_both!(
    a_payment_is_one_requests_until_it_is_released,
    a_payment_that_is_settled_buys_one_answer,
    two_hundred_copies_at_once,
    a_refusal_gives_it_back,
    what_is_unknown_is_sent_again_and_had_by_whoever_comes_next,
    a_ledger_that_dies_while_it_settles,
    an_envoy_that_dies_while_it_delivers,
    what_was_paid_for_is_had_after_the_payment_has_run_out,
    an_envoy_that_dies_before_it_settles,
    what_was_delivered_of_a_metered_answer_is_settled,
    nothing_is_settled_without_a_claim,
    the_amount_of_a_settlement_that_was_sent_stays,
    another_payment_of_the_nonce_has_nothing_of_the_first,
    nobody_is_told_to_pay_again_while_it_may_be_paid,
    what_was_delivered_stays_due,
    a_request_that_left_while_it_was_settled_holds_nothing,
    a_request_that_has_ended_holds_nothing_whatever_comes_late,
    of_an_end_and_a_call_at_once_nothing_is_held,
    of_an_end_and_a_settlement_at_once_the_next_one_has_it,
    what_has_ended_is_forgotten_in_time,
    what_no_facilitator_tells_the_end_of_is_ended_by_hand,
    what_was_not_paid_buys_nothing_once_it_has_run_out,
    what_nobody_can_settle_any_more_is_ended_by_hand,
    an_attempt_that_is_too_late_tells_nothing,
    an_end_is_known_by_what_is_written,
);

struct World {
    database: Database,
    facilitator: Arc<Facilitator>,
    claims: Arc<Claims>,
    url: String,
}

async fn world(database: &Database, script: &[Script]) -> World {
    let facilitator = Arc::new(Facilitator::default());
    facilitator.script.lock().unwrap().extend(script);
    let url = serve(facilitator.clone()).await;
    World {
        database: database.clone(),
        facilitator,
        claims: claims(&database.store, &url),
        url,
    }
}

impl World {
    async fn verify(&self, n: u8, request: u8) -> Value {
        let answer = self.claims.verify(0, &holder(n, request), body(n, "exact", "10000")).await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn settle(&self, n: u8, request: u8) -> (u16, Value) {
        let answer = self.claims.settle(0, &holder(n, request), body(n, "exact", "10000")).await.unwrap();
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    async fn intent(&self, n: u8) -> Intent {
        self.database.store.intent(&hex(n)).await.unwrap().unwrap()
    }

    /// As time passes: every lease has ended, and everything unknown is due.
    async fn lapse(&self) {
        self.database
            .run("UPDATE intents SET lease_until = 1, next_attempt_at = 0")
            .await
            .unwrap();
    }

    fn moved(&self) -> usize {
        self.facilitator.moved.lock().unwrap().len()
    }

    fn settle_calls(&self) -> u32 {
        *self.facilitator.settle_calls.lock().unwrap()
    }

    /// No signature outlives its settlement.
    async fn holds_no_payload(&self) {
        let rows = sqlx::query("SELECT claim FROM intents WHERE payload <> ''")
            .fetch_all(&self.database.sql)
            .await
            .unwrap();
        let left: Vec<String> = rows.iter().map(|row| row.try_get(0).unwrap()).collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

fn valid(answer: &Value) -> bool {
    answer["isValid"] == true
}

fn reason(answer: &Value) -> &str {
    assert_eq!(answer["isValid"], false, "{answer}");
    answer["invalidReason"].as_str().unwrap()
}

async fn a_payment_is_one_requests_until_it_is_released(database: Database) {
    let world = world(&database, &[]).await;
    assert!(valid(&world.verify(1, 1).await) && valid(&world.verify(1, 1).await));
    let held = world.intent(1).await;
    assert_eq!(
        (held.stage, &*held.payer, &*held.amount, &*held.network),
        (Stage::Held, "0xpayer", "10000", "eip155:84532")
    );
    assert!(!held.payload.contains("0xs") && !held.payload.is_empty());
    assert_eq!(reason(&world.verify(1, 2).await), "ledger_payment_in_use");
    assert!(valid(&world.verify(2, 2).await));
    assert_eq!(database.store.release_intent(&hex(1), 1).await.ok(), Some(true));
    assert!(valid(&world.verify(1, 3).await));
    // The first one is over.
    assert_eq!(world.settle(1, 1).await.1["errorReason"], "ledger_payment_in_use");
    assert_eq!(
        (world.moved(), database.store.release_intent(&hex(1), 1).await.ok()),
        (0, Some(false))
    );
}

async fn a_payment_that_is_settled_buys_one_answer(database: Database) {
    let world = world(&database, &[]).await;
    assert!(valid(&world.verify(1, 1).await));
    let (status, receipt) = world.settle(1, 1).await;
    assert_eq!((status, receipt["success"].as_bool()), (200, Some(true)));
    // The same request may ask again.
    assert_eq!(world.settle(1, 1).await, (status, receipt));
    assert_eq!(reason(&world.verify(1, 2).await), "ledger_payment_in_use");
    assert_eq!(world.settle(1, 2).await.1["errorReason"], "ledger_payment_in_use");
    database.store.deliver_intent(&hex(1)).await.unwrap();
    assert_eq!(reason(&world.verify(1, 2).await), "nonce_already_used");
    world.lapse().await;
    assert_eq!(reason(&world.verify(1, 3).await), "nonce_already_used");
    assert_eq!((world.moved(), world.settle_calls()), (1, 1));
    world.holds_no_payload().await;
}

async fn two_hundred_copies_at_once(database: Database) {
    let world = world(&database, &[]).await;
    // Two ledgers on one database.
    let ledgers = [world.claims.clone(), claims(&database.store, &world.url)];
    let tasks: Vec<_> = (0..200u8)
        .map(|request| {
            let ledger = ledgers[usize::from(request % 2)].clone();
            tokio::spawn(async move {
                let holder = holder(1, request);
                let verdict = ledger.verify(0, &holder, body(1, "exact", "10000")).await.unwrap();
                let verdict: Value = serde_json::from_slice(&verdict.body).unwrap();
                if !valid(&verdict) {
                    return false;
                }
                let outcome = ledger.settle(0, &holder, body(1, "exact", "10000")).await.unwrap();
                serde_json::from_slice::<Value>(&outcome.body).unwrap()["success"] == true
            })
        })
        .collect();
    let mut served = 0;
    for task in tasks {
        served += u32::from(task.await.unwrap());
    }
    assert_eq!((served, world.moved(), world.settle_calls()), (1, 1, 1));
}

async fn a_refusal_gives_it_back(database: Database) {
    let world = world(&database, &[Script::Refuse]).await;
    assert!(valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.1["errorReason"], "insufficient_funds");
    assert_eq!(
        (world.intent(1).await.stage, &*world.intent(1).await.error),
        (Stage::Released, "insufficient_funds")
    );
    assert!(valid(&world.verify(1, 2).await));
    assert_eq!(world.settle(1, 2).await.1["success"], true);
}

async fn what_is_unknown_is_sent_again_and_had_by_whoever_comes_next(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    assert!(valid(&world.verify(1, 1).await));
    // As the facilitator said it.
    assert_eq!(world.settle(1, 1).await.0, 500);
    assert_eq!(world.intent(1).await.stage, Stage::Unknown);
    // However slow this is.
    database.run("UPDATE intents SET next_attempt_at = 9000000000000000").await.unwrap();
    assert_eq!(
        reason(&world.verify(1, 2).await),
        "ledger_payment_pending",
        "its request may try again"
    );
    assert_eq!(world.claims.sweep(10).await.unwrap(), 0, "it is not due yet");
    database.store.leave_intent(&hex(1)).await.unwrap();
    assert_eq!(reason(&world.verify(1, 3).await), "ledger_payment_pending", "it is not due yet");
    world.lapse().await;
    assert_eq!(world.claims.sweep(10).await.unwrap(), 1);
    assert_eq!((world.intent(1).await.stage, world.moved()), (Stage::Settled, 1));
    // Paid and not delivered: the next one has it, and its receipt, and nothing moves again.
    assert!(valid(&world.verify(1, 4).await));
    assert_eq!(reason(&world.verify(1, 5).await), "ledger_payment_in_use");
    assert_eq!(world.settle(1, 4).await.1["success"], true);
    assert_eq!((world.moved(), world.settle_calls()), (1, 2));
    database.store.deliver_intent(&hex(4)).await.unwrap();
    world.lapse().await;
    assert_eq!(reason(&world.verify(1, 6).await), "nonce_already_used");
    world.holds_no_payload().await;
}

async fn a_ledger_that_dies_while_it_settles(database: Database) {
    let world = world(&database, &[Script::Wait]).await;
    assert!(valid(&world.verify(1, 1).await));
    let first = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    first.spawn({
        let (at, url) = (database.url.clone(), world.url.clone());
        async move {
            let mut own = databases::opened(&at).await;
            own.url = at;
            claims(&own.store, &url).settle(0, &holder(1, 1), body(1, "exact", "10000")).await
        }
    });
    world.facilitator.arrived.notified().await;
    // The money has moved, and nothing says so.
    first.shutdown_background();
    assert_eq!((world.intent(1).await.stage, world.moved()), (Stage::Settling, 1));
    assert_eq!(world.settle(1, 1).await.0, 503, "somebody may be at it");
    assert_eq!(reason(&world.verify(1, 2).await), "ledger_payment_in_use");
    world.lapse().await;
    assert_eq!(world.claims.sweep(10).await.unwrap(), 1);
    assert_eq!((world.intent(1).await.stage, world.moved()), (Stage::Settled, 1));
    assert_eq!(world.settle(1, 1).await.1["success"], true);
}

async fn an_envoy_that_dies_while_it_delivers(database: Database) {
    let world = world(&database, &[]).await;
    assert!(valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.1["success"], true);
    // Its client comes again, to another Envoy: while it may still be delivered, and after that.
    assert_eq!(reason(&world.verify(1, 2).await), "ledger_payment_in_use");
    world.lapse().await;
    assert!(valid(&world.verify(1, 3).await));
    assert_eq!(world.settle(1, 3).await.1["success"], true);
    assert_eq!((world.moved(), world.settle_calls()), (1, 1));
}

async fn what_was_paid_for_is_had_after_the_payment_has_run_out(database: Database) {
    let world = world(&database, &[]).await;
    let late = async |n: u8, request: u8| {
        let holder = Holder {
            late: true,
            ..holder(n, request)
        };
        let answer = world.claims.settle(0, &holder, body(n, "exact", "10000")).await.unwrap();
        let said: Value = serde_json::from_slice(&answer.body).unwrap();
        (said["success"] == true, said["errorReason"].as_str().unwrap_or_default().to_owned())
    };
    const EXPIRED: &str = "invalid_exact_evm_payload_authorization_valid_before";
    let refused = |reason: &str| (false, reason.to_owned());
    // Nobody has heard of it, and nothing is held by asking.
    assert_eq!(late(1, 1).await, refused(EXPIRED));
    assert!(database.store.intent(&hex(1)).await.unwrap().is_none());
    // It is with a request that may yet settle it, and then with none.
    assert!(valid(&world.verify(1, 2).await));
    assert_eq!(late(1, 3).await, refused("ledger_payment_in_use"));
    world.lapse().await;
    assert_eq!(late(1, 3).await, refused(EXPIRED));
    assert_eq!((world.moved(), world.settle_calls()), (0, 0));
    // It was paid, and its Envoy has died: one of those who come has it.
    assert!(valid(&world.verify(2, 4).await));
    assert_eq!(world.settle(2, 4).await.1["success"], true);
    assert_eq!(late(2, 5).await, refused("ledger_payment_in_use"));
    world.lapse().await;
    assert_eq!(late(2, 5).await, (true, String::new()));
    assert_eq!(late(2, 6).await, refused("ledger_payment_in_use"));
    assert_eq!(database.store.deliver_intent(&hex(5)).await.ok(), Some(true));
    assert_eq!(late(2, 6).await, refused("nonce_already_used"));
    assert_eq!((world.moved(), world.settle_calls()), (1, 1));
}

async fn an_envoy_that_dies_before_it_settles(database: Database) {
    let world = world(&database, &[]).await;
    assert!(valid(&world.verify(1, 1).await));
    world.lapse().await;
    assert_eq!(world.claims.sweep(10).await.unwrap(), 0);
    assert_eq!((world.intent(1).await.stage, world.moved()), (Stage::Released, 0));
    world.holds_no_payload().await;
    assert!(valid(&world.verify(1, 2).await));
    assert_eq!(world.settle(1, 2).await.1["success"], true);
}

async fn what_was_delivered_of_a_metered_answer_is_settled(database: Database) {
    let world = world(&database, &[]).await;
    let metered = |amount: &str| body(1, "upto", amount);
    let verdict = world.claims.verify(0, &holder(1, 1), metered("10000")).await.unwrap();
    assert!(valid(&serde_json::from_slice(&verdict.body).unwrap()));
    for used in ["0", "120", "4321"] {
        assert!(database.store.report_intent(&hex(1), used, 5).await.unwrap());
    }
    // Nobody has it in between: it is due.
    let verdict = world.claims.verify(0, &holder(1, 2), metered("10000")).await.unwrap();
    assert_eq!(reason(&serde_json::from_slice(&verdict.body).unwrap()), "ledger_payment_in_use");
    assert_eq!(world.claims.sweep(10).await.unwrap(), 1);
    let settled = world.intent(1).await;
    assert_eq!((settled.stage, &*settled.amount, settled.delivered), (Stage::Settled, "4321", true));
    assert_eq!(*world.facilitator.amounts.lock().unwrap(), ["4321"]);
    let verdict = world.claims.verify(0, &holder(1, 3), metered("10000")).await.unwrap();
    assert_eq!(reason(&serde_json::from_slice(&verdict.body).unwrap()), "nonce_already_used");
    world.holds_no_payload().await;
}

async fn nothing_is_settled_without_a_claim(database: Database) {
    let world = world(&database, &[]).await;
    // Where the pre-check is enough, /settle is the first that is heard of it.
    let (one, two) = (world.claims.clone(), claims(&database.store, &world.url));
    let tasks = [(one, 1u8), (two, 2)].map(|(ledger, request)| {
        tokio::spawn(async move {
            let answer = ledger.settle(0, &holder(1, request), body(1, "exact", "10000")).await.unwrap();
            serde_json::from_slice::<Value>(&answer.body).unwrap()["success"] == true
        })
    });
    let mut settled = 0;
    for task in tasks {
        settled += u32::from(task.await.unwrap());
    }
    assert_eq!((settled, world.settle_calls()), (1, 1));
}

async fn the_amount_of_a_settlement_that_was_sent_stays(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    let mut holder = holder(1, 1);
    holder.delivered = true;
    let answer = world.claims.settle(0, &holder, body(1, "upto", "500")).await.unwrap();
    assert_eq!(answer.status, 500);
    assert!(world.intent(1).await.delivered);
    let answer = world.claims.settle(0, &holder, body(1, "upto", "9000")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(*world.facilitator.amounts.lock().unwrap(), ["500", "500"]);
    world.lapse().await;
    assert_eq!(reason(&world.verify(1, 2).await), "nonce_already_used");
}

async fn another_payment_of_the_nonce_has_nothing_of_the_first(database: Database) {
    let world = world(&database, &[]).await;
    assert!(valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.1["success"], true);
    world.lapse().await;
    let mut other: Value = serde_json::from_slice(&body(1, "exact", "10000")).unwrap();
    other["paymentPayload"]["payload"]["signature"] = json!("0xmade-up");
    let other = other.to_string().into_bytes();
    let verdict = world.claims.verify(0, &holder(1, 2), other.clone()).await.unwrap();
    assert_eq!(reason(&serde_json::from_slice(&verdict.body).unwrap()), "nonce_already_used");
    let outcome = world.claims.settle(0, &holder(1, 2), other).await.unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&outcome.body).unwrap()["errorReason"],
        "nonce_already_used"
    );
    // It is still the first one's.
    assert!(valid(&world.verify(1, 3).await));
}

async fn nobody_is_told_to_pay_again_while_it_may_be_paid(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    // More than is taken for settled without proof.
    let dear = || body(1, "exact", "5000000");
    assert_eq!(world.claims.settle(0, &holder(1, 1), dear()).await.unwrap().status, 500);
    database.store.leave_intent(&hex(1)).await.unwrap();
    let again = world.claims.settle(0, &holder(1, 2), dear()).await.unwrap();
    assert_eq!((again.status, world.intent(1).await.stage), (503, Stage::Unknown));
    assert_eq!((world.moved(), world.settle_calls()), (1, 2));
}

async fn what_was_delivered_stays_due(database: Database) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ledger = claims(&database.store, &nowhere);
    let mut delivered = holder(1, 1);
    delivered.delivered = true;
    let answer = ledger.settle(0, &delivered, body(1, "upto", "500")).await.unwrap();
    let due = database.store.intent(&hex(1)).await.unwrap().unwrap();
    assert_eq!(
        (answer.status, due.stage, due.delivered, &*due.amount),
        (503, Stage::Unknown, true, "500")
    );
    database.store.lapse_intents(i64::MAX).await.unwrap();
    assert_eq!(database.store.intent(&hex(1)).await.unwrap().unwrap().stage, Stage::Unknown);
    // A refusal of what was delivered frees nothing either.
    let world = world(&database, &[Script::Refuse]).await;
    let mut delivered = holder(2, 2);
    delivered.delivered = true;
    assert_eq!(
        world.claims.settle(0, &delivered, body(2, "upto", "500")).await.unwrap().status,
        200
    );
    assert_eq!(world.intent(2).await.stage, Stage::Failed);
    assert_eq!(reason(&world.verify(2, 3).await), "nonce_already_used");
}

async fn a_request_that_left_while_it_was_settled_holds_nothing(database: Database) {
    let world = world(&database, &[Script::Wait]).await;
    assert!(valid(&world.verify(1, 1).await));
    let settling = tokio::spawn({
        let claims = world.claims.clone();
        async move { claims.settle(0, &holder(1, 1), body(1, "exact", "10000")).await }
    });
    world.facilitator.arrived.notified().await;
    assert_eq!(database.store.leave_intent(&hex(1)).await.ok(), Some(true));
    world.facilitator.go.notify_one();
    settling.await.unwrap().unwrap();
    assert_eq!(world.intent(1).await.stage, Stage::Settled);
    assert!(valid(&world.verify(1, 2).await));
    assert_eq!(world.settle(1, 2).await.1["success"], true);
    assert_eq!(world.settle_calls(), 1);
}

async fn a_request_that_has_ended_holds_nothing_whatever_comes_late(database: Database) {
    let world = world(&database, &[Script::Wait]).await;
    let end = async |request: u8| database.store.end_request(&hex(request), 1).await.unwrap();
    // Its end comes before what it has asked.
    assert!(!end(1).await && !valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.1["success"], false);
    assert!(valid(&world.verify(1, 2).await));
    assert!(end(2).await);
    // While the facilitator is asked, and once more after that.
    *world.facilitator.slow.lock().unwrap() = true;
    let asking = tokio::spawn({
        let claims = world.claims.clone();
        async move { claims.verify(0, &holder(1, 3), body(1, "exact", "10000")).await }
    });
    world.facilitator.arrived.notified().await;
    assert!(end(3).await);
    *world.facilitator.slow.lock().unwrap() = false;
    world.facilitator.go.notify_one();
    asking.await.unwrap().unwrap();
    assert!(!valid(&world.verify(1, 3).await));
    assert!(valid(&world.verify(1, 4).await));
    // While what another one has left is found out for it.
    database
        .run("UPDATE intents SET state = 'unknown', attempts = 1, lease_until = 1")
        .await
        .unwrap();
    let asking = tokio::spawn({
        let claims = world.claims.clone();
        async move { claims.verify(0, &holder(1, 5), body(1, "exact", "10000")).await }
    });
    world.facilitator.arrived.notified().await;
    assert!(end(5).await);
    world.facilitator.go.notify_one();
    asking.await.unwrap().unwrap();
    assert_eq!(world.intent(1).await.stage, Stage::Settled);
    assert!(valid(&world.verify(1, 6).await));
    assert_eq!(
        (world.settle(1, 6).await.1["success"].as_bool(), world.settle_calls()),
        (Some(true), 1)
    );
    let hour = 3_600_000;
    assert_eq!(database.store.forget_ended(hour).await.unwrap(), 0);
    assert_eq!(database.store.forget_ended(hour + 2).await.unwrap(), 4);
}

async fn of_an_end_and_a_call_at_once_nothing_is_held(database: Database) {
    let world = world(&database, &[]).await;
    for request in 1..=30u8 {
        let asking = tokio::spawn({
            let claims = world.claims.clone();
            async move { claims.verify(0, &holder(1, request), body(1, "exact", "10000")).await }
        });
        database.store.end_request(&hex(request), 1).await.unwrap();
        asking.await.unwrap().unwrap();
        assert_eq!(world.intent(1).await.stage, Stage::Released, "{request}");
    }
}

async fn of_an_end_and_a_settlement_at_once_the_next_one_has_it(database: Database) {
    let world = world(&database, &[]).await;
    for n in 1..=20u8 {
        assert!(valid(&world.verify(n, n).await));
        let settling = tokio::spawn({
            let claims = world.claims.clone();
            async move { claims.settle(0, &holder(n, n), body(n, "exact", "10000")).await }
        });
        // Its end is heard sooner or later.
        tokio::time::sleep(std::time::Duration::from_micros(u64::from(n) * 300)).await;
        database.store.end_request(&hex(n), 1).await.unwrap();
        settling.await.unwrap().unwrap();
        assert!(valid(&world.verify(n, 100 + n).await), "{n}: {:?}", world.intent(n).await);
        assert_eq!(world.settle(n, 100 + n).await.1["success"], true);
    }
    assert_eq!((world.moved(), world.settle_calls()), (20, 20));
}

async fn what_has_ended_is_forgotten_in_time(database: Database) {
    let world = world(&database, &[]).await;
    for n in [1, 2] {
        assert!(valid(&world.verify(n, n).await));
    }
    assert_eq!(world.settle(1, 1).await.1["success"], true);
    let runs_out = 1_900_000_000_000;
    assert_eq!(database.store.forget(runs_out).await.unwrap(), 0);
    assert_eq!(database.store.forget(runs_out + 1).await.unwrap(), 1);
    assert_eq!(world.intent(2).await.stage, Stage::Held);
    assert_eq!(database.store.intent(&hex(1)).await.unwrap(), None);
}

/// When the payments here have run out, in Unix milliseconds.
const RUN_OUT: i64 = 1_900_000_000_000;

async fn what_no_facilitator_tells_the_end_of_is_ended_by_hand(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    let paid = format!("0x{}", "5a".repeat(32));
    let resolve = |found| {
        let store = database.store.clone();
        async move { resolve(&store, &hex(1), found, 1_790_000_000_000).await }
    };
    let of = |error: Result<&'static str, ResolveError>| error.unwrap_err().to_string();
    assert!(of(resolve(Found::Paid(&paid)).await).starts_with("there is no claim"));
    assert!(valid(&world.verify(1, 1).await));
    assert!(of(resolve(Found::Paid(&paid)).await).contains("is held: only"), "nothing was sent");
    assert_eq!(world.settle(1, 1).await.0, 500);
    database.run("UPDATE intents SET next_attempt_at = 9000000000000000").await.unwrap();
    database.store.leave_intent(&hex(1)).await.unwrap();
    assert_eq!(reason(&world.verify(1, 2).await), "ledger_payment_pending");
    // Mistakes of whoever says it change nothing.
    let (no_digits, zeros, signature) = (format!("0x{}", "zz".repeat(32)), format!("0x{}", "00".repeat(32)), "5".repeat(88));
    for wrong in ["", "0x12", "yes", &no_digits, &zeros, &signature, paid.strip_prefix("0x").unwrap()] {
        assert!(of(resolve(Found::Paid(wrong)).await).contains("is no transaction"), "{wrong:?}");
    }
    let early = resolve(Found::Failed("not on the chain")).await;
    assert!(matches!(early, Err(ResolveError::Early { until: 1_900_000_000, .. })), "{early:?}");
    database
        .run("UPDATE intents SET state = 'settling', lease_until = 1790000001000")
        .await
        .unwrap();
    assert!(of(resolve(Found::Paid(&paid)).await).contains("is being settled just now: try again after 1790000001"));
    assert_eq!(world.intent(1).await.stage, Stage::Settling);
    database.run("UPDATE intents SET lease_until = 1790000000000").await.unwrap();
    let said = resolve(Found::Paid(&paid)).await.unwrap();
    assert!(said.contains("is served, and not settled again"), "{said}");
    let settled = world.intent(1).await;
    assert_eq!(
        (settled.stage, &settled.transaction, &*settled.payer),
        (Stage::Settled, &paid, "0xpayer")
    );
    // Its client has what it paid for, and its receipt names what somebody has found.
    assert!(valid(&world.verify(1, 3).await));
    let (_, receipt) = world.settle(1, 3).await;
    assert_eq!((&receipt["success"], receipt["transaction"].as_str()), (&json!(true), Some(&*paid)));
    assert_eq!((world.moved(), world.settle_calls()), (1, 1));
    assert!(of(resolve(Found::Paid(&paid)).await).contains("is settled: only"));
    world.lapse().await;
    assert_eq!(world.claims.sweep(10).await.unwrap(), 0, "nothing is sent again");
    // A transaction pays one of them.
    world.facilitator.script.lock().unwrap().extend([Script::Fail]);
    assert!(valid(&world.verify(2, 4).await));
    assert_eq!(world.settle(2, 4).await.0, 500);
    let (other, upper) = (hex(2), format!("0x{}", "5A".repeat(32)));
    let again = x402_ledger::resolve::resolve(&database.store, &other, Found::Paid(&upper), 1).await;
    assert_eq!(of(again), format!("transaction {upper} has settled {} already", hex(1)));
    database.run("DELETE FROM intents WHERE state = 'unknown'").await.unwrap();
    world.holds_no_payload().await;
}

async fn what_was_not_paid_buys_nothing_once_it_has_run_out(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    assert!(valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.0, 500);
    let failed = Found::Failed("not on the chain, and run out");
    assert!(resolve(&database.store, &hex(1), failed, RUN_OUT - 1).await.is_err());
    let said = resolve(&database.store, &hex(1), failed, RUN_OUT).await.unwrap();
    assert_eq!(said, "failed: the payment buys nothing");
    let intent = world.intent(1).await;
    assert_eq!((intent.stage, &*intent.error), (Stage::Failed, "not on the chain, and run out"));
    assert_eq!(reason(&world.verify(1, 2).await), "nonce_already_used");
    world.lapse().await;
    assert_eq!((world.claims.sweep(10).await.unwrap(), world.settle_calls()), (0, 1));
    world.holds_no_payload().await;
}

async fn what_nobody_can_settle_any_more_is_ended_by_hand(database: Database) {
    let world = world(&database, &[Script::Fail]).await;
    assert!(valid(&world.verify(1, 1).await));
    assert_eq!(world.settle(1, 1).await.0, 500);
    // Its ledger dies in its next attempt, and the facilitator is another's name by then.
    database
        .run("UPDATE intents SET state = 'settling', lease_until = 1, facilitator = 'gone'")
        .await
        .unwrap();
    assert_eq!(world.claims.sweep(10).await.unwrap(), 1);
    assert_eq!(world.intent(1).await.stage, Stage::Unknown);
    assert_eq!(world.claims.sweep(10).await.unwrap(), 0, "nothing can be done for an hour");
    let paid = format!("0x{}", "5a".repeat(32));
    assert!(resolve(&database.store, &hex(1), Found::Paid(&paid), 1).await.is_ok());

    // Delivered, and never settled: once it has run out it is lost.
    assert!(valid(&world.verify(2, 2).await));
    database
        .run("UPDATE intents SET facilitator = 'gone', used = '5000', lease_until = 1 WHERE state = 'held'")
        .await
        .unwrap();
    assert_eq!(world.claims.sweep(10).await.unwrap(), 1);
    let failed = Found::Failed("its facilitator is gone");
    assert!(resolve(&database.store, &hex(2), failed, RUN_OUT - 1).await.is_err());
    assert!(
        resolve(&database.store, &hex(2), Found::Paid(&paid.replace('5', "6")), RUN_OUT)
            .await
            .is_err()
    );
    assert!(resolve(&database.store, &hex(2), failed, RUN_OUT + 1_000).await.is_ok());
    assert_eq!(world.intent(2).await.stage, Stage::Failed);
    world.holds_no_payload().await;

    // What was ended late is kept as long as anything else that has ended.
    let forgotten = database.store.forget(RUN_OUT + 1).await.unwrap();
    assert_eq!(forgotten, 1, "the first one, which was ended long before");
    assert_eq!(database.store.forget(RUN_OUT + 2_000).await.unwrap(), 1);
}

/// An attempt that has taken longer than its lease tells nobody of an end that is another one's.
async fn an_attempt_that_is_too_late_tells_nothing(database: Database) {
    let world = world(&database, &[Script::Wait]).await;
    assert!(valid(&world.verify(1, 1).await));
    let settling = tokio::spawn({
        let claims = world.claims.clone();
        async move { claims.settle(0, &holder(1, 1), body(1, "exact", "10000")).await.unwrap() }
    });
    world.facilitator.arrived.notified().await;
    world.lapse().await;
    let paid = format!("0x{}", "5a".repeat(32));
    assert!(resolve(&database.store, &hex(1), Found::Paid(&paid), 1).await.is_ok());
    world.facilitator.go.notify_one();
    assert_eq!(settling.await.unwrap().status, 503);
    assert_eq!(world.intent(1).await.transaction, paid);

    // Unless nobody knows of one: then it is written down, for whoever has it by now.
    world.facilitator.script.lock().unwrap().extend([Script::Wait]);
    assert!(valid(&world.verify(2, 2).await));
    let settling = tokio::spawn({
        let claims = world.claims.clone();
        async move { claims.settle(0, &holder(2, 2), body(2, "exact", "10000")).await.unwrap() }
    });
    world.facilitator.arrived.notified().await;
    database
        .run("UPDATE intents SET state = 'unknown', attempts = attempts + 1 WHERE state = 'settling'")
        .await
        .unwrap();
    world.facilitator.go.notify_one();
    assert_eq!(settling.await.unwrap().status, 503);
    let settled = world.intent(2).await;
    assert_eq!(
        (settled.stage, settled.transaction),
        (Stage::Settled, format!("0x{}", "02".repeat(32)))
    );
    world.holds_no_payload().await;
}

/// What tells whether a write whose acknowledgement was lost was done.
async fn an_end_is_known_by_what_is_written(database: Database) {
    let world = world(&database, &[Script::Refuse, Script::Fail]).await;
    for (n, expected) in [
        (1, Ended::Refused("insufficient_funds")),
        (2, Ended::Unknown("status 500 without an outcome", 0)),
    ] {
        assert!(valid(&world.verify(n, n).await));
        world.settle(n, n).await;
        let intent = world.intent(n).await;
        assert!(expected.is_of(&intent, 1), "{intent:?}");
        assert!(!expected.is_of(&intent, 2) && !Ended::NotSent.is_of(&intent, 1) && !Ended::UsedUp("insufficient_funds").is_of(&intent, 1));
    }
    assert!(valid(&world.verify(3, 3).await));
    let (_, answer) = world.settle(3, 3).await;
    let intent = world.intent(3).await;
    let answer = answer.to_string();
    let settled = |answer| Ended::Settled {
        answer,
        transaction: "",
        payer: "",
    };
    assert!(
        settled(&intent.answer).is_of(&intent, 1) && !settled("another").is_of(&intent, 1),
        "{answer}"
    );
}
