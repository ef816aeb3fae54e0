//! Turns, sharing, and how long a former fact lives.

use super::*;
use crate::config::parse;
use crate::replay::MemoryStore;

const NOW: UnixSeconds = UnixSeconds(1_000_000);

fn config() -> Config {
    let json = serde_json::json!({
        "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906", "solana": "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM"},
        "accept": [
            {"scheme": "upto", "network": "eip155:84532", "asset": "USDC"},
            {"scheme": "exact", "network": "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", "asset": "USDC"},
            {"scheme": "exact", "network": "eip155:84532", "asset": "USDC"},
        ],
        "facilitators": [{"cluster": "one", "url": "http://127.0.0.1:1"}, {"cluster": "two", "url": "http://127.0.0.1:2"}],
        "unmatched": "deny",
        "routes": [{"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}}],
    });
    parse(json.to_string().as_bytes()).unwrap()
}

fn upto(address: &str) -> Supported {
    let json = serde_json::json!({"kinds": [
        {"x402Version": 2, "scheme": "upto", "network": "eip155:84532", "extra": {"facilitatorAddress": address}},
    ]});
    Supported::parse(json.to_string().as_bytes()).unwrap()
}

fn offers(config: &Config) -> Vec<Offer> {
    config.routes.by_index(0).unwrap().offers.clone()
}

fn address(ready: Option<Ready>) -> Option<String> {
    ready.and_then(|ready| ready.facilitator_address).map(Into::into)
}

const A: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const B: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

#[test]
fn one_worker_asks_and_asks_again_when_it_is_time() {
    let (config, store) = (config(), MemoryStore::new());
    assert!(take_turn(&store, &config, 0, NOW));
    assert!(!take_turn(&store, &config, 0, NOW), "another worker has the turn");
    assert!(take_turn(&store, &config, 1, NOW), "each facilitator has its own");
    assert!(!take_turn(&store, &config, 2, NOW), "there is no third");
    assert!(take_turn(&store, &config, 0, NOW.plus(LEASE)), "who had it has not come back");
    share(&store, &config, 0, None, NOW);
    assert!(!take_turn(&store, &config, 0, NOW.plus(RETRY - 1)));
    assert!(take_turn(&store, &config, 0, NOW.plus(RETRY)));
    share(&store, &config, 0, Some(upto(A)), NOW);
    assert!(!take_turn(&store, &config, 0, NOW.plus(REFRESH - 1)));
    assert!(take_turn(&store, &config, 0, NOW.plus(REFRESH)));
}

#[test]
fn an_offer_waits_for_the_fact_it_needs() {
    let (config, store, mut table) = (config(), MemoryStore::new(), Table::default());
    assert!(is_needed(&config));
    let offers = offers(&config);
    assert_eq!(
        offers.iter().map(|offer| table.ready(offer).is_some()).collect::<Vec<_>>(),
        [false, false, true]
    );
    share(&store, &config, 1, Some(upto(A)), NOW);
    table.refresh(&store, &config);
    let ready = table.ready(&offers[0]).unwrap();
    assert_eq!(
        (ready.facilitator, ready.facilitator_address.as_deref()),
        (1, Some(A)),
        "the first that has it"
    );
    assert!(ready.is_facilitator(A.parse().unwrap()) && !ready.is_facilitator(B.parse().unwrap()));
    assert_eq!(table.ready(&offers[1]), None, "no fee payer is known");
    share(&store, &config, 0, Some(upto(B)), NOW);
    table.refresh(&store, &config);
    let first = table.ready(&offers[0]).unwrap();
    assert_eq!(first.facilitator, 0);
    assert_eq!(table.next(&offers[0], &first), None, "the payment is bound to who it names");
    let anyone = table.ready(&offers[2]).unwrap();
    assert_eq!(table.next(&offers[2], &anyone).map(|next| next.facilitator), Some(1));
}

#[test]
fn an_answer_is_heard_by_all() {
    let (config, store, mut table) = (config(), MemoryStore::new(), Table::default());
    let mut heard = |now| {
        table.refresh(&store, &config);
        table.heard_at(0, now)
    };
    assert_eq!(heard(NOW), None);
    assert!(take_turn(&store, &config, 0, NOW));
    assert_eq!(heard(NOW), None, "it is being asked");
    share(&store, &config, 0, None, NOW.plus(1));
    assert_eq!(heard(NOW.plus(1)), None);
    share(&store, &config, 0, Some(upto(A)), NOW.plus(2));
    assert_eq!(heard(NOW.plus(2)), Some(NOW.plus(2)));
    assert_eq!(heard(NOW.plus(100)), Some(NOW.plus(2)));
    assert!(take_turn(&store, &config, 0, NOW.plus(2 + REFRESH)));
    assert_eq!(heard(NOW.plus(2 + REFRESH)), None, "who knows now");
    share(&store, &config, 0, Some(upto(A)), NOW.plus(3 + REFRESH));
    assert_eq!(heard(NOW.plus(3 + REFRESH)), Some(NOW.plus(3 + REFRESH)), "the same answer");
}

#[test]
fn a_former_fact_lives_as_long_as_quotes_made_from_it() {
    let (config, store, mut table) = (config(), MemoryStore::new(), Table::default());
    let offer = &offers(&config)[0];
    share(&store, &config, 0, Some(upto(A)), NOW);
    share(&store, &config, 0, Some(upto(A)), NOW);
    table.refresh(&store, &config);
    assert_eq!(table.formerly_ready(offer, NOW), None, "the same answer again is no change");
    share(&store, &config, 0, Some(upto(B)), NOW);
    share(&store, &config, 0, None, NOW.plus(1));
    table.refresh(&store, &config);
    assert_eq!(address(table.ready(offer)).as_deref(), Some(B), "a failure forgets nothing");
    assert_eq!(address(table.formerly_ready(offer, NOW.plus(GRACE - 1))).as_deref(), Some(A));
    assert_eq!(table.formerly_ready(offer, NOW.plus(GRACE)), None);
}

#[test]
fn an_offer_that_nobody_supports_is_reported() {
    let (config, store, mut table) = (config(), MemoryStore::new(), Table::default());
    share(&store, &config, 0, Some(upto(A)), NOW);
    table.refresh(&store, &config);
    assert!(unsupported(&config, &table).is_empty(), "the second may support them");
    share(&store, &config, 1, Some(upto(A)), NOW);
    table.refresh(&store, &config);
    let lines = unsupported(&config, &table);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("no facilitator says that it supports exact on solana:"),
        "{lines:?}"
    );
}

#[test]
fn a_record_that_cannot_be_read_is_asked_for_again() {
    let (config, store, mut table) = (config(), MemoryStore::new(), Table::default());
    let key = key(&config, 0).unwrap();
    store.compare_and_swap(&key, b"nonsense", Cas::Absent).unwrap();
    table.refresh(&store, &config);
    assert_eq!(table.known(0), None);
    assert!(take_turn(&store, &config, 0, NOW));
}
