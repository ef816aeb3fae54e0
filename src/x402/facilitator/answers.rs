//! What `/verify` and `/settle` answered.

use crate::x402::Refusal;

/// What `/verify` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verify {
    /// The payment can be settled.
    Valid {
        /// The account that pays, if the facilitator named it.
        payer: Option<String>,
    },
    /// The payment is at fault.
    Refused {
        /// The facilitator's `invalidReason`, cleaned: `error` in the answer to the client.
        reason: String,
        /// Status, code and metric for it.
        refusal: Refusal,
    },
    /// No verdict: the facilitator is at fault, and the payment is not.
    Unusable {
        /// For the log, cleaned.
        why: String,
    },
}

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
