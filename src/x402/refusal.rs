//! Why a request is not served: one table from each refusal to status, x402 reason, 402.x code and metric label.

/// Why a request is refused before or instead of being served.
///
/// Source of the reasons: x402 specification, "Error codes", and the official packages (2.27); the others are this project's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// No payment was sent.
    PaymentRequired,
    /// A payment header cannot be read.
    InvalidPayload,
    /// `x402Version` is neither 1 nor 2.
    InvalidVersion,
    /// The scheme is not offered.
    UnsupportedScheme,
    /// The network is not offered.
    InvalidNetwork,
    /// The token is not offered.
    InvalidAsset,
    /// `accepted` is none of the offers, though scheme, network and asset are.
    NoMatchingRequirements,
    /// The transfer method is not the offer's.
    TransferMethodNotOffered,
    /// The amount is not the quote's (below it, or above it with `exact`).
    ValueMismatch,
    /// The payer does not have the money.
    InsufficientFunds,
    /// The money would go to somebody else.
    RecipientMismatch,
    /// The spender is not the scheme's proxy (Permit2) or the configured one (EIP-2612).
    SpenderMismatch,
    /// The Permit2 witness names another facilitator.
    FacilitatorMismatch,
    /// The signed token is not the offer's.
    TokenMismatch,
    /// Not valid yet.
    ValidAfter,
    /// Expired, or too close to it.
    ValidBefore,
    /// Valid for longer than `pre_check.max_validity`.
    ValidityTooLong,
    /// The signature is not the payer's, or not canonical.
    InvalidSignature,
    /// A smart wallet's signature, refused by `pre_check.smart_wallets`.
    SmartWalletRefused,
    /// A Solana transaction that is not the offer's transfer.
    InvalidSolanaTransaction,
    /// The payment was made for another resource.
    ResourceMismatch,
    /// The payment has been spent.
    NonceAlreadyUsed,
    /// The payment is being used by another request.
    PaymentInUse,
    /// The settlement's outcome is unknown: the same payment is to be sent again.
    SettlementPending,
    /// The store of claims is full or contended.
    ClaimsUnavailable,
    /// Too much has been delivered, to this payer or to all, that is not settled yet.
    ExposureExceeded,
    /// The payer had an answer that could not be settled.
    PayerBanned,
    /// The payer has asked for too much lately.
    PayerLimitExceeded,
    /// The payment has no identifier, and one is required.
    IdentifierRequired,
    /// The payment's identifier was given to another payment, or to one for another request.
    IdentifierConflict,
    /// The payment repeats an extension otherwise than it was advertised.
    ExtensionEchoMismatch,
    /// No facilitator can be reached, or none answers sensibly.
    FacilitatorUnavailable,
    /// The facilitator refused the payment; its reason travels beside this.
    FacilitatorRefused,
    /// The facilitator says that Permit2 has no allowance yet.
    Permit2AllowanceRequired,
    /// No offer can be made yet, because facts of the facilitator are not known yet.
    OffersNotReady,
    /// The path has more than one reading.
    AmbiguousPath,
    /// Host, path and method are priced but a model, header or body condition failed.
    RouteConditionFailed,
    /// The route needs the body and it cannot be read (encoded, not JSON, duplicate keys).
    UnreadableBody,
    /// The route needs the body and the reader is not in the filter chain.
    ReaderMissing,
    /// No route matches and `unmatched: deny`.
    NoRoute,
    /// The ledger cannot be reached, or does not answer sensibly.
    LedgerUnavailable,
    /// Upgrade or CONNECT on a priced route.
    UpgradeNotPayable,
    /// An internal redirect of a request that was let through for money.
    InternalRedirect,
    /// An answer below 400 on a priced route that the backend did not give, or that is none (1xx).
    AnswerNotSold,
    /// The backend answered before the verdict: the plugin is configured as only the reader's may be.
    GateMisconfigured,
}

/// What a refusal looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// HTTP status.
    pub status: u16,
    /// The x402 reason: `error` in the answer.
    pub reason: &'static str,
    /// The plain error code: `402` to `402.5`; for other statuses, the status.
    pub code: &'static str,
    /// What a person should know and do.
    pub message: &'static str,
}

impl Refusal {
    /// Every refusal, in the order of the declaration: what the table in docs/OPERATIONS.md is held against.
    pub const ALL: &[Self] = &[
        Self::PaymentRequired,
        Self::InvalidPayload,
        Self::InvalidVersion,
        Self::UnsupportedScheme,
        Self::InvalidNetwork,
        Self::InvalidAsset,
        Self::NoMatchingRequirements,
        Self::TransferMethodNotOffered,
        Self::ValueMismatch,
        Self::InsufficientFunds,
        Self::RecipientMismatch,
        Self::SpenderMismatch,
        Self::FacilitatorMismatch,
        Self::TokenMismatch,
        Self::ValidAfter,
        Self::ValidBefore,
        Self::ValidityTooLong,
        Self::InvalidSignature,
        Self::SmartWalletRefused,
        Self::InvalidSolanaTransaction,
        Self::ResourceMismatch,
        Self::NonceAlreadyUsed,
        Self::PaymentInUse,
        Self::SettlementPending,
        Self::ClaimsUnavailable,
        Self::ExposureExceeded,
        Self::PayerBanned,
        Self::PayerLimitExceeded,
        Self::IdentifierRequired,
        Self::IdentifierConflict,
        Self::ExtensionEchoMismatch,
        Self::FacilitatorUnavailable,
        Self::FacilitatorRefused,
        Self::Permit2AllowanceRequired,
        Self::OffersNotReady,
        Self::AmbiguousPath,
        Self::RouteConditionFailed,
        Self::UnreadableBody,
        Self::ReaderMissing,
        Self::NoRoute,
        Self::LedgerUnavailable,
        Self::UpgradeNotPayable,
        Self::InternalRedirect,
        Self::AnswerNotSold,
        Self::GateMisconfigured,
    ];

    /// Status, reason, code and message. The reason is also the metric's label.
    pub const fn row(self) -> Row {
        const fn row(status: u16, reason: &'static str, code: &'static str, message: &'static str) -> Row {
            Row {
                status,
                reason,
                code,
                message,
            }
        }
        match self {
            Self::PaymentRequired => row(
                402,
                "Payment required",
                "402",
                "pay with one of the offers in accepts and send the request again",
            ),
            Self::InvalidPayload => row(400, "invalid_payload", "400", "the payment header cannot be read"),
            Self::InvalidVersion => row(400, "invalid_x402_version", "400", "x402Version must be 1 or 2"),
            Self::UnsupportedScheme => row(402, "unsupported_scheme", "402", "the payment's scheme is not offered"),
            Self::InvalidNetwork => row(402, "invalid_network", "402.4", "the payment's network is not offered"),
            Self::InvalidAsset => row(402, "invalid_asset", "402.3", "the payment's asset is not offered"),
            Self::NoMatchingRequirements => row(
                402,
                "invalid_payment_requirements",
                "402",
                "what was accepted is not what is offered now: take the offers in this answer",
            ),
            Self::TransferMethodNotOffered => row(
                402,
                "unsupported_transfer_method",
                "402",
                "the payment moves the token in a way that is not offered",
            ),
            Self::ValueMismatch => row(
                402,
                "invalid_exact_evm_payload_authorization_value",
                "402.1",
                "the authorized amount is not the amount asked for",
            ),
            Self::InsufficientFunds => row(402, "insufficient_funds", "402.1", "the payer's balance is too low"),
            Self::RecipientMismatch => row(
                402,
                "invalid_exact_evm_payload_recipient_mismatch",
                "402.2",
                "the authorization pays somebody else",
            ),
            Self::SpenderMismatch => row(402, "invalid_permit2_spender", "402.2", "the permit names another spender"),
            Self::FacilitatorMismatch => row(402, "upto_facilitator_mismatch", "402.2", "the permit names another facilitator"),
            Self::TokenMismatch => row(402, "permit2_token_mismatch", "402.3", "the permit is for another token"),
            Self::ValidAfter => row(
                402,
                "invalid_exact_evm_payload_authorization_valid_after",
                "402.5",
                "the payment is not valid yet: check the client's clock",
            ),
            Self::ValidBefore => row(
                402,
                "invalid_exact_evm_payload_authorization_valid_before",
                "402.5",
                "the payment has expired or is about to",
            ),
            Self::ValidityTooLong => row(
                402,
                "validity_too_long",
                "402.5",
                "the payment is valid for longer than is accepted here",
            ),
            Self::InvalidSignature => row(
                402,
                "invalid_exact_evm_payload_signature",
                "402.2",
                "the signature is not the payer's: check chain id, and the token's EIP-712 name and version",
            ),
            Self::SmartWalletRefused => row(
                402,
                "smart_wallet_not_accepted",
                "402.2",
                "smart wallet signatures are not accepted here",
            ),
            Self::InvalidSolanaTransaction => row(
                402,
                "invalid_exact_svm_payload_transaction",
                "402.2",
                "the transaction is not the transfer that was asked for",
            ),
            Self::ResourceMismatch => row(402, "resource_mismatch", "402", "the payment was made for another resource"),
            Self::NonceAlreadyUsed => row(402, "nonce_already_used", "402", "this payment has been spent: make a new one"),
            Self::PaymentInUse => row(
                409,
                "payment_in_use",
                "409",
                "this payment is being used by another request: wait for its answer",
            ),
            Self::SettlementPending => row(
                503,
                "settlement_pending",
                "503",
                "the settlement's outcome is not known yet: send the same payment again, do not make another",
            ),
            Self::ClaimsUnavailable => row(
                503,
                "claims_unavailable",
                "503",
                "payments cannot be recorded right now: send the same payment again",
            ),
            Self::ExposureExceeded => row(
                429,
                "exposure_exceeded",
                "429",
                "too many answers are being paid for at once: let some end, then send the same payment again",
            ),
            Self::PayerBanned => row(
                429,
                "payer_banned",
                "429",
                "an earlier answer to this payer could not be settled: wait, and keep the balance and allowance that payments need",
            ),
            Self::PayerLimitExceeded => row(
                429,
                "payer_limit_exceeded",
                "429",
                "this payer has asked for too much lately: wait, then send the same payment again",
            ),
            Self::IdentifierRequired => row(
                400,
                "payment_identifier_required",
                "400",
                "payments need an id in the payment-identifier extension here: 16 to 128 letters, digits, '-' and '_'",
            ),
            Self::IdentifierConflict => row(
                409,
                "payment_identifier_conflict",
                "409",
                "this payment identifier stands for another payment or request: send that one again, or take a new identifier",
            ),
            Self::ExtensionEchoMismatch => row(
                402,
                "extension_echo_mismatch",
                "402",
                "the payment repeats an extension otherwise than it is advertised: take it from this answer",
            ),
            Self::FacilitatorUnavailable => row(
                503,
                "facilitator_unavailable",
                "503",
                "payments cannot be checked right now: send the same payment again",
            ),
            Self::LedgerUnavailable => row(
                503,
                "ledger_unavailable",
                "503",
                "the balance cannot be asked for right now: send the same request again, with the same payment if there was one",
            ),
            Self::FacilitatorRefused => row(402, "payment_refused", "402", "the facilitator refused the payment"),
            Self::Permit2AllowanceRequired => row(
                412,
                "permit2_allowance_required",
                "412",
                "approve Permit2 for the token first, then send the same payment again",
            ),
            Self::OffersNotReady => row(503, "facilitator_unavailable", "503", "no offer can be made yet: try again"),
            Self::AmbiguousPath => row(
                400,
                "ambiguous_path",
                "400",
                "the path can be read in more than one way: send it plainly encoded",
            ),
            Self::RouteConditionFailed => row(400, "route_condition_failed", "400", "no price is set for such a request"),
            Self::UnreadableBody => row(
                400,
                "unreadable_body",
                "400",
                "the price depends on the body: send it as plain JSON without duplicate keys",
            ),
            Self::ReaderMissing => row(
                500,
                "reader_missing",
                "500",
                "the price depends on the body and the x402-reader filter is not in front of x402",
            ),
            Self::NoRoute => row(403, "no_route", "403", "no route of the payment filter matches"),
            Self::UpgradeNotPayable => row(400, "upgrade_not_payable", "400", "Upgrade and CONNECT cannot be paid for"),
            Self::InternalRedirect => row(
                500,
                "internal_redirect_not_payable",
                "500",
                "internal redirects of paid requests are not supported",
            ),
            Self::AnswerNotSold => row(
                502,
                "answer_not_sold",
                "502",
                "the answer is not the backend's: nothing was charged for it",
            ),
            Self::GateMisconfigured => row(
                500,
                "gate_misconfigured",
                "500",
                "allow_on_headers_stop_iteration must not be set for the x402 filter, only for x402-reader",
            ),
        }
    }
}
