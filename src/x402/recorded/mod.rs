//! Tests against recorded traffic of the official servers, clients and facilitators, and against mutations of it.
//!
//! Here is what they share: the recordings, and the offers of the servers that were recorded.

mod answers;
mod dialects;
mod traffic;

use serde::Deserialize;
use serde_json::Value;

use super::facilitator::Speaks;
use super::*;
use crate::evm::Address;
use crate::pricing::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer};

#[derive(Deserialize)]
struct Recorded {
    case: String,
    header: String,
    value: String,
    decoded: Value,
    receipt: Option<String>,
    verify: Option<Value>,
    verified: Option<String>,
    settle: Option<Value>,
    settled: Option<Value>,
}

#[derive(Deserialize)]
struct Challenged {
    case: String,
    status: u16,
    header: Option<Value>,
    body: Option<Value>,
}

fn borrowed(value: &Value) -> json::Json<'static> {
    json::parse(&value.to_string()).unwrap().into_owned()
}

fn payments() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../../../tests/wire/payments.json")).unwrap()
}

fn challenges() -> Vec<Challenged> {
    serde_json::from_str(include_str!("../../../tests/wire/challenges.json")).unwrap()
}

const SELLER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
const FACILITATOR: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const BOTH: Speaks = Speaks { v1: true, v2: true };

/// The offers of the servers that were recorded.
pub(super) fn offer(network: &str, scheme: Scheme, transfer: Transfer, amount: u128) -> Offer {
    let (address, name) = match network {
        "eip155:8453" => ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
        _ => ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    };
    Offer {
        scheme,
        asset: Asset {
            symbol: "USDC".into(),
            network: Network::parse(network).unwrap(),
            address: address.into(),
            evm_address: address.parse().ok(),
            decimals: 6,
            currency: "usd".into(),
            eip712: Some(Eip712Domain {
                name: name.into(),
                version: "2".into(),
            }),
        },
        upfront: false,
        transfer,
        pay_to: PayTo::Evm(SELLER.parse().unwrap()),
        seller: SELLER.into(),
        max_timeout_seconds: 300,
        amount: Atomic(amount),
        domain_separator: [0; 32],
        facilitators: vec![0],
    }
}

/// The first offer that a payment fits, or what is wrong with the last.
fn first_fit(payment: &Payment, offers: &[Payable<'_>]) -> Result<usize, Refusal> {
    let mut last = Err(Refusal::UnsupportedScheme);
    for (index, payable) in offers.iter().enumerate() {
        match fits(payment, payable) {
            Ok(()) => return Ok(index),
            Err(refusal) => last = Err(refusal),
        }
    }
    last
}

fn spender() -> Address {
    FACILITATOR.parse().unwrap()
}

fn all() -> Vec<Offer> {
    vec![
        offer("eip155:84532", Scheme::Exact, Transfer::Eip3009, 1000),
        offer("eip155:84532", Scheme::Exact, Transfer::Permit2, 1000),
        offer("eip155:84532", Scheme::Upto, Transfer::Permit2, 100_000),
        offer("eip155:8453", Scheme::Exact, Transfer::Eip3009, 1000),
        offer("eip155:8453", Scheme::Upto, Transfer::Permit { spender: spender() }, 100_000),
    ]
}

fn payable(offer: &Offer) -> Payable<'_> {
    let facts = Facts {
        facilitator_address: Some(FACILITATOR),
        ..Facts::default()
    };
    Payable { offer, facts }
}

fn resource(url: &str) -> Resource<'_> {
    Resource {
        url,
        description: "Fake chat completion",
        mime_type: "application/json",
    }
}

fn challenge<'a>(refusal: Refusal, offers: &'a [Payable<'a>]) -> Challenge<'a> {
    Challenge {
        refusal,
        reason: None,
        detail: None,
        resource: resource("http://127.0.0.1:4121/exact"),
        offers,
        extensions: None,
        v1: true,
        plain_headers: true,
        style: BodyStyle::X402,
        hints: Hints::default(),
        retry_after: None,
    }
}

fn read(header: &str, value: &[u8]) -> Result<Option<Payment>, PaymentError> {
    decode([(header.as_bytes(), value)])
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

fn from_base64(text: &str) -> Value {
    serde_json::from_slice::<Value>(&dialect::base64(text).unwrap()).unwrap()
}
