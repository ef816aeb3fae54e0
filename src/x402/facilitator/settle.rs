//! What `/settle` answered.

use super::answers::{identifier, object, text};
use super::reasons::{Meaning, classify, told};
use crate::json::{Json, Object};
use crate::x402::{Network, Refusal, clean};

/// A settlement that happened.
///
/// ```json
/// {"success": true, "payer": "0x3C44…", "transaction": "0xd674…", "network": "eip155:84532", "amount": "1234"}
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Transaction hash or signature; empty only where `upto` settled an amount of 0.
    pub transaction: String,
    /// The account that paid, if the facilitator named it.
    pub payer: Option<String>,
    /// What was paid, in the token's smallest unit, if the facilitator named it.
    pub amount: Option<String>,
}

/// What `/settle` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settle {
    /// The money has moved.
    Settled(Settled),
    /// The money has not moved and will not: the payment is at fault, for certain.
    Refused {
        /// The facilitator's `errorReason`, cleaned.
        reason: String,
        /// Status, code and metric for it.
        refusal: Refusal,
        /// The transaction that was reverted, if one was named.
        transaction: Option<String>,
    },
    /// The nonce has been used: by this settlement, by an earlier attempt at it, or by somebody else.
    NonceUsed {
        /// The facilitator's `errorReason`, cleaned.
        reason: String,
        /// The transaction, if one was named.
        transaction: Option<String>,
    },
    /// The money may have moved, or may yet.
    Unknown {
        /// For the log, cleaned.
        why: String,
        /// The transaction, if one was named.
        transaction: Option<String>,
    },
}

/// Reads the answer to `/settle`, the body first, for a settlement on `network`.
///
/// `nothing_due` says that `upto` settles an amount of 0, which needs no transaction. A refusal is certain for this attempt only:
/// after an earlier attempt without an answer, the money may have moved all the same.
///
/// Source: DESIGN §5, "What each end means".
pub fn parse_settle(status: u16, body: &[u8], network: &Network, nothing_due: bool) -> Settle {
    let unknown = |why: String, transaction| Settle::Unknown {
        why: clean(&why),
        transaction,
    };
    let Some(fields) = object(body) else {
        return unknown(format!("status {status} without an outcome"), None);
    };
    let transaction = identifier(&fields, "transaction").filter(|transaction| !is_nothing(transaction));
    let said = fields.get("success").or_else(|| fields.get("isValid")).and_then(Json::truth);
    let reason = [text(&fields, "errorReason"), text(&fields, "invalidReason")]
        .into_iter()
        .find(|text| !text.is_empty());
    let reason = reason.unwrap_or_default();
    let message = [text(&fields, "errorMessage"), text(&fields, "invalidMessage")].join(" ");
    match said {
        Some(true) if !fields.contains_key("success") => unknown(format!("status {status} without an outcome"), transaction),
        Some(true) if !same_network(&fields, network) => unknown("settled on another network".to_owned(), transaction),
        Some(true) => match (transaction, nothing_due) {
            (None, false) => unknown("success without a transaction".to_owned(), None),
            (transaction, _) => Settle::Settled(Settled {
                transaction: transaction.unwrap_or_default(),
                payer: identifier(&fields, "payer"),
                amount: identifier(&fields, "amount").filter(|amount| amount.bytes().all(|byte| byte.is_ascii_digit())),
            }),
        },
        Some(false) => {
            let refused = |refusal, transaction| Settle::Refused {
                reason: told(reason, refusal),
                refusal,
                transaction,
            };
            match (classify(reason, &message), transaction) {
                (Some(Meaning::Fault(refusal)), transaction) => refused(refusal, transaction),
                (Some(Meaning::Transaction), Some(named)) => refused(Refusal::FacilitatorRefused, Some(named)),
                (Some(Meaning::NonceUsed), transaction) => Settle::NonceUsed {
                    reason: clean(reason),
                    transaction,
                },
                (_, None) if reverted(&message).is_some() => refused(Refusal::FacilitatorRefused, reverted(&message)),
                (_, transaction) => unknown(format!("status {status} {reason} {message}"), transaction),
            }
        }
        None => unknown(format!("status {status} without an outcome"), transaction),
    }
}

/// `0x` or `0x000…`: what some signers give in place of a hash.
fn is_nothing(transaction: &str) -> bool {
    transaction
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|digit| digit == b'0'))
}

/// The transaction that a message calls reverted: x402-rs names it there alone.
///
/// ```text
/// Onchain error: Transaction 0xd67424eed7c7dfe6c7cca7bf56a5a3a94e00159d7eff19bc3515acbb4c14f8dd reverted
/// ```
fn reverted(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Transaction 0x")?;
    let digits = rest.trim_end().strip_suffix(" reverted")?;
    (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| format!("0x{digits}"))
}

/// A network that is not named is taken to be the one that was asked for.
fn same_network(fields: &Object<'_>, network: &Network) -> bool {
    let named = text(fields, "network");
    named.is_empty() || Network::parse_v1(named).is_ok_and(|named| named == *network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSACTION: &str = "0xd67424eed7c7dfe6c7cca7bf56a5a3a94e00159d7eff19bc3515acbb4c14f8dd";

    fn base() -> Network {
        Network::parse("eip155:8453").unwrap()
    }

    fn settle(body: &str) -> Settle {
        parse_settle(200, body.as_bytes(), &base(), false)
    }

    fn failed(reason: &str, transaction: &str) -> Settle {
        settle(&format!(
            r#"{{"success":false,"errorReason":"{reason}","transaction":"{transaction}","network":"base"}}"#
        ))
    }

    #[test]
    fn success_needs_a_transaction_on_the_network() {
        let body = format!(r#"{{"success":true,"transaction":"{TRANSACTION}","network":"base","amount":"1234"}}"#);
        let expected = Settled {
            transaction: TRANSACTION.to_owned(),
            payer: None,
            amount: Some("1234".to_owned()),
        };
        assert_eq!(settle(&body), Settle::Settled(expected));
        let nothing = r#"{"success":true,"transaction":"","network":"eip155:8453","amount":"0"}"#;
        assert!(matches!(settle(nothing), Settle::Unknown { .. }));
        assert!(matches!(parse_settle(200, nothing.as_bytes(), &base(), true), Settle::Settled(_)));
        let elsewhere = format!(r#"{{"success":true,"transaction":"{TRANSACTION}","network":"base-sepolia"}}"#);
        assert!(matches!(settle(&elsewhere), Settle::Unknown { transaction: Some(_), .. }));
        let zero = format!(r#"{{"success":true,"transaction":"0x{}"}}"#, "0".repeat(64));
        assert!(matches!(settle(&zero), Settle::Unknown { .. }));
    }

    #[test]
    fn refused_is_only_what_is_certain() {
        for reason in [
            "insufficient_funds",
            "invalid_exact_evm_payload_signature",
            "permit2_allowance_required",
            "unsupported_scheme",
        ] {
            assert!(matches!(failed(reason, ""), Settle::Refused { .. }), "{reason}");
        }
        for reason in [
            "transaction_failed",
            "invalid_exact_evm_transaction_failed",
            "invalid_transaction_state",
        ] {
            assert!(
                matches!(failed(reason, TRANSACTION), Settle::Refused { transaction: Some(_), .. }),
                "{reason}"
            );
            assert!(matches!(failed(reason, ""), Settle::Unknown { .. }), "{reason}");
        }
        let not_noted = format!(
            r#"{{"success":false,"errorReason":"transaction_failed","transaction":"{TRANSACTION}",
                "errorMessage":"settlement_pending, but failed to persist for retry: x"}}"#
        );
        assert!(matches!(settle(&not_noted), Settle::Unknown { transaction: Some(_), .. }));
        for reason in [
            "unexpected_settle_error",
            "settlement_pending",
            "",
            "out of coffee",
            "transaction_simulation_failed",
        ] {
            assert!(matches!(failed(reason, TRANSACTION), Settle::Unknown { .. }), "{reason}");
        }
        for reason in [
            "invalid_exact_evm_nonce_already_used",
            "permit2_invalid_nonce",
            "duplicate_settlement",
            "x: authorization is used",
        ] {
            assert!(matches!(failed(reason, ""), Settle::NonceUsed { .. }), "{reason}");
        }
        let told = |message: &str| {
            settle(&format!(
                r#"{{"success":false,"errorReason":"unexpected_error","errorMessage":"{message}","transaction":"","network":""}}"#
            ))
        };
        let expected = Settle::Refused {
            reason: "unexpected_error".to_owned(),
            refusal: Refusal::FacilitatorRefused,
            transaction: Some(TRANSACTION.to_owned()),
        };
        assert_eq!(told(&format!("Onchain error: Transaction {TRANSACTION} reverted")), expected);
        for message in [
            format!("Transaction {TRANSACTION} reverted or not"),
            format!("Transaction {TRANSACTION}00 reverted"),
            "Transaction 0x12 reverted".to_owned(),
            "Transaction reverted".to_owned(),
        ] {
            assert!(matches!(told(&message), Settle::Unknown { .. }), "{message}");
        }
        for body in ["", "null", "[]", "{}", r#"{"success":"false"}"#, r#"{"isValid":true}"#] {
            assert!(matches!(settle(body), Settle::Unknown { .. }), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 0_u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_settle(status, &body, &base(), false);
        }
    }
}
