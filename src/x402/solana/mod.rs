//! Solana: what the message of an `exact` payment shows of itself.
//!
//! Checks shape, fee payer, token and amount as far as the message shows them. That the destination is the seller's token account
//! takes the curve to tell, signatures take ed25519, and lookup tables the chain: all that is the facilitator's.
//! Source: x402 `scheme_exact_svm`; Solana's transaction format (legacy and version 0).

mod message;

use super::Refusal;
use crate::evm::keccak256;
use crate::pricing::Offer;
use message::{Instruction, Transaction};

/// The longest transaction that Solana takes, in bytes.
pub const MAX_TRANSACTION: usize = 1232;

const TOKEN: &str = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
const TOKEN_2022: &str = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb";
/// Programs besides the token programs that pay nobody: with these alone and no transfer, nothing is paid.
const BYSTANDERS: [&str; 4] = [
    "ComputeBudget111111111111111111111111111111",
    "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
    "L2TExMFKdjpN9kozasaurPirfHy9P8sbXoAN1qA3S95",
    "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
];
/// The system program, whose `AdvanceNonceAccount` makes a transaction that never runs out: no claim could be held for as long.
const SYSTEM: &str = "11111111111111111111111111111111";
const ADVANCE_NONCE_ACCOUNT: [u8; 4] = [4, 0, 0, 0];
/// The instruction of both token programs that x402 uses.
const TRANSFER_CHECKED: u8 = 12;

/// What a transaction shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SolanaFacts {
    /// Keccak-256 of the message without signatures: the same transaction has the same, whoever has signed it so far.
    pub message_hash: [u8; 32],
    /// Whose tokens move, in base58; `None` where a program that is not known here moves them (a smart wallet).
    pub payer: Option<Box<str>>,
}

/// Checks a transaction, as decoded from the payload, against the offer it is to pay.
///
/// `fee_payer` is `extra.feePayer` of the offer, in base58.
///
/// # Errors
///
/// [`Refusal::InvalidSolanaTransaction`] for what is no such transaction, [`Refusal::TokenMismatch`], [`Refusal::ValueMismatch`] (more
/// than the amount too), and [`Refusal::InvalidSignature`] where the payer has not signed.
pub fn check(transaction: &[u8], offer: &Offer, fee_payer: &str) -> Result<SolanaFacts, Refusal> {
    const INVALID: Refusal = Refusal::InvalidSolanaTransaction;
    let transaction = Transaction::read(transaction).ok_or(INVALID)?;
    if transaction.key(0).as_deref() != Some(fee_payer) {
        return Err(INVALID);
    }
    let is_durable = |instruction: &Instruction<'_>| {
        let program = transaction.key(instruction.program);
        program.is_some_and(|program| *program == *SYSTEM) && instruction.data.starts_with(&ADVANCE_NONCE_ACCOUNT)
    };
    if transaction.instructions.iter().any(is_durable) {
        return Err(INVALID);
    }
    let message_hash = keccak256(transaction.message);
    let mut transfers = transaction
        .instructions
        .iter()
        .filter(|instruction| is_token(&transaction, instruction));
    let Some(transfer) = transfers.next() else {
        let known = |instruction: &Instruction<'_>| {
            let program = transaction.key(instruction.program);
            program.is_some_and(|program| BYSTANDERS.contains(&&*program))
        };
        // Whether a program that is not known here pays the seller, only a simulation tells.
        return if transaction.instructions.iter().all(known) {
            Err(INVALID)
        } else {
            Ok(SolanaFacts { message_hash, payer: None })
        };
    };
    if transfers.next().is_some() {
        return Err(INVALID);
    }
    let (amount, decimals) = transfer_checked(transfer.data).ok_or(INVALID)?;
    let [source, mint, _destination, authority, ..] = transfer.accounts else {
        return Err(INVALID);
    };
    // A lookup table may hide the mint: then it is not ours to check.
    if transaction.key(*mint).is_some_and(|mint| *mint != *offer.asset.address) || decimals != offer.asset.decimals {
        return Err(Refusal::TokenMismatch);
    }
    if u128::from(amount) != offer.amount.0 {
        return Err(Refusal::ValueMismatch);
    }
    if *authority == 0 || *source == 0 {
        return Err(INVALID);
    }
    // Signers are never in a lookup table.
    let payer = transaction.key(*authority).ok_or(INVALID)?;
    match transaction.signature(*authority) {
        Some(signature) if signature.iter().any(|byte| *byte != 0) => Ok(SolanaFacts {
            message_hash,
            payer: Some(payer.into()),
        }),
        _ => Err(Refusal::InvalidSignature),
    }
}

fn is_token(transaction: &Transaction<'_>, instruction: &Instruction<'_>) -> bool {
    let program = transaction.key(instruction.program);
    program.is_some_and(|program| *program == *TOKEN || *program == *TOKEN_2022)
}

/// Amount in the smallest unit, and decimals.
fn transfer_checked(data: &[u8]) -> Option<(u64, u8)> {
    let (kind, rest) = data.split_first()?;
    let (amount, rest) = rest.split_first_chunk::<8>()?;
    match (*kind, rest) {
        (TRANSFER_CHECKED, [decimals]) => Some((u64::from_le_bytes(*amount), *decimals)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::{Atomic, PayTo, Scheme, Transfer};
    use crate::x402::dialect::base64;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Made with solders, the Python binding of Solana's own Rust crates.
    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../tests/wire/solana.json")).unwrap()
    }

    fn offer(vectors: &Value) -> Offer {
        let mut offer = crate::x402::recorded::offer("eip155:8453", Scheme::Exact, Transfer::Solana, 1000);
        offer.asset.address = vectors["mint"].as_str().unwrap().into();
        offer.pay_to = PayTo::Solana(vectors["seller"].as_str().unwrap().into());
        offer
    }

    #[test]
    fn transfers_are_told_from_what_is_none() {
        let vectors = vectors();
        let fee_payer = vectors["fee_payer"].as_str().unwrap();
        for vector in vectors["vectors"].as_array().unwrap() {
            let bytes = base64(vector["transaction"].as_str().unwrap()).unwrap();
            let outcome = check(&bytes, &offer(&vectors), fee_payer);
            let name = vector["name"].as_str().unwrap();
            assert_eq!(outcome.is_ok(), vector["ok"].as_bool().unwrap(), "{name} {outcome:?}");
            if let Ok(facts) = outcome {
                let at = usize::try_from(vector["message_at"].as_u64().unwrap()).unwrap();
                assert_eq!(facts.message_hash, keccak256(&bytes[at..]), "{name}");
                assert_eq!(facts.payer.as_deref(), vectors["payer"].as_str(), "{name}");
            }
        }
    }

    #[test]
    fn amount_token_and_signature_are_named() {
        let vectors = vectors();
        let fee_payer = vectors["fee_payer"].as_str().unwrap();
        let bytes = base64(vectors["vectors"][0]["transaction"].as_str().unwrap()).unwrap();
        let mut other = offer(&vectors);
        other.amount = Atomic(999);
        assert_eq!(check(&bytes, &other, fee_payer), Err(Refusal::ValueMismatch));
        let mut other = offer(&vectors);
        other.asset.address = fee_payer.into();
        assert_eq!(check(&bytes, &other, fee_payer), Err(Refusal::TokenMismatch));
        // Two signatures: the fee payer's, still empty, and the payer's.
        let mut unsigned = bytes.clone();
        unsigned[65..129].fill(0);
        assert_eq!(check(&unsigned, &offer(&vectors), fee_payer), Err(Refusal::InvalidSignature));
        // Neither signatures nor what follows the message make it another payment.
        let mut signed = bytes.clone();
        signed[1..65].fill(7);
        let hash = |bytes: &[u8]| check(bytes, &offer(&vectors), fee_payer).map(|facts| facts.message_hash);
        assert_eq!(hash(&signed), hash(&bytes));
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(hash(&longer), Err(Refusal::InvalidSolanaTransaction));
    }

    proptest! {
        #[test]
        fn nothing_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0_usize..4, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let vectors = vectors();
            let fee_payer = vectors["fee_payer"].as_str().unwrap();
            let mut bytes = base64(vectors["vectors"][which]["transaction"].as_str().unwrap()).unwrap();
            *at.get_mut(&mut bytes) = byte;
            let _ = check(&bytes, &offer(&vectors), fee_payer);
            bytes.truncate(at.index(bytes.len()));
            prop_assert!(check(&bytes, &offer(&vectors), fee_payer).is_err());
            let _ = check(&noise, &offer(&vectors), fee_payer);
        }
    }
}
