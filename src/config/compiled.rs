//! The compiled form of a configuration: immutable, shared by every request.

use super::Secret;
use crate::breaker::Limits;
use crate::pricing::Routes;

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Config {
    /// In order of preference; [`crate::pricing::Offer::facilitators`] are indices into this.
    pub facilitators: Vec<Facilitator>,
    /// What is decided before a facilitator is asked.
    pub pre_check: PreCheck,
    /// What is done about settlements whose outcome is not known.
    pub settlement: SettlementPolicy,
    /// How long a price of the configuration before stays good after a reload, in seconds.
    pub quote_grace: u64,
    /// What `resource` URLs are built on: scheme, authority and optional path prefix, without a trailing slash.
    /// `None`: the request's own scheme and authority.
    pub public_url: Option<Box<str>>,
    /// The routes, ready for lookup.
    pub routes: Routes,
    /// Requests that need not pay.
    pub access: Access,
    /// What is done about answers that were paid for and not delivered.
    pub redeliver: Redeliver,
    /// What one payer may ask for; `None`: anything.
    pub payer_limits: Option<PayerLimits>,
    /// What one account may ask for; `None`: as much as its balance pays for.
    pub account_limits: Option<AccountLimits>,
    /// The ledger: `verify_timeout_ms` is how long a call may take, `settle_timeout_ms` one that tops up.
    pub ledger: Option<Facilitator>,
    /// Whether clients may, or have to, name their payments.
    pub payment_identifier: PaymentIdentifier,
    /// `replay.max_claims`: how many claims may be held at once.
    pub max_claims: u32,
    /// `replay.claims`: whether facilitators are reached through a ledger, which holds claims for all replicas.
    pub shared_claims: bool,
    /// What a 402 looks like.
    pub challenge: ChallengeStyle,
    /// What is allowed but probably not meant; one sentence each, to be logged.
    pub warnings: Vec<String>,
}

impl Config {
    /// What stands for the ledger where facilitators have their index.
    pub fn ledger_index(&self) -> usize {
        self.facilitators.len()
    }

    /// A facilitator by its index, or the ledger.
    pub fn peer(&self, index: usize) -> Option<&Facilitator> {
        self.facilitators
            .get(index)
            .or_else(|| self.ledger.as_ref().filter(|_| index == self.ledger_index()))
    }
}

/// A facilitator: an Envoy cluster and where on it the API lives.
#[derive(Debug, Clone)]
pub struct Facilitator {
    /// Name of the Envoy cluster.
    pub cluster: Box<str>,
    /// Host, and port unless it is the scheme's default: what `:authority` is set to.
    pub authority: Box<str>,
    /// What comes before `/verify`: empty, or `/facilitator`, without a trailing slash.
    pub path_prefix: Box<str>,
    /// `http` or `https`: what `:scheme` is set to. TLS itself is the cluster's.
    pub scheme: &'static str,
    /// Globs over CAIP-2 identifiers, such as `eip155:*`.
    pub networks: Vec<Box<str>>,
    /// How long `/verify` may take, in milliseconds, at least 1.
    pub verify_timeout_ms: u32,
    /// How long `/settle` may take, in milliseconds, at least 1.
    pub settle_timeout_ms: u32,
    /// Headers to add to each call, names in lower case.
    pub headers: Vec<(Box<str>, Secret)>,
    /// `in_flight` and `breaker`: when a worker holds calls back.
    pub limits: Limits,
}

/// Bounds of the pre-check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreCheck {
    /// How far the client's clock may be off, in seconds.
    pub clock_skew: u64,
    /// How long a payment may be valid from now, in seconds.
    pub max_validity: u64,
    /// What to do with a signature of 65 (or 64) bytes that recovers to another address.
    pub eoa_sized: SmartWalletPolicy,
    /// What to do with a signature of another length.
    pub other: SmartWalletPolicy,
}

/// What is done about settlements whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementPolicy {
    /// How often one is sent again, at most.
    pub retries: u32,
    /// For how long, from its first sending on, in milliseconds.
    pub retry_budget_ms: u64,
    /// Up to how much "nonce used" counts as settled after an attempt without an answer, in millionths, for each currency.
    pub accept_used_nonce_up_to: Vec<(Box<str>, u64)>,
}

impl Default for SettlementPolicy {
    fn default() -> Self {
        Self {
            retries: 3,
            retry_budget_ms: 60_000,
            accept_used_nonce_up_to: vec![("usd".into(), 1_000_000)],
        }
    }
}

/// What is done about answers that were paid for and not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redeliver {
    /// How often an answer that had begun may be had again.
    pub times: u8,
    /// For how long, in seconds.
    pub window: u64,
}

impl Default for Redeliver {
    fn default() -> Self {
        Self { times: 1, window: 120 }
    }
}

/// What one payer may ask for, over all routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayerLimits {
    /// From one paid request to the next, in milliseconds.
    pub cooldown_ms: u64,
    /// The time in which requests and money are counted, in milliseconds.
    pub window_ms: u64,
    /// Paid requests in a window, for each currency; `None`: any number.
    pub requests: Option<u32>,
    /// Money in a window, in millionths, for each currency; none: any amount.
    pub spend: Vec<(Box<str>, u64)>,
}

/// What one account may ask for, over all routes: counted by the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// The time in which requests and money are counted, in milliseconds.
    pub window_ms: u64,
    /// Requests in a window; `None`: any number.
    pub requests: Option<u32>,
    /// Money in a window, in millionths of a dollar; `None`: any amount.
    pub spend: Option<u64>,
}

/// Prepaid credits: API keys whose balance the ledger keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credits {
    /// The header (lower case) in which keys travel.
    pub header: Box<str>,
    /// How much may be open of what the ledger could not be asked to reserve, in millionths of a dollar; 0: nothing.
    pub allow_up_to: u64,
    /// How much a worker may lease of a busy key's balance, in millionths of a dollar; 0: nothing.
    pub lease: u64,
}

/// Whether clients may, or have to, name their payments (the `payment-identifier` extension).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PaymentIdentifier {
    /// It is not advertised, and ignored.
    #[default]
    Off,
    /// They may.
    Optional,
    /// They have to.
    Required,
}

/// What to do with a signature that may be a smart wallet's (EIP-1271, ERC-6492).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmartWalletPolicy {
    /// Refuse it.
    Refuse,
    /// Let the facilitator decide.
    Facilitator,
}

/// Requests that need not pay by themselves.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// API keys that mean nothing and are removed before the backend sees them.
    pub dummy_api_keys: Vec<Box<str>>,
    /// The header (lower case) in which a real key goes to the backend unpaid; `None`: real keys do not excuse from paying.
    pub api_keys_header: Option<Box<str>>,
    /// Prepaid credits; `None`: none are sold here.
    pub credits: Option<Credits>,
    /// Headers whose value excuses from paying.
    pub bypass: Vec<Bypass>,
}

/// A header whose value excuses from paying.
#[derive(Debug, Clone)]
pub struct Bypass {
    /// Header name in lower case.
    pub header: Box<str>,
    /// The value that excuses.
    pub value: Secret,
}

/// What a 402 looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeStyle {
    /// Whether the body carries v1 requirements.
    pub v1: bool,
    /// Whether the first offer is repeated in plain `X-Payment-…` headers.
    pub plain_headers: bool,
    /// The body's form.
    pub body: BodyStyle,
}

/// The form of a 402's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyStyle {
    /// x402 v1 requirements.
    X402,
    /// An error as OpenAI's clients expect it.
    Openai,
}

impl Default for PreCheck {
    fn default() -> Self {
        Self {
            clock_skew: 5,
            max_validity: 3600,
            eoa_sized: SmartWalletPolicy::Refuse,
            other: SmartWalletPolicy::Facilitator,
        }
    }
}

impl Default for ChallengeStyle {
    fn default() -> Self {
        Self {
            v1: true,
            plain_headers: true,
            body: BodyStyle::X402,
        }
    }
}
