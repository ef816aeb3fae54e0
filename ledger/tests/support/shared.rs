//! Claims of a fleet, and what its Envoys say.
#![allow(dead_code)] // each test takes what it needs

use std::sync::Arc;

use serde_json::json;
use x402_ledger::metrics::Metrics;
use x402_ledger::payments::cipher::Cipher;
use x402_ledger::payments::claims::{Claims, Holder};
use x402_ledger::payments::facilitator::Facilitators;
use x402_ledger::payments::offers::Offers;
use x402_ledger::store::Store;

/// A ledger on this database; several may share it.
pub fn claims(store: &Store, url: &str) -> Arc<Claims> {
    let document = json!({
        "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"},
        "accept": [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}],
        "facilitators": [{"url": url}],
    });
    let offers = Offers::new(document.as_object().unwrap(), &["$1".to_owned()], "$100").unwrap();
    let facilitators = Arc::new(Facilitators::new(Arc::new(offers.config.clone())).unwrap());
    let keys = (Cipher::new(&"ab".repeat(32)).unwrap(), [7; 16]);
    Claims::new(store.clone(), facilitators, &offers.config, keys, Metrics::default(), 600_000)
}

/// A request that holds payment `n`.
pub fn holder(n: u8, request: u8) -> Holder {
    Holder::parse(&format!("{};claim={};until=1900000000", hex(request), hex(n))).unwrap()
}

pub fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(16)
}

pub fn body(n: u8, scheme: &str, amount: &str) -> Vec<u8> {
    let nonce = format!("0x{}", format!("{n:02x}").repeat(32));
    let required = json!({"scheme": scheme, "network": "eip155:84532", "amount": amount, "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "payTo": "0x2"});
    let payload = json!({"signature": "0xs", "authorization": {"from": "0xpayer", "nonce": nonce, "value": "10000"}});
    json!({"x402Version": 2, "paymentPayload": {"x402Version": 2, "accepted": required, "payload": payload}, "paymentRequirements": required})
        .to_string()
        .into_bytes()
}
