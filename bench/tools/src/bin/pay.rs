//! Prepares requests that pay: signs EIP-3009 authorizations for an offer, or has a stranger sign them.
//!
//!     pay --challenge FILE --template FILE --out FILE --count 1000 [--payers 100] [--forged 1]
//!
//! The challenge is an x402 v2 `PaymentRequired` as JSON; its first offer of scheme `exact` is paid. The template is a request in
//! which `{payment}` stands for the value of the payment header. `forged` payments are well-formed and signed by another key than
//! the payer's. The output is what `load` reads.

use base64::Engine as _;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use x402_bench_tools::arguments::Arguments;

const TRANSFER: &[u8] = b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";
const DOMAIN: &[u8] = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

type Word = [u8; 32];

fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let file = |name: &str| std::fs::read_to_string(arguments.text(name).unwrap_or(name));
    let challenge: Value = serde_json::from_str(&file("challenge")?)?;
    let template = file("template")?;
    let (before, after) = template.split_once("{payment}").expect("the template has a {payment}");
    let forged = arguments.number("forged", 0) != 0;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;

    let offer = challenge["accepts"].as_array().into_iter().flatten().find(|offer| offer["scheme"] == "exact");
    let offer = offer.expect("the challenge offers scheme exact");
    let domain = domain(offer);
    let payers: Vec<(SigningKey, String, Word)> = (0..arguments.number("payers", 100).max(1)).map(|index| payer(&seed, index)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let until = now + offer["maxTimeoutSeconds"].as_u64().unwrap_or(300);
    let mut out = std::io::BufWriter::new(std::fs::File::create(arguments.text("out").unwrap_or("requests"))?);
    for number in 0..arguments.number("count", 1000) {
        let (key, address, from) = &payers[number as usize % payers.len()];
        let nonce = keccak(&[&seed[..], b"nonce", &number.to_be_bytes()].concat());
        let hash = keccak(
            &[
                keccak(TRANSFER),
                *from,
                address_word(text(&offer["payTo"])),
                number_word(text(&offer["amount"]).parse().expect("a whole amount")),
                number_word(0),
                number_word(until.into()),
                nonce,
            ]
            .concat(),
        );
        let digest = keccak(&[&[0x19, 0x01][..], &domain, &hash].concat());
        let stranger = &payers[(number as usize + 1) % payers.len()].0;
        let signer = if forged && payers.len() > 1 { stranger } else { key };
        let mut payment = json!({
            "x402Version": 2,
            "accepted": offer,
            "payload": {
                "authorization": {
                    "from": address, "to": offer["payTo"], "value": offer["amount"], "validAfter": "0",
                    "validBefore": until.to_string(), "nonce": format!("0x{}", hex::encode(nonce)),
                },
                "signature": sign(signer, &digest),
            },
        });
        if !challenge["resource"].is_null() {
            payment["resource"] = challenge["resource"].clone();
        }
        let header = base64::engine::general_purpose::STANDARD.encode(payment.to_string());
        let length = (before.len() + header.len() + after.len()) as u32;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(before.as_bytes())?;
        out.write_all(header.as_bytes())?;
        out.write_all(after.as_bytes())?;
    }
    out.flush()
}

fn domain(offer: &Value) -> Word {
    let chain = text(&offer["network"]).trim_start_matches("eip155:").parse().expect("an eip155 network");
    keccak(
        &[
            keccak(DOMAIN),
            keccak(text(&offer["extra"]["name"]).as_bytes()),
            keccak(text(&offer["extra"]["version"]).as_bytes()),
            number_word(chain),
            address_word(text(&offer["asset"])),
        ]
        .concat(),
    )
}

/// A key, and its address as text and as a word.
fn payer(seed: &Word, index: u64) -> (SigningKey, String, Word) {
    let key = SigningKey::from_slice(&keccak(&[&seed[..], b"payer", &index.to_be_bytes()].concat())).expect("below the order");
    let point = key.verifying_key().to_encoded_point(false);
    let mut word = keccak(&point.as_bytes()[1..]);
    word[..12].fill(0);
    (key, format!("0x{}", hex::encode(&word[12..])), word)
}

fn sign(key: &SigningKey, digest: &Word) -> String {
    let (signature, recovery) = key.sign_prehash_recoverable(digest).expect("32 bytes");
    format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
}

fn keccak(bytes: &[u8]) -> Word {
    Keccak256::digest(bytes).into()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number_word(number: u128) -> Word {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&number.to_be_bytes());
    word
}

fn address_word(address: &str) -> Word {
    let mut word = [0; 32];
    hex::decode_to_slice(address.trim_start_matches("0x"), &mut word[12..]).expect("an address");
    word
}
