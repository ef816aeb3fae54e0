//! Payers for native tests: payments signed with alloy, not with the code under test.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)] // each test binary uses a part of it

pub mod world;

use alloy_primitives::{Address, B256, U256, address};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};
use base64::Engine as _;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

alloy_sol_types::sol! {
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    struct Permit {
        address owner;
        address spender;
        uint256 value;
        uint256 nonce;
        uint256 deadline;
    }
}

/// The time at which tests happen.
pub const NOW: u64 = 1_795_223_000;
/// The seller.
pub const SELLER: Address = address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906");
/// USDC on Base Sepolia.
pub const USDC: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");

/// An account with a key.
pub struct Payer {
    key: SigningKey,
}

impl Payer {
    /// The account whose private key is this number.
    pub fn new(number: u8) -> Self {
        let mut secret = [0u8; 32];
        secret[31] = number;
        Self {
            key: SigningKey::from_slice(&secret).unwrap(),
        }
    }

    pub fn address(&self) -> Address {
        let point = self.key.verifying_key().to_sec1_point(false);
        Address::from_raw_public_key(&point.as_bytes()[1..])
    }

    /// 65 bytes, v 27 or 28, as wallets sign.
    pub fn sign(&self, digest: B256) -> String {
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest.as_slice());
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), recovery.to_byte() + 27)
    }
}

/// The EIP-712 domain of USDC on Base Sepolia.
pub fn usdc_domain() -> Eip712Domain {
    eip712_domain! { name: "USDC", version: "2", chain_id: 84532, verifying_contract: USDC, }
}

/// The terms of a payment, each of which a test may change before it is signed.
#[derive(Clone)]
pub struct Terms {
    pub to: Address,
    pub value: u64,
    pub valid_after: u64,
    pub valid_before: u64,
    pub nonce: B256,
    pub domain: Eip712Domain,
}

impl Terms {
    /// A payment of a tenth of a cent that passes.
    pub fn good(nonce: u8) -> Self {
        Self {
            to: SELLER,
            value: 1000,
            valid_after: 0,
            valid_before: NOW + 300,
            nonce: B256::repeat_byte(nonce),
            domain: usdc_domain(),
        }
    }

    /// The payload of a payment under these terms: `{signature, authorization}`.
    pub fn payload(&self, payer: &Payer) -> Value {
        let message = TransferWithAuthorization {
            from: payer.address(),
            to: self.to,
            value: U256::from(self.value),
            validAfter: U256::from(self.valid_after),
            validBefore: U256::from(self.valid_before),
            nonce: self.nonce,
        };
        json!({
            "signature": payer.sign(message.eip712_signing_hash(&self.domain)),
            "authorization": {
                "from": payer.address().to_string(), "to": self.to.to_string(), "value": self.value.to_string(),
                "validAfter": self.valid_after.to_string(), "validBefore": self.valid_before.to_string(), "nonce": self.nonce.to_string(),
            },
        })
    }
}

/// A LibertAI payment by EIP-2612 permit, good for some seconds from the test's time: as JSON, the way `X-PAYMENT` carries it.
pub fn permit(payer: &Payer, spender: Address, value: u64, nonce: u64, seconds: u64) -> Vec<u8> {
    let message = Permit {
        owner: payer.address(),
        spender,
        value: U256::from(value),
        nonce: U256::from(nonce),
        deadline: U256::from(NOW + seconds),
    };
    let payload = json!({
        "signature": payer.sign(message.eip712_signing_hash(&usdc_domain())),
        "authorization": {
            "from": payer.address().to_string(), "to": spender.to_string(), "value": value.to_string(), "validAfter": "0",
            "validBefore": (NOW + seconds).to_string(), "nonce": B256::from(U256::from(nonce)).to_string(),
        },
    });
    let payment = json!({"x402Version": 2, "scheme": "upto", "network": "eip155:84532", "payload": payload});
    payment.to_string().into_bytes()
}

/// A v2 payment for one of the requirements of a challenge.
pub fn v2(accepted: &Value, payload: Value) -> Value {
    json!({"x402Version": 2, "accepted": accepted, "payload": payload})
}

/// A v1 payment.
pub fn v1(payload: Value) -> Value {
    json!({"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": payload})
}

/// JSON in base64.
pub fn base64(value: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.encode(value.to_string()).into_bytes()
}

/// The JSON that a header holds in base64.
pub fn unbase64(text: &str) -> Value {
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}
