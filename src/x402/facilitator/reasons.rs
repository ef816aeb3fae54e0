//! Reasons: what facilitators say of a payment, and what it means.
//!
//! Collected from the published packages: `@x402/core`, `@x402/evm` and `@x402/svm` 2.27.0, `x402` 1.2.0 (npm), `x402` 2.25.0 (PyPI),
//! `x402-types` 2.0.2 (Rust). What is not listed is no certain refusal of a settlement.

use crate::x402::{Refusal, clean};

/// What a reason means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// The payment is at fault, for certain.
    Fault(Refusal),
    /// The payment's nonce has been used, or the same settlement is under way: by whom, the reason does not say.
    NonceUsed,
    /// A transaction failed: for certain if it is named, else it may still be mined.
    Transaction,
    /// The facilitator could not tell.
    NoVerdict,
}

use Meaning::{Fault, NoVerdict, NonceUsed, Transaction};
use Refusal as R;

/// In alphabetical order.
const REASONS: &[(&str, Meaning)] = &[
    ("accepted_requirements_mismatch", Fault(R::NoMatchingRequirements)),
    ("asset_mismatch", Fault(R::InvalidAsset)),
    ("asset_not_deployed_contract", Fault(R::InvalidAsset)),
    ("chain_id_mismatch", Fault(R::InvalidNetwork)),
    ("duplicate_settlement", NonceUsed),
    ("eip6492_factory_not_allowed", Fault(R::InvalidSignature)),
    ("facilitator_mismatch", Fault(R::FacilitatorMismatch)),
    ("fee_payer_not_managed_by_facilitator", Fault(R::InvalidSolanaTransaction)),
    ("insufficient_balance", Fault(R::InsufficientFunds)),
    ("insufficient_funds", Fault(R::InsufficientFunds)),
    ("invalid_exact_evm_authorization_value", Fault(R::ValueMismatch)),
    ("invalid_exact_evm_eip3009_not_supported", Fault(R::TransferMethodNotOffered)),
    ("invalid_exact_evm_failed_to_get_asset_info", NoVerdict),
    ("invalid_exact_evm_failed_to_get_network_config", NoVerdict),
    ("invalid_exact_evm_failed_to_parse_signature", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_failed_to_verify_signature", NoVerdict),
    ("invalid_exact_evm_insufficient_balance", Fault(R::InsufficientFunds)),
    ("invalid_exact_evm_missing_eip712_domain", Fault(R::NoMatchingRequirements)),
    ("invalid_exact_evm_network_mismatch", Fault(R::InvalidNetwork)),
    ("invalid_exact_evm_nonce_already_used", NonceUsed),
    ("invalid_exact_evm_payload_authorization_valid_after", Fault(R::ValidAfter)),
    ("invalid_exact_evm_payload_authorization_valid_before", Fault(R::ValidBefore)),
    ("invalid_exact_evm_payload_authorization_value", Fault(R::ValueMismatch)),
    ("invalid_exact_evm_payload_authorization_value_mismatch", Fault(R::ValueMismatch)),
    ("invalid_exact_evm_payload_recipient_mismatch", Fault(R::RecipientMismatch)),
    ("invalid_exact_evm_payload_signature", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_payload_undeployed_smart_wallet", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_recipient_mismatch", Fault(R::RecipientMismatch)),
    ("invalid_exact_evm_scheme", Fault(R::UnsupportedScheme)),
    ("invalid_exact_evm_signature", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_token_name_mismatch", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_token_version_mismatch", Fault(R::InvalidSignature)),
    ("invalid_exact_evm_transaction_failed", Transaction),
    // Simulation fails as well where an earlier attempt has moved the money: a verdict for /verify alone.
    ("invalid_exact_evm_transaction_simulation_failed", NoVerdict),
    ("invalid_exact_evm_transfer_event_mismatch", NoVerdict),
    ("invalid_exact_svm_fee_payer_mismatch", Fault(R::InvalidSolanaTransaction)),
    (
        "invalid_exact_svm_fee_payer_not_managed_by_facilitator",
        Fault(R::InvalidSolanaTransaction),
    ),
    ("invalid_exact_svm_network_mismatch", Fault(R::InvalidNetwork)),
    ("invalid_exact_svm_payload_amount_insufficient", Fault(R::ValueMismatch)),
    ("invalid_exact_svm_payload_amount_mismatch", Fault(R::ValueMismatch)),
    ("invalid_exact_svm_payload_mint_mismatch", Fault(R::TokenMismatch)),
    ("invalid_exact_svm_payload_recipient_mismatch", Fault(R::RecipientMismatch)),
    ("invalid_exact_svm_payload_signature_invalid", Fault(R::InvalidSignature)),
    ("invalid_exact_svm_payload_transaction_amount_mismatch", Fault(R::ValueMismatch)),
    ("invalid_exact_svm_payload_transaction_simulation_failed", NoVerdict),
    (
        "invalid_exact_svm_payload_transaction_transfer_to_incorrect_ata",
        Fault(R::RecipientMismatch),
    ),
    ("invalid_exact_svm_smart_wallet_alt_resolution_failed", NoVerdict),
    ("invalid_exact_svm_smart_wallet_alt_resolution_not_available", NoVerdict),
    ("invalid_exact_svm_smart_wallet_simulation_failed", NoVerdict),
    ("invalid_exact_svm_transaction_failed", Transaction),
    ("invalid_exact_svm_transaction_simulation_failed", NoVerdict),
    ("invalid_exact_svm_unsupported_scheme", Fault(R::UnsupportedScheme)),
    ("invalid_exact_svm_verification_failed", NoVerdict),
    ("invalid_format", Fault(R::NoMatchingRequirements)),
    ("invalid_network", Fault(R::InvalidNetwork)),
    ("invalid_payload", Fault(R::FacilitatorRefused)),
    ("invalid_payment", Fault(R::FacilitatorRefused)),
    ("invalid_payment_amount", Fault(R::ValueMismatch)),
    ("invalid_payment_early", Fault(R::ValidAfter)),
    ("invalid_payment_expired", Fault(R::ValidBefore)),
    ("invalid_payment_requirements", Fault(R::NoMatchingRequirements)),
    ("invalid_permit2_amount", Fault(R::ValueMismatch)),
    ("invalid_permit2_destination", Fault(R::RecipientMismatch)),
    ("invalid_permit2_owner", Fault(R::InvalidSignature)),
    ("invalid_permit2_payload_format", Fault(R::FacilitatorRefused)),
    ("invalid_permit2_recipient_mismatch", Fault(R::RecipientMismatch)),
    ("invalid_permit2_signature", Fault(R::InvalidSignature)),
    ("invalid_permit2_spender", Fault(R::SpenderMismatch)),
    ("invalid_scheme", Fault(R::UnsupportedScheme)),
    ("invalid_signature", Fault(R::InvalidSignature)),
    ("invalid_transaction_state", Transaction),
    ("invalid_upto_evm_failed_to_get_network_config", NoVerdict),
    ("invalid_upto_evm_network_mismatch", Fault(R::InvalidNetwork)),
    ("invalid_upto_evm_payload_settlement_exceeds_amount", Fault(R::ValueMismatch)),
    ("invalid_upto_evm_scheme", Fault(R::UnsupportedScheme)),
    ("invalid_upto_evm_transaction_failed", Transaction),
    ("invalid_x402_version", Fault(R::UnsupportedScheme)),
    // The ledger's, where the replicas share claims. No facilitator may mean something else by them: it could have moved the money.
    ("ledger_payment_in_use", Fault(R::PaymentInUse)),
    ("ledger_payment_pending", Fault(R::SettlementPending)),
    ("missing_eip712_domain", Fault(R::NoMatchingRequirements)),
    ("network_mismatch", Fault(R::InvalidNetwork)),
    ("nonce_already_used", NonceUsed),
    ("payment_expired", Fault(R::ValidBefore)),
    ("permit2_2612_amount_mismatch", Fault(R::ValueMismatch)),
    ("permit2_allowance_required", Fault(R::Permit2AllowanceRequired)),
    ("permit2_amount_mismatch", Fault(R::ValueMismatch)),
    ("permit2_deadline_expired", Fault(R::ValidBefore)),
    ("permit2_insufficient_balance", Fault(R::InsufficientFunds)),
    ("permit2_invalid_amount", Fault(R::ValueMismatch)),
    ("permit2_invalid_destination", Fault(R::RecipientMismatch)),
    ("permit2_invalid_nonce", NonceUsed),
    ("permit2_invalid_owner", Fault(R::InvalidSignature)),
    ("permit2_not_yet_valid", Fault(R::ValidAfter)),
    ("permit2_payment_too_early", Fault(R::ValidAfter)),
    ("permit2_proxy_not_deployed", Fault(R::TransferMethodNotOffered)),
    ("permit2_simulation_failed", NoVerdict),
    ("permit2_token_mismatch", Fault(R::TokenMismatch)),
    ("recipient_mismatch", Fault(R::RecipientMismatch)),
    ("settle_exact_svm_block_height_exceeded", NoVerdict),
    ("settle_exact_svm_transaction_confirmation_timed_out", NoVerdict),
    ("settlement_pending", NoVerdict),
    ("smart_wallet_deployment_failed", NoVerdict),
    ("transaction_failed", Transaction),
    ("transaction_simulation", NoVerdict),
    ("transaction_simulation_failed", NoVerdict),
    ("unexpected_error", NoVerdict),
    ("unexpected_settle_error", NoVerdict),
    ("unexpected_verify_error", NoVerdict),
    ("unknown_error", NoVerdict),
    ("unknown_settlement_error", NoVerdict),
    ("unsupported_asset_transfer_method", Fault(R::TransferMethodNotOffered)),
    ("unsupported_chain", Fault(R::InvalidNetwork)),
    ("unsupported_network", Fault(R::InvalidNetwork)),
    ("unsupported_payload_type", Fault(R::TransferMethodNotOffered)),
    ("unsupported_payment_flow", Fault(R::UnsupportedScheme)),
    ("unsupported_scheme", Fault(R::UnsupportedScheme)),
    ("unsupported_version", Fault(R::UnsupportedScheme)),
    ("upto_amount_exceeds_permitted", Fault(R::ValueMismatch)),
    ("upto_facilitator_mismatch", Fault(R::FacilitatorMismatch)),
    ("upto_unauthorized_facilitator", Fault(R::FacilitatorMismatch)),
];

/// What clients are told of a refusal: the facilitator's word, but not the ledger's, which are between it and the filter.
pub(super) fn told(reason: &str, refusal: Refusal) -> String {
    match refusal {
        R::PaymentInUse | R::SettlementPending => refusal.row().reason.to_owned(),
        _ => clean(reason),
    }
}

/// What is found in a Solana transaction before it is sent.
const SVM_PREFIXES: [&str; 2] = ["invalid_exact_svm_payload", "invalid_exact_svm_smart_wallet_"];

/// What a reason means: a listed one, alone or followed by a colon and details. `None` for all others.
///
/// `message` is the text that facilitators send beside the reason; it counts where it says that a transaction is still pending, that the
/// nonce is used, or that Permit2 could not take the money.
///
/// ```
/// use x402_envoy::x402::facilitator::{Meaning, classify};
/// assert_eq!(classify("transaction_failed: replacement transaction underpriced", ""), Some(Meaning::Transaction));
/// assert_eq!(classify("transaction_failed", "settlement_pending, but failed to persist for retry"), Some(Meaning::NoVerdict));
/// assert_eq!(classify("FiatTokenV2: authorization is used or canceled", ""), Some(Meaning::NonceUsed));
/// assert_eq!(classify("out of coffee", ""), None);
/// ```
pub fn classify(reason: &str, message: &str) -> Option<Meaning> {
    let listed = listed(reason);
    if matches!(listed, Some(Fault(_))) {
        return listed;
    }
    // First of all: the official facilitators call a transaction failed that is pending, where they could not note that it is.
    if says_pending(message) {
        return Some(NoVerdict);
    }
    if says_used(reason) || says_used(message) {
        return Some(NonceUsed);
    }
    if says_not_taken(reason) || says_not_taken(message) {
        return Some(Fault(R::InsufficientFunds));
    }
    listed
}

/// Whether a reason, though it is given as a verdict, only says that the facilitator failed.
pub(super) fn is_failure_of_facilitator(reason: &str, message: &str) -> bool {
    // A refused simulation is a verdict on the payment, unless the node was not reached; so is what the chain itself has refused.
    let tried_out = |text: &str| text.contains("simulation") || text.contains("execution reverted");
    let undecided = matches!(classify(reason, message), Some(NoVerdict)) && !tried_out(reason) && !tried_out(message);
    undecided || says_unreachable(reason) || says_unreachable(message)
}

fn listed(reason: &str) -> Option<Meaning> {
    let head = reason.split(':').next().unwrap_or_default().trim();
    match REASONS.binary_search_by_key(&head, |(reason, _)| reason) {
        Ok(index) => REASONS.get(index).map(|(_, meaning)| *meaning),
        // Some fifty ways for a transaction to be another one than was asked for.
        Err(_) if SVM_PREFIXES.iter().any(|prefix| head.starts_with(prefix)) => Some(Fault(R::InvalidSolanaTransaction)),
        Err(_) => None,
    }
}

fn says_pending(message: &str) -> bool {
    message.trim_start().starts_with("settlement_pending")
}

fn says_used(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["authorization is used", "nonce_already_used", "nonce already used", "invalidnonce"]
        .iter()
        .any(|phrase| text.contains(phrase))
        || names_error(&text, INVALID_NONCE)
}

/// Permit2's `InvalidNonce()`, as those show it who do not know its name.
const INVALID_NONCE: &str = "0x756688fe";

/// Whether a text has a contract's error by its selector: alone, and not as the beginning of longer data.
fn names_error(text: &str, selector: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric())
        .any(|word| word == selector)
}

/// What Permit2 reverts with if the balance or the allowance does not suffice. Facilitators say so of what they have tried out, before they
/// send anything.
fn says_not_taken(text: &str) -> bool {
    text.contains("TRANSFER_FROM_FAILED")
}

fn says_unreachable(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "http request failed",
        "fetch failed",
        "econnrefused",
        "connection refused",
        "timed out",
        "too many requests",
        "rate limit",
    ]
    .iter()
    .any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(REASONS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn codes_follow_the_kind_of_fault() {
        for (reason, code) in [
            ("insufficient_funds", "402.1"),
            ("invalid_exact_evm_insufficient_balance", "402.1"),
            ("permit2_amount_mismatch", "402.1"),
            ("invalid_exact_evm_payload_signature", "402.2"),
            ("asset_mismatch", "402.3"),
            ("chain_id_mismatch", "402.4"),
            (
                "transaction_failed: reverted with the following reason: TRANSFER_FROM_FAILED",
                "402.1",
            ),
            ("permit2_deadline_expired", "402.5"),
            ("permit2_allowance_required", "412"),
        ] {
            let Some(Fault(refusal)) = classify(reason, "") else {
                panic!("{reason}")
            };
            assert_eq!(refusal.row().code, code, "{reason}");
        }
    }

    #[test]
    fn a_used_nonce_is_known_by_what_contracts_say() {
        for (reason, message) in [
            (
                "unexpected_error",
                "execution reverted: FiatTokenV2: authorization is used or canceled",
            ),
            (
                "unexpected_error",
                "execution reverted: custom error 0x756688fe, data: \"0x756688fe\"",
            ),
            (
                "transaction_failed: reverted with the following signature:\n0x756688fe\n\nUnable",
                "",
            ),
        ] {
            assert_eq!(classify(reason, message), Some(NonceUsed), "{reason} {message}");
        }
        assert_eq!(classify("transaction_failed: data 0x756688fe00", ""), Some(Transaction));
    }

    #[test]
    fn nobody_is_answered_400_for_what_a_facilitator_says() {
        for (reason, meaning) in REASONS {
            if let Fault(refusal) = meaning {
                // The ledger's are what other requests make of a payment.
                let of_ledger = reason.starts_with("ledger_");
                let expected = if of_ledger { [409, 503] } else { [402, 412] };
                assert!(expected.contains(&refusal.row().status), "{reason}");
            }
        }
    }
}
