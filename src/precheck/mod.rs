//! The pre-check: all that can be decided about a payment without asking anybody, cheapest test first.
//!
//! Order: the resource, which offer is meant, the signed terms (amount, recipient, spender, token), the validity window, and
//! the signature last, which costs a hundred times all the rest. A payment that fails here never reaches a facilitator.

mod choose;
mod evm;
mod window;

use crate::config::PreCheck;
use crate::evm::Payers;
use crate::pricing::{Offer, Transfer};
use crate::replay::{ClaimKey, UnixSeconds};
use crate::supported::{Ready, Table};
use crate::x402::{Payload, Payment, Refusal, clean, same_resource, solana};

use choose::Candidate;

/// How long a Solana payment is held at least, in seconds: longer than a blockhash lives.
const SOLANA_HOLD: u64 = 120;

/// What a payment is checked against.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// The route's offers, in order of preference.
    pub offers: &'a [Offer],
    /// What facilitators have said of themselves.
    pub supported: &'a Table,
    /// The bounds.
    pub bounds: &'a PreCheck,
    /// The resource as this filter derives it.
    pub resource: &'a str,
    /// The secret that claim keys are hashed with.
    pub secret: &'a [u8; 16],
    /// The keys of accounts that have signed before, if they are kept.
    pub payers: Option<&'a Payers>,
    /// The time.
    pub now: UnixSeconds,
    /// For how long a payment is looked at that has expired, in seconds: one that was settled may have an answer to be had again.
    pub grace: u64,
}

/// A payment that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// Index of the offer that it takes.
    pub offer: usize,
    /// Who will verify and settle it, and the facts in its requirements.
    pub ready: Ready,
    /// The account that pays, as the network writes it; empty where only the facilitator can tell.
    pub payer: String,
    /// What can be spent once.
    pub claim: ClaimKey,
    /// When the payment can no longer be settled, so that the claim may be forgotten.
    pub expiry: UnixSeconds,
    /// When the claim is to be taken.
    pub claiming: Claiming,
}

impl Approved {
    /// Whether the payer's own signature was found: it has to be recovered, or be left to the facilitator.
    pub fn proven(&self) -> bool {
        self.claiming == Claiming::AtOnce && self.ready.fee_payer.is_none()
    }
}

/// When a claim is taken: nobody must be able to lock a payer out by naming that payer's address and nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// Before anybody is asked: the payer's signature was recovered, or (Solana) nobody else can know what is claimed.
    AtOnce,
    /// When the facilitator has vouched for it: a smart wallet's signature, which proves nothing here.
    OnceVerified,
}

/// A payment that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What was found and what was expected, for the payer; never a signature.
    pub detail: String,
}

impl Refused {
    fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self {
            refusal,
            detail: detail.into(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal, "")
    }
}

/// Checks a payment against a route's offers.
///
/// # Errors
///
/// The first reason found to refuse it; where several offers are in question, that of the most preferred one.
pub fn pre_check(payment: &Payment, terms: &Terms<'_>) -> Result<Approved, Refused> {
    if let Some(sent) = payment.resource_url.as_deref().filter(|sent| !same_resource(sent, terms.resource)) {
        // Hosts would not survive the cleaning of what clients are told, and the paths say what matters.
        let detail = format!("the payment was made for {}, this is {}", path_of(sent), path_of(terms.resource));
        return Err(Refused::new(Refusal::ResourceMismatch, detail));
    }
    let mut first = None;
    for candidate in choose::candidates(payment, terms)? {
        match check_offer(payment, candidate, terms) {
            Ok(approved) => return Ok(approved),
            Err(refused) => first = first.or(Some(refused)),
        }
    }
    Err(first.unwrap_or_else(|| Refusal::NoMatchingRequirements.into()))
}

/// A URL without its scheme, and without its host where it has a path.
fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    clean(rest.find('/').and_then(|at| rest.get(at..)).unwrap_or(rest))
}

fn check_offer(payment: &Payment, candidate: Candidate<'_>, terms: &Terms<'_>) -> Result<Approved, Refused> {
    let Candidate { index, offer, ready } = candidate;
    let passed = match (&payment.payload, &offer.transfer) {
        (Payload::Permit2 { from, permit, signature }, Transfer::Permit2) => evm::permit2(*from, permit, signature, offer, &ready, terms)?,
        (Payload::Solana { transaction }, Transfer::Solana) => return check_solana(transaction, index, offer, ready, terms),
        (payload, transfer) => match (payload.authorization(offer), transfer) {
            (Some((signed, signature)), Transfer::Eip3009) => evm::eip3009(&signed, &signature, offer, terms)?,
            (Some((signed, signature)), Transfer::Permit { spender }) => evm::permit(&signed, &signature, *spender, offer, terms)?,
            _ => return Err(Refusal::TransferMethodNotOffered.into()),
        },
    };
    Ok(passed.approved(index, ready))
}

/// What a Solana message shows is checked here; signatures, balances and the blockhash are for the facilitator.
fn check_solana(transaction: &[u8], index: usize, offer: &Offer, ready: Ready, terms: &Terms<'_>) -> Result<Approved, Refused> {
    let fee_payer = ready.fee_payer.as_deref().unwrap_or_default();
    let facts = solana::check(transaction, offer, fee_payer).map_err(Refused::from)?;
    Ok(Approved {
        offer: index,
        claim: ClaimKey::solana(terms.secret, offer.asset.network.as_str(), &facts.message_hash),
        expiry: UnixSeconds(terms.now.0.saturating_add(SOLANA_HOLD.max(offer.max_timeout_seconds))),
        payer: facts.payer.unwrap_or_default().into(),
        ready,
        claiming: Claiming::AtOnce,
    })
}
