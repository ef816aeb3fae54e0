//! The books on both databases: nobody spends what is not there, nothing is counted twice, and the journal adds up.
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

use std::collections::BTreeMap;

use databases::Database;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sha2::{Digest as _, Sha256};
use x402_ledger::payments::books::{Begin, Begun, Books as _, NewTopup, Source, State, TopupReceipt};
use x402_ledger::store::{Adjusted, Captured, Filter, Kind, Limits, NewReservation, Reserved, Store, StoreError};

const NOW: i64 = 1_800_000_000_000;
const LATER: i64 = NOW + 60_000;

on_both!(
    sixty_four_at_once_on_a_balance_for_ten,
    what_is_not_used_is_given_back_once,
    a_capture_is_at_most_what_is_held,
    a_release_that_comes_first_refuses_its_reservation,
    the_same_reservation_is_made_once,
    what_nothing_is_heard_of_lapses_and_is_charged_late_once,
    a_late_charge_takes_no_more_than_there_is,
    what_was_served_on_trust_is_charged_once,
    an_account_has_its_limits,
    the_journal_cannot_be_changed,
    balances_cannot_go_below_nothing,
    adjustments_are_made_once,
    keys_are_known_by_their_hash_until_they_are_revoked,
    a_top_up_goes_its_way_once,
    a_claim_belongs_to_one_top_up,
    what_was_never_paid_expires,
    everybody_who_settles_at_once_credits_once,
    the_journal_is_read_by_pages,
    a_database_is_opened_again_as_it_was,
    the_check_finds_what_was_changed_by_hand,
    what_is_old_is_forgotten_and_the_books_stay,
    as_the_model_says,
);

async fn reserve(store: &Store, tenant: &str, id: &str, amount: i64) -> Reserved {
    reserve_within(store, tenant, id, amount, None, NOW).await
}

async fn reserve_within(store: &Store, tenant: &str, id: &str, amount: i64, limits: Option<Limits>, now: i64) -> Reserved {
    let new = NewReservation {
        id,
        tenant,
        amount,
        route: "chat",
        limits,
        expires_at: LATER,
    };
    store.reserve(&new, now).await.unwrap()
}

async fn sixty_four_at_once_on_a_balance_for_ten(database: Database) {
    let tenant = database.tenant(10_000).await;
    let tasks: Vec<_> = (0..64)
        .map(|index| {
            let (store, tenant) = (database.store.clone(), tenant.clone());
            tokio::spawn(async move { reserve(&store, &tenant, &format!("r{index}"), 1_000).await })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        match task.await.unwrap() {
            Reserved::Held { .. } => held += 1,
            Reserved::Insufficient { balance } => assert!(balance < 1_000, "{balance}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((held, database.balances(&tenant).await), (10, (0, 10_000)));
    database.adds_up().await;
}

async fn what_is_not_used_is_given_back_once(database: Database) {
    let tenant = database.tenant(10_000).await;
    assert_eq!(
        reserve(&database.store, &tenant, "r", 4_000).await,
        Reserved::Held { balance: 6_000 }
    );
    for _ in 0..3 {
        assert_eq!(database.store.capture("r", 1_500, NOW).await.unwrap(), Captured::Charged(1_500));
        assert_eq!(database.balances(&tenant).await, (8_500, 0));
    }
    assert_eq!(database.store.capture("r", 0, NOW).await.unwrap(), Captured::Otherwise);
    assert_eq!(database.store.capture("r", 1_000, NOW).await.unwrap(), Captured::Otherwise);
    reserve(&database.store, &tenant, "s", 4_000).await;
    for _ in 0..2 {
        assert_eq!(database.store.capture("s", 0, NOW).await.unwrap(), Captured::Charged(0));
    }
    assert_eq!(database.store.capture("s", 1, NOW).await.unwrap(), Captured::Otherwise);
    assert_eq!(database.balances(&tenant).await, (8_500, 0));
    database.adds_up().await;
}

async fn a_capture_is_at_most_what_is_held(database: Database) {
    let tenant = database.tenant(10_000).await;
    reserve(&database.store, &tenant, "r", 4_000).await;
    for _ in 0..2 {
        assert_eq!(database.store.capture("r", 9_999, NOW).await.unwrap(), Captured::Charged(4_000));
    }
    assert_eq!(database.balances(&tenant).await, (6_000, 0));
    database.adds_up().await;
}

async fn a_release_that_comes_first_refuses_its_reservation(database: Database) {
    let tenant = database.tenant(10_000).await;
    for _ in 0..2 {
        assert_eq!(database.store.capture("r", 0, NOW).await.unwrap(), Captured::Charged(0));
    }
    assert_eq!(reserve(&database.store, &tenant, "r", 1_000).await, Reserved::TooLate);
    assert_eq!(database.store.capture("r", 5, NOW).await.unwrap(), Captured::Unknown);
    assert_eq!(database.store.capture("never", 5, NOW).await.unwrap(), Captured::Unknown);
    assert_eq!(database.balances(&tenant).await, (10_000, 0));
    database.adds_up().await;
}

async fn the_same_reservation_is_made_once(database: Database) {
    let (tenant, other) = (database.tenant(10_000).await, database.tenant(10_000).await);
    for _ in 0..2 {
        assert_eq!(
            reserve(&database.store, &tenant, "r", 4_000).await,
            Reserved::Held { balance: 6_000 }
        );
    }
    assert_eq!(reserve(&database.store, &other, "r", 4_000).await, Reserved::TooLate);
    assert_eq!(reserve(&database.store, &tenant, "r", 4_001).await, Reserved::TooLate);
    database.store.capture("r", 4_000, NOW).await.unwrap();
    assert_eq!(reserve(&database.store, &tenant, "r", 4_000).await, Reserved::TooLate);
    // Also where there is not enough left for another one.
    reserve(&database.store, &tenant, "s", 6_000).await;
    assert_eq!(reserve(&database.store, &tenant, "s", 6_000).await, Reserved::Held { balance: 0 });
    assert_eq!(database.balances(&tenant).await, (0, 6_000));
    database.adds_up().await;
}

async fn what_nothing_is_heard_of_lapses_and_is_charged_late_once(database: Database) {
    let tenant = database.tenant(10_000).await;
    reserve(&database.store, &tenant, "r", 4_000).await;
    reserve(&database.store, &tenant, "s", 4_000).await;
    assert_eq!(database.store.lapse(LATER - 1).await.unwrap(), 0);
    assert_eq!(
        (
            database.store.lapse(LATER).await.unwrap(),
            database.store.lapse(LATER).await.unwrap()
        ),
        (2, 0)
    );
    assert_eq!(database.balances(&tenant).await, (10_000, 0));
    for _ in 0..2 {
        assert_eq!(database.store.capture("r", 3_000, LATER).await.unwrap(), Captured::Charged(3_000));
        assert_eq!(database.store.capture("s", 0, LATER).await.unwrap(), Captured::Charged(0));
    }
    assert_eq!(database.balances(&tenant).await, (7_000, 0));
    database.adds_up().await;
}

async fn a_late_charge_takes_no_more_than_there_is(database: Database) {
    let tenant = database.tenant(4_000).await;
    reserve(&database.store, &tenant, "r", 4_000).await;
    database.store.lapse(LATER).await.unwrap();
    reserve_within(&database.store, &tenant, "s", 3_000, None, LATER).await;
    for _ in 0..2 {
        assert_eq!(database.store.capture("r", 4_000, LATER).await.unwrap(), Captured::Charged(1_000));
    }
    assert_eq!(database.balances(&tenant).await, (0, 3_000));
    database.adds_up().await;
}

async fn what_was_served_on_trust_is_charged_once(database: Database) {
    let tenant = database.tenant(4_000).await;
    for _ in 0..3 {
        assert_eq!(
            database.store.charge("r", &tenant, 3_000, NOW).await.unwrap(),
            Captured::Charged(3_000)
        );
    }
    assert_eq!(reserve(&database.store, &tenant, "r", 3_000).await, Reserved::TooLate);
    // No more than there is.
    for _ in 0..2 {
        assert_eq!(
            database.store.charge("s", &tenant, 3_000, NOW).await.unwrap(),
            Captured::Charged(1_000)
        );
    }
    assert_eq!(database.balances(&tenant).await, (0, 0));
    // What was given up is not charged.
    database.store.capture("t", 0, NOW).await.unwrap();
    assert_eq!(database.store.charge("t", &tenant, 5, NOW).await.unwrap(), Captured::Unknown);
    // What was held after all is.
    let other = database.tenant(4_000).await;
    reserve(&database.store, &other, "u", 3_000).await;
    assert_eq!(
        database.store.charge("u", &other, 2_000, NOW).await.unwrap(),
        Captured::Charged(2_000)
    );
    assert_eq!(database.balances(&other).await, (2_000, 0));
    database.adds_up().await;
}

async fn an_account_has_its_limits(database: Database) {
    let (tenant, other) = (database.tenant(100_000).await, database.tenant(100_000).await);
    let limits = Some(Limits {
        requests: Some(3),
        window_ms: 1_000,
        spend: Some(10_000),
    });
    let ask = async |tenant: &str, id: &str, amount, now| reserve_within(&database.store, tenant, id, amount, limits, now).await;
    assert!(matches!(ask(&tenant, "a", 6_000, NOW).await, Reserved::Held { .. }));
    assert_eq!(ask(&tenant, "b", 4_001, NOW + 400).await, Reserved::Limited { again_in_ms: 600 });
    assert!(matches!(ask(&other, "c", 10_000, NOW + 400).await, Reserved::Held { .. }));
    // What was not spent can be; the request stays counted.
    database.store.capture("a", 1_000, NOW).await.unwrap();
    assert!(matches!(ask(&tenant, "d", 9_000, NOW + 500).await, Reserved::Held { .. }));
    database.store.capture("d", 0, NOW).await.unwrap();
    assert!(matches!(ask(&tenant, "e", 1, NOW + 999).await, Reserved::Held { .. }));
    assert_eq!(ask(&tenant, "f", 1, NOW + 999).await, Reserved::Limited { again_in_ms: 1 });
    assert!(matches!(ask(&tenant, "g", 10_000, NOW + 1_000).await, Reserved::Held { .. }));
    // Nothing is taken from the next window for what was counted in the last.
    database.store.capture("e", 0, NOW).await.unwrap();
    assert_eq!(ask(&tenant, "h", 1, NOW + 1_000).await, Reserved::Limited { again_in_ms: 1_000 });
    database.adds_up().await;
}

async fn the_journal_cannot_be_changed(database: Database) {
    let tenant = database.tenant(10_000).await;
    for sql in [
        "UPDATE credit_transactions SET amount = 1",
        "DELETE FROM credit_transactions",
        "UPDATE credit_transactions SET balance_after = balance_after",
    ] {
        let error = database.run(sql).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{sql}: {error}");
    }
    // SQLite has no such statement.
    database.run("TRUNCATE credit_transactions").await.unwrap_err();
    assert_eq!(database.balances(&tenant).await, (10_000, 0));
    database.adds_up().await;
}

async fn balances_cannot_go_below_nothing(database: Database) {
    database.tenant(10_000).await;
    for sql in ["UPDATE tenants SET available = -1", "UPDATE tenants SET reserved = -1"] {
        database.run(sql).await.unwrap_err();
    }
    database.adds_up().await;
}

async fn adjustments_are_made_once(database: Database) {
    let (tenant, other) = (database.tenant(0).await, database.tenant(0).await);
    let adjust = async |tenant: &str, amount, reference: &str| database.store.adjust(tenant, amount, reference, "why", NOW).await.unwrap();
    for _ in 0..2 {
        assert_eq!(adjust(&tenant, 5_000, "a").await, Adjusted::Done { balance: 5_000 });
    }
    assert_eq!(adjust(&tenant, 5_001, "a").await, Adjusted::OtherReference);
    assert_eq!(adjust(&other, 5_000, "a").await, Adjusted::OtherReference);
    assert_eq!(adjust(&tenant, -5_001, "b").await, Adjusted::TooLittle { balance: 5_000 });
    for _ in 0..2 {
        assert_eq!(adjust(&tenant, -5_000, "b").await, Adjusted::Done { balance: 0 });
    }
    assert_eq!(adjust(&tenant, i64::MAX, "c").await, Adjusted::Done { balance: i64::MAX });
    assert_eq!(adjust(&tenant, 1, "d").await, Adjusted::TooLittle { balance: i64::MAX });
    assert_eq!(adjust("ten_none", 1, "e").await, Adjusted::NoTenant);
    database.adds_up().await;
}

async fn keys_are_known_by_their_hash_until_they_are_revoked(database: Database) {
    let tenant = database.tenant(0).await;
    let made = database.store.create_key(&tenant, "ci", NOW).await.unwrap().unwrap();
    assert!(made.key.starts_with("x402_") && made.key.len() == 48, "{}", made.key.len());
    let hash = hex::encode(Sha256::digest(&made.key));
    assert_eq!(database.store.tenant_of(&hash).await.unwrap(), Some(tenant.clone()));
    assert_eq!(database.store.tenant_of(&made.key).await.unwrap(), None);
    assert_eq!(database.store.create_key("ten_none", "", NOW).await.unwrap(), None);
    let keys = database.store.keys(&tenant).await.unwrap();
    assert_eq!((keys.len(), &*keys[0].id, keys[0].revoked_at), (1, &*made.id, None));
    assert_eq!(database.store.revoke_key(&made.id, NOW).await.ok(), Some(true));
    assert_eq!(database.store.revoke_key(&made.id, NOW).await.ok(), Some(false));
    assert_eq!(database.store.tenant_of(&hash).await.unwrap(), None);
    assert_eq!(database.store.keys(&tenant).await.unwrap()[0].revoked_at, Some(NOW));
}

fn new_topup(id: &str, tenant: &str) -> NewTopup {
    NewTopup {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        amount: 5_000_000,
        source: Source::Fund,
        resource: "https://api.example.com/v1/billing/x402/fund".to_owned(),
        expires_at: LATER,
    }
}

fn begin(claim: &str) -> Begin {
    Begin {
        claim: claim.to_owned(),
        payload: "sealed".to_owned(),
        requirements: "{}".to_owned(),
        network: "eip155:84532".to_owned(),
        payer: "0xpayer".to_owned(),
        lease_until: LATER,
        expires_at: LATER,
    }
}

fn receipt(transaction: &str) -> TopupReceipt {
    TopupReceipt {
        transaction: transaction.to_owned(),
        network: "eip155:84532".to_owned(),
        payer: String::new(),
    }
}

async fn a_top_up_goes_its_way_once(database: Database) {
    let (tenant, store) = (database.tenant(0).await, &database.store);
    store.create_topup(&new_topup("pi_1", &tenant), NOW).await.unwrap();
    assert!(!store.resume_settlement("pi_1", LATER, NOW).await.unwrap());
    assert_eq!(store.begin_settlement("pi_1", &begin("c1"), NOW).await.unwrap(), Begun::Yes);
    assert_eq!(store.begin_settlement("pi_1", &begin("c2"), NOW).await.unwrap(), Begun::Not);
    assert!(!store.resume_settlement("pi_1", LATER, NOW).await.unwrap(), "its lease lasts");
    assert_eq!(store.due_topups(LATER - 1, 10).await.unwrap().len(), 0);
    assert_eq!(store.due_topups(LATER, 10).await.unwrap()[0].id, "pi_1");
    assert!(store.resume_settlement("pi_1", LATER + 5, LATER).await.unwrap());
    assert!(store.unknown_topup("pi_1", LATER + 9, LATER).await.unwrap());
    assert!(!store.unknown_topup("pi_1", LATER + 9, LATER).await.unwrap());
    assert_eq!(store.due_topups(LATER + 8, 10).await.unwrap().len(), 0);
    let unknown = &store.due_topups(LATER + 9, 10).await.unwrap()[0];
    assert_eq!(
        (unknown.state, unknown.payload.as_deref(), unknown.attempts, unknown.lease_until),
        (State::Unknown, Some("sealed"), 2, None)
    );
    assert!(store.settle_topup("pi_1", &receipt("0x1"), NOW).await.unwrap());
    assert!(!store.settle_topup("pi_1", &receipt("0x2"), NOW).await.unwrap());
    assert!(!store.fail_topup("pi_1", "x", false, NOW).await.unwrap());
    let settled = store.topup_by_claim("c1").await.unwrap().unwrap();
    assert_eq!(
        (
            settled.state,
            settled.payload,
            settled.transaction.as_deref(),
            settled.payer.as_deref()
        ),
        (State::Settled, None, Some("0x1"), Some("0xpayer"))
    );
    assert_eq!(settled.requirements.as_deref(), Some("{}"));
    assert_eq!(database.balances(&tenant).await, (5_000_000, 0));
    let row = &store.transactions(&Filter::default(), 9).await.unwrap()[0];
    assert_eq!(
        (row.kind, row.amount, row.balance_after, &*row.reference, &*row.payment),
        (Kind::X402Topup, 5_000_000, 5_000_000, "pi_1", "eip155:84532/0x1")
    );
    database.adds_up().await;
}

async fn a_claim_belongs_to_one_top_up(database: Database) {
    let (tenant, store) = (database.tenant(0).await, &database.store);
    for id in ["pi_1", "pi_2", "pi_3"] {
        store.create_topup(&new_topup(id, &tenant), NOW).await.unwrap();
    }
    let racing: Vec<_> = ["pi_1", "pi_2"]
        .map(|id| {
            let store = store.clone();
            tokio::spawn(async move { store.begin_settlement(id, &begin("c"), NOW).await.unwrap() })
        })
        .into();
    let mut begun = 0;
    for task in racing {
        begun += i32::from(task.await.unwrap() == Begun::Yes);
    }
    assert_eq!(begun, 1);
    let first = store.topup_by_claim("c").await.unwrap().unwrap().id;
    assert!(store.fail_topup(&first, "used up", true, NOW).await.unwrap());
    assert_eq!(
        store.begin_settlement("pi_3", &begin("c"), NOW).await.unwrap(),
        Begun::Not,
        "the claim is kept"
    );
    assert!(store.fail_topup(&first, "refused", false, NOW).await.unwrap());
    assert_eq!(
        store.begin_settlement("pi_3", &begin("c"), NOW).await.unwrap(),
        Begun::Yes,
        "the claim is free"
    );
    database.adds_up().await;
}

async fn what_was_never_paid_expires(database: Database) {
    let (tenant, store) = (database.tenant(0).await, &database.store);
    for id in ["pi_1", "pi_2"] {
        store.create_topup(&new_topup(id, &tenant), NOW).await.unwrap();
    }
    assert_eq!(store.begin_settlement("pi_1", &begin("c1"), NOW).await.unwrap(), Begun::Yes);
    assert_eq!(
        store.begin_settlement("pi_2", &begin("c2"), LATER).await.unwrap(),
        Begun::Not,
        "it has expired"
    );
    assert_eq!(store.expire_topups(LATER - 1).await.unwrap(), 0);
    assert_eq!(store.expire_topups(LATER).await.unwrap(), 1);
    let expired = store.topup("pi_2").await.unwrap().unwrap();
    assert_eq!((expired.state, expired.error.as_deref()), (State::Failed, Some("expired")));
    assert_eq!(store.topup("pi_1").await.unwrap().unwrap().state, State::Processing);
}

async fn everybody_who_settles_at_once_credits_once(database: Database) {
    let tenant = database.tenant(0).await;
    for round in 0..25 {
        let id = format!("pi_{round}");
        database.store.create_topup(&new_topup(&id, &tenant), NOW).await.unwrap();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (store, id) = (database.store.clone(), id.clone());
                tokio::spawn(async move { store.settle_topup(&id, &receipt("0x1"), NOW).await.unwrap() })
            })
            .collect();
        let mut credited = 0;
        for task in tasks {
            credited += i32::from(task.await.unwrap());
        }
        assert_eq!(credited, 1);
    }
    assert_eq!(database.balances(&tenant).await, (125_000_000, 0));
    database.adds_up().await;
}

async fn the_journal_is_read_by_pages(database: Database) {
    let (tenant, other) = (database.tenant(10_000).await, database.tenant(7).await);
    for id in ["a", "b", "c"] {
        reserve(&database.store, &tenant, id, 1_000).await;
        database.store.capture(id, 400, LATER).await.unwrap();
    }
    let of = Filter {
        tenant: Some(tenant.clone()),
        ..Filter::default()
    };
    let all = database.store.transactions(&of, 100).await.unwrap();
    assert_eq!(all.len(), 10);
    let mut paged = Vec::new();
    let mut filter = of.clone();
    loop {
        let page = database.store.transactions(&filter, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.seq);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(all.iter().map(|row| row.change()).sum::<i64>(), 8_800);
    let some = async |filter: Filter| database.store.transactions(&filter, 100).await.unwrap().len();
    assert_eq!(
        some(Filter {
            kind: Some(Kind::Usage),
            ..of.clone()
        })
        .await,
        3
    );
    assert_eq!(
        some(Filter {
            reference: Some("b".into()),
            ..of.clone()
        })
        .await,
        3
    );
    assert_eq!(
        some(Filter {
            since_ms: Some(LATER),
            ..of.clone()
        })
        .await,
        6
    );
    assert_eq!(some(Filter { until_ms: Some(NOW), ..of }).await, 1);
    assert_eq!(
        some(Filter {
            tenant: Some(other),
            ..Filter::default()
        })
        .await,
        1
    );
}

async fn a_database_is_opened_again_as_it_was(database: Database) {
    let tenant = database.tenant(10_000).await;
    let secret = database.store.secret().await.unwrap();
    let again = Store::open(&database.url, 2).await.unwrap();
    assert_eq!(again.secret().await.unwrap(), secret);
    assert_ne!(secret, [0; 16]);
    assert_eq!(again.tenant(&tenant).await.unwrap().unwrap().available, 10_000);
    // One that was made by a later version is not touched.
    database
        .run("UPDATE _sqlx_migrations SET version = 999 WHERE version = 1")
        .await
        .unwrap();
    assert!(matches!(Store::open(&database.url, 2).await.unwrap_err(), StoreError::Schema(_)));
}

async fn the_check_finds_what_was_changed_by_hand(database: Database) {
    let tenant = database.tenant(10_000).await;
    reserve(&database.store, &tenant, "r", 4_000).await;
    database.store.create_topup(&new_topup("pi_1", &tenant), NOW).await.unwrap();
    database.adds_up().await;
    for (change, back, expected) in [
        (
            "UPDATE tenants SET available = available + 1",
            "UPDATE tenants SET available = available - 1",
            "6001 available",
        ),
        (
            "UPDATE tenants SET reserved = reserved - 1",
            "UPDATE tenants SET reserved = reserved + 1",
            "3999 reserved",
        ),
        (
            "UPDATE reservations SET state = 'captured', captured = 5",
            "UPDATE reservations SET state = 'open', captured = 0",
            "charged with what it says: r",
        ),
        (
            "UPDATE topups SET state = 'settled'",
            "UPDATE topups SET state = 'created'",
            "credited once with its amount: pi_1",
        ),
        (
            "UPDATE topups SET state = 'failed', payload = 'x'",
            "UPDATE topups SET state = 'created', payload = ''",
            "is still there: pi_1",
        ),
        (
            "INSERT INTO intents (claim, holder, state, facilitator, lease_until, created_at, expires_at) VALUES ('c', 'pi_1', 'held', '', 1, 1, 1)",
            "DELETE FROM intents",
            "holds its payment: pi_1",
        ),
    ] {
        database.run(change).await.unwrap();
        let findings = database.store.check().await.unwrap().to_string();
        assert!(
            findings.contains(expected) && findings.contains("NOT in order"),
            "{change}: {findings}"
        );
        database.run(back).await.unwrap();
        database.adds_up().await;
    }
}

async fn what_is_old_is_forgotten_and_the_books_stay(database: Database) {
    let tenant = database.tenant(10_000).await;
    for (id, due) in [("a", 400), ("b", 0), ("c", 5)] {
        reserve(&database.store, &tenant, id, 1_000).await;
        database.store.capture(id, due, if id == "c" { LATER } else { NOW }).await.unwrap();
    }
    reserve(&database.store, &tenant, "open", 1_000).await;
    for id in ["pi_1", "pi_2"] {
        database.store.create_topup(&new_topup(id, &tenant), NOW).await.unwrap();
    }
    database.store.fail_topup("pi_1", "expired", false, NOW).await.unwrap();
    assert_eq!(database.store.forget(NOW).await.unwrap(), 0);
    assert_eq!(database.store.forget(NOW + 1).await.unwrap(), 2);
    assert_eq!(database.store.forget(LATER + 1).await.unwrap(), 2);
    let left = async |sql: &str| database.numbers(sql).await;
    assert_eq!(left("SELECT COUNT(*) FROM reservations").await, [1]);
    assert_eq!(left("SELECT COUNT(*) FROM topups").await, [1]);
    assert_eq!(left("SELECT COUNT(*) FROM credit_transactions WHERE tenant <> ''").await, [10]);
    database.adds_up().await;
}

/// What may happen to a tenant.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u8, i64),
    Capture(u8, i64),
    Lapse,
    Topup(u8),
    Adjust(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few names and small sums, so that they meet.
    let step = prop_oneof![
        4 => (0u8..12, 0i64..4_000).prop_map(|(id, amount)| Step::Reserve(id, amount)),
        4 => (0u8..12, 0i64..5_000).prop_map(|(id, amount)| Step::Capture(id, amount)),
        1 => Just(Step::Lapse),
        1 => (0u8..4).prop_map(Step::Topup),
        1 => (-3_000i64..3_000).prop_map(Step::Adjust),
    ];
    prop::collection::vec(step, 1..40)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Open(i64),
    Captured(i64),
    Released,
    Lapsed(i64),
    Refused,
}

/// What the books have to say, said simply.
#[derive(Default)]
struct Model {
    available: i64,
    reserved: i64,
    earned: i64,
    is: BTreeMap<u8, Is>,
}

impl Model {
    fn reserve(&mut self, id: u8, amount: i64) -> Reserved {
        match self.is.get(&id) {
            Some(Is::Open(held)) if *held == amount => return Reserved::Held { balance: self.available },
            Some(_) => return Reserved::TooLate,
            None if self.available < amount => return Reserved::Insufficient { balance: self.available },
            None => {}
        }
        self.available -= amount;
        self.reserved += amount;
        self.is.insert(id, Is::Open(amount));
        Reserved::Held { balance: self.available }
    }

    fn capture(&mut self, id: u8, amount: i64) -> Captured {
        match (self.is.get(&id).copied(), amount) {
            (Some(Is::Open(held)), _) => {
                let due = amount.min(held);
                self.reserved -= held;
                self.available += held - due;
                self.earned += due;
                self.is.insert(id, if amount == 0 { Is::Released } else { Is::Captured(due) });
                Captured::Charged(due)
            }
            (None, 0) => {
                self.is.insert(id, Is::Refused);
                Captured::Charged(0)
            }
            (None, _) | (Some(Is::Refused), 1..) => Captured::Unknown,
            (Some(Is::Lapsed(_) | Is::Released | Is::Refused), 0) => Captured::Charged(0),
            (Some(Is::Lapsed(held)), _) => {
                let due = amount.min(held).min(self.available);
                self.available -= due;
                self.earned += due;
                self.is.insert(id, Is::Captured(due));
                Captured::Charged(due)
            }
            (Some(Is::Captured(due)), 1..) if amount >= due => Captured::Charged(due),
            (Some(_), _) => Captured::Otherwise,
        }
    }

    fn lapse(&mut self) {
        for is in self.is.values_mut() {
            if let Is::Open(held) = *is {
                self.reserved -= held;
                self.available += held;
                *is = Is::Lapsed(held);
            }
        }
    }
}

async fn play(database: &Database, case: u32, steps: &[Step]) {
    let (tenant, mut model) = (database.tenant(0).await, Model::default());
    let mut topups = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match *step {
            Step::Reserve(id, amount) => {
                let said = reserve(&database.store, &tenant, &format!("{case}-{id}"), amount).await;
                assert_eq!(said, model.reserve(id, amount), "{index} {step:?}");
            }
            Step::Capture(id, amount) => {
                let said = database.store.capture(&format!("{case}-{id}"), amount, NOW).await.unwrap();
                assert_eq!(said, model.capture(id, amount), "{index} {step:?}");
            }
            Step::Lapse => {
                database.store.lapse(LATER).await.unwrap();
                model.lapse();
            }
            Step::Topup(id) => {
                let name = format!("pi_{case}_{id}");
                if !topups.contains(&id) {
                    let mut new = new_topup(&name, &tenant);
                    new.amount = 2_500;
                    database.store.create_topup(&new, NOW).await.unwrap();
                    model.available += 2_500;
                    topups.push(id);
                }
                database.store.settle_topup(&name, &receipt("0x1"), NOW).await.unwrap();
            }
            Step::Adjust(amount) => {
                let said = database
                    .store
                    .adjust(&tenant, amount, &format!("{case}-{index}"), "", NOW)
                    .await
                    .unwrap();
                let fits = model.available + amount >= 0;
                model.available += if fits { amount } else { 0 };
                let balance = model.available;
                let expected = if fits {
                    Adjusted::Done { balance }
                } else {
                    Adjusted::TooLittle { balance }
                };
                assert_eq!(said, expected, "{index} {step:?}");
            }
        }
        assert_eq!(
            database.balances(&tenant).await,
            (model.available, model.reserved),
            "after {index} {step:?}"
        );
    }
    let earned = format!(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM credit_transactions WHERE tenant = '{tenant}' AND credit = 'revenue'"
    );
    assert_eq!(database.numbers(&earned).await, [model.earned]);
    // Double entry: what is on all accounts is nothing, so that what the tenant has came in, and did not go out.
    let inside = format!(
        "SELECT CAST(COALESCE(SUM(CASE WHEN debit IN ('x402', 'adjustments') THEN amount ELSE 0 END - \
         CASE WHEN credit IN ('revenue', 'adjustments') THEN amount ELSE 0 END), 0) AS BIGINT) FROM credit_transactions WHERE tenant = '{tenant}'"
    );
    assert_eq!(database.numbers(&inside).await, [model.available + model.reserved]);
    database.adds_up().await;
}

async fn as_the_model_says(database: Database) {
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut case = 0;
        let cases = Config {
            cases: 48,
            failure_persistence: None,
            ..Config::default()
        };
        let shared = std::cell::RefCell::new(&mut case);
        TestRunner::new(cases)
            .run(&steps(), |steps| {
                **shared.borrow_mut() += 1;
                handle.block_on(play(&database, **shared.borrow(), &steps));
                Ok(())
            })
            .unwrap();
    })
    .await
    .unwrap();
}
