//! Payers, and the payments that they sign: with alloy, not with the code under test.

use std::sync::OnceLock;

use alloy_primitives::{Address, B256, U256, address};
use alloy_sol_types::{SolStruct, eip712_domain};
use serde_json::{Value, json};
use x402_envoy::evm::{Address as Account, Nonce, U256 as Number};
use x402_envoy::replay::ClaimKey;

use super::random::Random;
use super::shop::{self, Flow, HOST, ROUTES, Route, SKEW, SOLANA, VALIDITY, Way};
use super::solana;
use super::support::{Payer, SELLER, Terms, USDC, base64, usdc_domain, v1, v2};

pub const FEE_PAYER: &str = "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9";
pub const SOLANA_SELLER: &str = "GyGKxMyg1p9SsHfm15MkNUu1u9TN2JtTspcdmrtGUdse";
pub const SPENDER: Address = address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
/// Another token.
pub const TUSD: Address = address!("0x4200000000000000000000000000000000000042");
const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");
const EXACT_PROXY: Address = address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
const UPTO_PROXY: Address = address!("0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002");
/// How long a Solana transaction can be mined, in seconds: as long as its blockhash lives.
const BLOCKHASH: u64 = 90;
/// Why a payment does not do for a metered answer, though it does otherwise.
pub const SHORT: &str = "its answer could outlive it";
pub const AMOUNT: &str = "another amount is asked for";
pub const RESOURCE: &str = "it was made for another resource";
/// Why one buys nothing but what it has paid for.
pub const EXPIRED: &str = "it has expired, or is about to";
/// How long payments may be valid at most, in seconds: `pre_check.max_validity`.
const LONGEST: u64 = 3600;
/// How many payers there are. The last ones are poor.
pub const PAYERS: usize = 16;
pub const POOR: usize = 4;
pub const SECRET: [u8; 16] = [9; 16];

mod exact {
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct Witness { address to; uint256 validAfter; }
        struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness; }
    }
}

mod upto {
    alloy_sol_types::sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct Witness { address to; address facilitator; uint256 validAfter; }
        struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness; }
    }
}

/// What is wrong with a payment, and can be seen without asking anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Signed by somebody else.
    Signature,
    /// Less than is asked for.
    Amount,
    /// Somebody else would be paid.
    Recipient,
    /// About to expire, or expired.
    Expired,
    /// Not valid yet.
    Early,
    /// Valid for too long.
    Long,
    /// Made for another resource.
    Resource,
    /// It cannot be read.
    Garbage,
}

/// What a request costs now, and what it cost before the configuration was replaced, as long as that is good.
#[derive(Debug, Clone, Copy)]
pub struct Quotes {
    pub now: u64,
    pub former: Option<u64>,
}

impl Quotes {
    pub fn take(self, amount: u64) -> bool {
        amount == self.now || Some(amount) == self.former
    }
}

/// A payment as a client sends it.
pub struct Payment {
    /// What it spends, which can be spent once.
    pub spend: usize,
    pub payer: usize,
    pub way: Way,
    /// What was signed, in the smallest unit.
    pub amount: u64,
    /// Unix seconds: it can be settled after the one and before the other.
    pub valid_after: u64,
    pub valid_before: u64,
    pub flaw: Option<Flaw>,
    /// Signed by a smart wallet: nobody but the facilitator knows whether it is good. `false`: it is not.
    pub smart: Option<bool>,
    pub header: &'static str,
    pub value: Vec<u8>,
    /// Whether it may mean an offer that is settled up front: v2 payments say what they accept.
    pub accepts_upfront: bool,
    /// By what the facilitator knows it again: the signature, or the transaction.
    pub proof: String,
    /// What its payer calls it.
    pub name: Option<String>,
    /// The first payment that was signed, and is called, so: what tells payments apart.
    pub first: usize,
}

impl Payment {
    /// Why it can be refused on a route at a time (Unix seconds) without asking anybody.
    pub fn refusable(&self, route: &Route, quotes: Quotes, now: u64) -> Option<&'static str> {
        let short = route.meters(self.way) && self.valid_before.saturating_sub(now) < VALIDITY / 2;
        match self.flaw {
            Some(Flaw::Signature) => return Some("its signature is not the payer's"),
            Some(Flaw::Amount) => return Some("less was signed than is asked for"),
            Some(Flaw::Recipient) => return Some("somebody else would be paid"),
            Some(Flaw::Resource) => return Some(RESOURCE),
            Some(Flaw::Garbage) => return Some("it cannot be read"),
            None | Some(Flaw::Expired | Flaw::Early | Flaw::Long) => {}
        }
        if !route.ways.contains(&self.way) {
            return Some("it pays in a way that is not offered");
        }
        if !quotes.take(self.amount) {
            return Some(AMOUNT);
        }
        if route.flow == Flow::Upfront && !self.accepts_upfront {
            return Some("it accepts another offer");
        }
        if self.way == Way::Solana {
            return None;
        }
        if self.valid_before <= now + SKEW {
            return Some(EXPIRED);
        }
        if self.valid_after > now + SKEW {
            return Some("it is not valid yet");
        }
        if self.valid_before > now + LONGEST + SKEW {
            return Some("it is valid for too long");
        }
        short.then_some(SHORT)
    }
}

/// What a payment is made of.
pub struct Draft<'a> {
    pub payer: usize,
    pub route: usize,
    /// The price list of the challenge.
    pub list: usize,
    pub way: Way,
    pub flaw: Option<Flaw>,
    pub smart: Option<bool>,
    /// Unique for what it spends.
    pub nonce: u64,
    /// Unix seconds.
    pub now: u64,
    /// What its payer calls it.
    pub name: Option<String>,
    /// What the challenge accepts in this way.
    pub accepted: &'a Value,
}

struct Account3009 {
    payer: Payer,
    address: Address,
}

fn accounts() -> &'static [Account3009] {
    static ACCOUNTS: OnceLock<Vec<Account3009>> = OnceLock::new();
    ACCOUNTS.get_or_init(|| {
        let payers = (1..=u8::try_from(PAYERS).unwrap() + 1).map(Payer::new);
        payers
            .map(|payer| Account3009 {
                address: payer.address(),
                payer,
            })
            .collect()
    })
}

/// The account as networks write it: on which routes' exposure is kept.
pub fn name(payer: usize) -> String {
    accounts()[payer].address.to_string()
}

/// The claim on what a draft spends.
pub fn claim(draft: &Draft<'_>) -> ClaimKey {
    let owner = Account(accounts()[draft.payer].address.into_array());
    let (token, nonce) = (Account(USDC.into_array()), Nonce(number(draft.nonce).0));
    let network = "eip155:84532";
    match draft.way {
        Way::Eip3009 => ClaimKey::eip3009(&SECRET, network, &token, &owner, &nonce),
        Way::Permit => ClaimKey::eip2612(&SECRET, network, &token, &owner, &nonce),
        Way::Permit2 | Way::Token | Way::Upto => ClaimKey::permit2(&SECRET, network, &owner, &Number::from(u128::from(draft.nonce))),
        Way::Solana => {
            let transaction = solana::transaction(payer_key(draft), SELLER_TOKENS, asked(draft), draft.nonce);
            let message = &transaction[solana::MESSAGE_AT..];
            ClaimKey::solana(&SECRET, SOLANA, &alloy_primitives::keccak256(message).0)
        }
    }
}

const SELLER_TOKENS: [u8; 32] = [0x5e; 32];

fn payer_key(draft: &Draft<'_>) -> [u8; 32] {
    [u8::try_from(draft.payer).unwrap() + 1; 32]
}

fn number(nonce: u64) -> B256 {
    B256::from(U256::from(nonce))
}

fn asked(draft: &Draft<'_>) -> u64 {
    let quote = ROUTES[draft.route].quote(draft.list);
    if draft.flaw == Some(Flaw::Amount) { quote - 1 } else { quote }
}

/// Signs a payment. `spend`: what it spends.
pub fn sign(draft: &Draft<'_>, spend: usize, random: &Random) -> Payment {
    let validity = match draft.flaw {
        Some(Flaw::Expired) => random.below(SKEW),
        Some(Flaw::Long) => 3700,
        _ => VALIDITY,
    };
    let validity = if draft.way == Way::Solana { BLOCKHASH } else { validity };
    let terms = Terms {
        to: if draft.flaw == Some(Flaw::Recipient) { SPENDER } else { SELLER },
        value: asked(draft),
        valid_after: if draft.flaw == Some(Flaw::Early) {
            draft.now + SKEW + 60
        } else {
            draft.now - 600
        },
        valid_before: draft.now + validity,
        nonce: number(draft.nonce),
        domain: usdc_domain(),
    };
    let signer = match draft.flaw {
        Some(Flaw::Signature) => PAYERS,
        _ => draft.payer,
    };
    let mut payload = match draft.way {
        Way::Eip3009 => eip3009(draft, signer, &terms),
        Way::Permit2 | Way::Token | Way::Upto => permit2(draft, signer, &terms),
        Way::Permit => permit(draft, signer, &terms),
        Way::Solana => {
            let transaction = solana::transaction(payer_key(draft), SELLER_TOKENS, terms.value, draft.nonce);
            json!({"transaction": solana::encode(&transaction)})
        }
    };
    if draft.smart.is_some() {
        payload["signature"] = format!("0x{}{}", hex::encode(random.bytes::<64>()), hex::encode(random.bytes::<64>())).into();
    }
    let proof = ["signature", "transaction"].iter().find_map(|name| payload[*name].as_str());
    let proof = proof.unwrap().to_owned();
    let (header, value) = sent(draft, payload, random);
    Payment {
        spend,
        payer: draft.payer,
        way: draft.way,
        amount: terms.value,
        valid_after: terms.valid_after,
        valid_before: terms.valid_before,
        flaw: draft.flaw,
        smart: draft.smart,
        accepts_upfront: header == "x-payment" || ROUTES[draft.route].flow == Flow::Upfront,
        header,
        value,
        proof,
        name: draft.name.clone().filter(|_| header == "payment-signature"),
        first: 0,
    }
}

/// The header in which a payment travels.
fn sent(draft: &Draft<'_>, payload: Value, random: &Random) -> (&'static str, Vec<u8>) {
    if draft.flaw == Some(Flaw::Garbage) {
        return ("payment-signature", b"bm90IGEgcGF5bWVudA==".to_vec());
    }
    match draft.way {
        Way::Permit => {
            let payment = json!({"x402Version": 2, "scheme": "upto", "network": "eip155:84532", "payload": payload});
            ("x-payment", payment.to_string().into_bytes())
        }
        Way::Eip3009 if draft.flaw != Some(Flaw::Resource) && random.chance(250) => ("x-payment", base64(&v1(payload))),
        _ => {
            let mut payment = v2(draft.accepted, payload);
            if let Some(name) = &draft.name {
                payment["extensions"] = json!({"payment-identifier": {"info": {"required": false, "id": name}}});
            }
            if draft.flaw == Some(Flaw::Resource) {
                payment["resource"] = json!({"url": format!("https://{HOST}/elsewhere")});
            }
            ("payment-signature", base64(&payment))
        }
    }
}

fn eip3009(draft: &Draft<'_>, signer: usize, terms: &Terms) -> Value {
    let signed = terms.payload(&accounts()[signer].payer);
    let mut payload = signed;
    payload["authorization"]["from"] = name(draft.payer).into();
    payload
}

fn permit(draft: &Draft<'_>, signer: usize, terms: &Terms) -> Value {
    let (owner, nonce) = (accounts()[draft.payer].address, U256::from(draft.nonce));
    let message = super::support::Permit {
        owner,
        spender: SPENDER,
        value: U256::from(terms.value),
        nonce,
        deadline: U256::from(terms.valid_before),
    };
    json!({
        "signature": accounts()[signer].payer.sign(message.eip712_signing_hash(&terms.domain)),
        "authorization": {
            "from": owner.to_string(), "to": SPENDER.to_string(), "value": terms.value.to_string(),
            "validAfter": terms.valid_after.to_string(), "validBefore": terms.valid_before.to_string(), "nonce": terms.nonce.to_string(),
        },
    })
}

fn permit2(draft: &Draft<'_>, signer: usize, terms: &Terms) -> Value {
    let domain = eip712_domain! { name: "Permit2", chain_id: 84532, verifying_contract: PERMIT2, };
    let (amount, nonce, deadline) = (U256::from(terms.value), U256::from(draft.nonce), U256::from(terms.valid_before));
    let valid_after = U256::from(terms.valid_after);
    let token = if draft.way == Way::Token { TUSD } else { USDC };
    let mut witness = json!({"to": terms.to.to_string(), "validAfter": terms.valid_after.to_string()});
    let (digest, spender) = if draft.way == Way::Upto {
        let settler = draft.accepted["extra"]["facilitatorAddress"].as_str().unwrap_or(shop::SETTLERS[0]);
        witness["facilitator"] = settler.into();
        let message = upto::PermitWitnessTransferFrom {
            permitted: upto::TokenPermissions { token, amount },
            spender: UPTO_PROXY,
            nonce,
            deadline,
            witness: upto::Witness {
                to: terms.to,
                facilitator: settler.parse().unwrap(),
                validAfter: valid_after,
            },
        };
        (message.eip712_signing_hash(&domain), UPTO_PROXY)
    } else {
        let message = exact::PermitWitnessTransferFrom {
            permitted: exact::TokenPermissions { token, amount },
            spender: EXACT_PROXY,
            nonce,
            deadline,
            witness: exact::Witness {
                to: terms.to,
                validAfter: valid_after,
            },
        };
        (message.eip712_signing_hash(&domain), EXACT_PROXY)
    };
    json!({
        "signature": accounts()[signer].payer.sign(digest),
        "permit2Authorization": {
            "from": name(draft.payer), "permitted": {"token": token.to_string(), "amount": terms.value.to_string()},
            "spender": spender.to_string(), "nonce": draft.nonce.to_string(), "deadline": terms.valid_before.to_string(), "witness": witness,
        },
    })
}
