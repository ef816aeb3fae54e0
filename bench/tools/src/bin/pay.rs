//! Prepares requests that pay: signs EIP-3009 authorizations (or Permit2 permits, for `upto`), or has a stranger sign them.
//!
//!     pay --challenge FILE --template FILE --out FILE --count 1000 [--payers 100] [--forged 1] [--scheme exact]
//!
//! The challenge is an x402 v2 `PaymentRequired` as JSON; its first offer of that scheme is paid. The template is a request in
//! which `{payment}` stands for the value of the payment header. `forged` payments are well-formed and signed by another key than
//! the payer's. The output is what `load` reads.

use base64::Engine as _;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};
use std::io::{Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use x402_bench_tools::arguments::Arguments;

const TRANSFER: &[u8] =
    b"TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";
const DOMAIN: &[u8] = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

const DOMAIN_WITHOUT_VERSION: &[u8] = b"EIP712Domain(string name,uint256 chainId,address verifyingContract)";
const PERMIT_WITNESS: &[u8] =
    b"PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,Witness witness)";
const TOKEN_PERMISSIONS: &[u8] = b"TokenPermissions(address token,uint256 amount)";
const WITNESS: &[u8] = b"Witness(address to,address facilitator,uint256 validAfter)";
const PERMIT2: &str = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
const UPTO_PROXY: &str = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";

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

    let scheme = arguments.text("scheme").unwrap_or("exact");
    let offer = challenge["accepts"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|offer| offer["scheme"] == scheme);
    let offer = offer.expect("the challenge offers the scheme");
    let permit2 = offer["extra"]["assetTransferMethod"] == "permit2";
    let domain = if permit2 { permit2_domain(offer) } else { token_domain(offer) };
    let payers: Vec<(SigningKey, String, Word)> = (0..arguments.number("payers", 100).max(1))
        .map(|index| payer(&seed, index))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let until = now + offer["maxTimeoutSeconds"].as_u64().unwrap_or(300);
    let mut out = std::io::BufWriter::new(std::fs::File::create(arguments.text("out").unwrap_or("requests"))?);
    for number in 0..arguments.number("count", 1000) {
        let (key, address, from) = &payers[number as usize % payers.len()];
        let nonce = keccak(&[&seed[..], b"nonce", &number.to_be_bytes()].concat());
        let hash = if permit2 {
            permit_hash(offer, &nonce, until)
        } else {
            transfer_hash(offer, from, &nonce, until)
        };
        let digest = keccak(&[&[0x19, 0x01][..], &domain, &hash].concat());
        let stranger = &payers[(number as usize + 1) % payers.len()].0;
        let signer = if forged && payers.len() > 1 { stranger } else { key };
        let mut payload = if permit2 {
            permit(offer, address, &nonce, until)
        } else {
            transfer(offer, address, &nonce, until)
        };
        payload["signature"] = sign(signer, &digest).into();
        let mut payment = json!({"x402Version": 2, "accepted": offer, "payload": payload});
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

fn token_domain(offer: &Value) -> Word {
    keccak(
        &[
            keccak(DOMAIN),
            keccak(text(&offer["extra"]["name"]).as_bytes()),
            keccak(text(&offer["extra"]["version"]).as_bytes()),
            number_word(chain(offer)),
            address_word(text(&offer["asset"])),
        ]
        .concat(),
    )
}

fn permit2_domain(offer: &Value) -> Word {
    keccak(
        &[
            keccak(DOMAIN_WITHOUT_VERSION),
            keccak(b"Permit2"),
            number_word(chain(offer)),
            address_word(PERMIT2),
        ]
        .concat(),
    )
}

fn chain(offer: &Value) -> u128 {
    text(&offer["network"])
        .trim_start_matches("eip155:")
        .parse()
        .expect("an eip155 network")
}

fn amount(offer: &Value) -> Word {
    number_word(text(&offer["amount"]).parse().expect("a whole amount"))
}

fn transfer_hash(offer: &Value, from: &Word, nonce: &Word, until: u64) -> Word {
    let to = address_word(text(&offer["payTo"]));
    keccak(
        &[
            keccak(TRANSFER),
            *from,
            to,
            amount(offer),
            number_word(0),
            number_word(until.into()),
            *nonce,
        ]
        .concat(),
    )
}

fn transfer(offer: &Value, from: &str, nonce: &Word, until: u64) -> Value {
    json!({"authorization": {
        "from": from, "to": offer["payTo"], "value": offer["amount"], "validAfter": "0",
        "validBefore": until.to_string(), "nonce": format!("0x{}", hex::encode(nonce)),
    }})
}

/// Permit2's nonces are numbers, written in decimal: half a word of it is random enough.
fn permit_nonce(nonce: &Word) -> u128 {
    u128::from_be_bytes(nonce[..16].try_into().expect("16 bytes"))
}

fn permit_hash(offer: &Value, nonce: &Word, until: u64) -> Word {
    let permissions = keccak(&[keccak(TOKEN_PERMISSIONS), address_word(text(&offer["asset"])), amount(offer)].concat());
    let (to, facilitator) = (
        address_word(text(&offer["payTo"])),
        address_word(text(&offer["extra"]["facilitatorAddress"])),
    );
    let witness = keccak(&[keccak(WITNESS), to, facilitator, number_word(0)].concat());
    let kind = keccak(&[PERMIT_WITNESS, TOKEN_PERMISSIONS, WITNESS].concat());
    let nonce = number_word(permit_nonce(nonce));
    keccak(
        &[
            kind,
            permissions,
            address_word(UPTO_PROXY),
            nonce,
            number_word(until.into()),
            witness,
        ]
        .concat(),
    )
}

fn permit(offer: &Value, from: &str, nonce: &Word, until: u64) -> Value {
    json!({"permit2Authorization": {
        "from": from, "permitted": {"token": offer["asset"], "amount": offer["amount"]}, "spender": UPTO_PROXY,
        "nonce": permit_nonce(nonce).to_string(), "deadline": until.to_string(),
        "witness": {"to": offer["payTo"], "facilitator": offer["extra"]["facilitatorAddress"], "validAfter": "0"},
    }})
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
