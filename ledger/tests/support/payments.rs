//! Payments signed with alloy, and a facilitator that answers as it is told.
#![allow(dead_code)] // each test takes what it needs

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256, address};
use alloy_sol_types::{SolStruct as _, eip712_domain};
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use tokio::sync::Notify;
use x402_envoy::evm::Nonce;
use x402_envoy::replay::ClaimKey;
use x402_envoy::x402::{Payment, Resource, decode};
use x402_ledger::metrics::Metrics;
use x402_ledger::payments::cipher::Cipher;
use x402_ledger::payments::facilitator::Facilitators;
use x402_ledger::payments::offers::Offers;
use x402_ledger::payments::topup::{Intent, Outcome, Paying, Topups, now_ms};
use x402_ledger::store::Store;

alloy_sol_types::sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }
}

/// The database's.
pub const SECRET: [u8; 16] = [7; 16];
const SELLER: Address = address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906");
const USDC: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

/// A v2 payment of so many micro-dollars.
pub fn payment(nonce: u8, amount: u64) -> Payment {
    decode([(&b"payment-signature"[..], header(nonce, amount).as_bytes())])
        .unwrap()
        .unwrap()
}

/// The value of its header.
pub fn header(nonce: u8, amount: u64) -> String {
    let key = payer_key();
    let from = payer(&key);
    let message = TransferWithAuthorization {
        from,
        to: SELLER,
        value: U256::from(amount),
        validAfter: U256::ZERO,
        validBefore: U256::from(u64::try_from(now_ms()).unwrap() / 1000 + 300),
        nonce: B256::repeat_byte(nonce),
    };
    let domain = eip712_domain! { name: "USDC", version: "2", chain_id: 84532, verifying_contract: USDC, };
    let (signature, recovery) = key.sign_prehash_recoverable(message.eip712_signing_hash(&domain).as_slice());
    let signature = format!("0x{}{:02x}", hex::encode(signature.to_bytes()), recovery.to_byte() + 27);
    let payment = json!({
        "x402Version": 2,
        "accepted": {
            "scheme": "exact", "network": "eip155:84532", "amount": amount.to_string(), "asset": USDC.to_string(),
            "payTo": SELLER.to_string(), "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"},
        },
        "payload": {
            "signature": signature,
            "authorization": {
                "from": from.to_string(), "to": SELLER.to_string(), "value": amount.to_string(), "validAfter": "0",
                "validBefore": message.validBefore.to_string(), "nonce": message.nonce.to_string(),
            },
        },
    });
    base64::engine::general_purpose::STANDARD.encode(payment.to_string())
}

/// What the payment of this nonce can spend once.
pub fn claim(secret: &[u8; 16], nonce: u8) -> ClaimKey {
    let (token, payer) = (USDC.to_string().parse().unwrap(), payer(&payer_key()).to_string().parse().unwrap());
    ClaimKey::eip3009(secret, "eip155:84532", &token, &payer, &Nonce([nonce; 32]))
}

fn payer_key() -> SigningKey {
    SigningKey::from_slice(&[7u8; 32]).unwrap()
}

fn payer(key: &SigningKey) -> Address {
    Address::from_raw_public_key(&key.verifying_key().to_sec1_point(false).as_bytes()[1..])
}

/// What the facilitator does with a settlement.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Says that it is settled.
    Settle,
    /// Refuses for certain.
    Refuse,
    /// Settles, and answers 500.
    Fail,
    /// Settles, and answers what nobody can read.
    Garbage,
    /// Settles once it is let, and then says so.
    Wait,
}

/// A facilitator; a settlement that it is asked for again is a duplicate.
#[derive(Default)]
pub struct Facilitator {
    pub script: Mutex<VecDeque<Script>>,
    /// Nonces that money has moved for.
    pub moved: Mutex<Vec<String>>,
    pub verified: Mutex<u32>,
    /// Whether `/verify` waits, as [`Script::Wait`] does.
    pub slow: Mutex<bool>,
    pub settle_calls: Mutex<u32>,
    /// What was asked to be settled.
    pub amounts: Mutex<Vec<String>>,
    pub arrived: Notify,
    pub go: Notify,
    at: Mutex<String>,
}

impl Facilitator {
    /// Where it is.
    pub fn url(&self) -> String {
        self.at.lock().unwrap().clone()
    }
}

async fn verify(Extract(facilitator): Extract<Arc<Facilitator>>) -> Json<Value> {
    *facilitator.verified.lock().unwrap() += 1;
    let slow = *facilitator.slow.lock().unwrap();
    if slow {
        facilitator.arrived.notify_one();
        facilitator.go.notified().await;
    }
    Json(json!({"isValid": true}))
}

async fn settle(Extract(facilitator): Extract<Arc<Facilitator>>, Json(body): Json<Value>) -> (StatusCode, String) {
    *facilitator.settle_calls.lock().unwrap() += 1;
    let amount = body["paymentRequirements"]["amount"].as_str().unwrap().to_owned();
    facilitator.amounts.lock().unwrap().push(amount);
    let nonce = body["paymentPayload"]["payload"]["authorization"]["nonce"]
        .as_str()
        .unwrap()
        .to_owned();
    let duplicate = json!({"success": false, "errorReason": "duplicate_settlement", "transaction": "", "network": "eip155:84532"});
    if facilitator.moved.lock().unwrap().contains(&nonce) {
        return (StatusCode::OK, duplicate.to_string());
    }
    let script = facilitator.script.lock().unwrap().pop_front().unwrap_or(Script::Settle);
    if let Script::Refuse = script {
        let refused = json!({"success": false, "errorReason": "insufficient_funds", "transaction": "", "network": "eip155:84532"});
        return (StatusCode::OK, refused.to_string());
    }
    facilitator.moved.lock().unwrap().push(nonce.clone());
    if let Script::Wait = script {
        facilitator.arrived.notify_one();
        facilitator.go.notified().await;
    }
    match script {
        Script::Fail => (StatusCode::INTERNAL_SERVER_ERROR, "database".to_owned()),
        Script::Garbage => (StatusCode::OK, "<html>".to_owned()),
        _ => {
            let settled = json!({"success": true, "transaction": nonce, "network": "eip155:84532"});
            (StatusCode::OK, settled.to_string())
        }
    }
}

/// Starts it; gives back where it is.
pub async fn serve(facilitator: Arc<Facilitator>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    *facilitator.at.lock().unwrap() = format!("http://{address}");
    let supported = json!({"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}]});
    let router = Router::new()
        .route("/verify", post(verify))
        .route("/settle", post(settle))
        .route("/supported", get(move || async move { Json(supported) }))
        .with_state(facilitator);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

/// A ledger on these books, which asks the facilitator at this URL; tiers of $1 and $5.
pub fn ledger(store: Store, url: &str) -> Arc<Topups<Store>> {
    let document = json!({
        "pay_to": {"eip155": SELLER.to_string()},
        "accept": [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}],
        "facilitators": [{"url": url}],
    });
    let offers = Offers::new(document.as_object().unwrap(), &["$1".to_owned(), "$5".to_owned()], "$100").unwrap();
    let facilitators = Arc::new(Facilitators::new(Arc::new(offers.config.clone())).unwrap());
    Topups::new(
        store,
        offers,
        facilitators,
        Cipher::new(&"ab".repeat(32)).unwrap(),
        SECRET,
        Metrics::default(),
    )
}

/// Sends a payment with a key of the tenant's.
pub async fn pay(topups: &Arc<Topups<Store>>, tenant: &str, payment: &Payment) -> Outcome {
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
        intent: Intent::New,
    };
    topups.pay(&paying).await.unwrap()
}
