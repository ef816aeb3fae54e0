//! The signed terms of EVM payments, and their signatures.

use super::{Approved, Claiming, Refused, Terms, window};
use crate::config::SmartWalletPolicy;
use crate::evm::eip2612::Permit;
use crate::evm::eip3009::TransferWithAuthorization;
use crate::evm::permit2::{PermitWitnessTransferFrom, Witness};
use crate::evm::{Address, EXACT_PERMIT2_PROXY, SignatureForm, U256, UPTO_PERMIT2_PROXY, recover};
use crate::pricing::{Offer, PayTo, Scheme};
use crate::replay::{ClaimKey, UnixSeconds};
use crate::supported::Ready;
use crate::x402::Refusal;

/// An EVM payment that passed.
pub(super) struct Passed {
    payer: Address,
    claim: ClaimKey,
    expiry: UnixSeconds,
    claiming: Claiming,
}

impl Passed {
    pub(super) fn approved(self, offer: usize, ready: Ready) -> Approved {
        Approved {
            offer,
            ready,
            payer: self.payer.to_string(),
            claim: self.claim,
            expiry: self.expiry,
            claiming: self.claiming,
        }
    }
}

/// EIP-3009: the amount is the quote's to the unit, more is refused as less is.
pub(super) fn eip3009(
    signed: &TransferWithAuthorization,
    signature: &SignatureForm,
    offer: &Offer,
    terms: &Terms<'_>,
) -> Result<Passed, Refused> {
    check_amount(&signed.value, offer)?;
    check_recipient(signed.to, offer)?;
    let expiry = window::check(&signed.valid_after, &signed.valid_before, terms)?;
    let claiming = check_signature(signature, signed.from, terms, || signed.digest(&offer.domain_separator))?;
    let claim = ClaimKey::eip3009(
        terms.secret,
        offer.asset.network.as_str(),
        &token(offer)?,
        &signed.from,
        &signed.nonce,
    );
    Ok(Passed {
        payer: signed.from,
        claim,
        expiry,
        claiming,
    })
}

/// EIP-2612 in LibertAI's form: `to` is the spender, `nonce` the permit's counter, `valid_before` its deadline.
pub(super) fn permit(
    signed: &TransferWithAuthorization,
    signature: &SignatureForm,
    spender: Address,
    offer: &Offer,
    terms: &Terms<'_>,
) -> Result<Passed, Refused> {
    check_amount(&signed.value, offer)?;
    if signed.to != spender {
        return Err(Refused::new(
            Refusal::SpenderMismatch,
            format!("the permit's spender must be {spender}"),
        ));
    }
    let expiry = window::check(&signed.valid_after, &signed.valid_before, terms)?;
    let message = Permit {
        owner: signed.from,
        spender,
        value: signed.value,
        nonce: signed.nonce,
        deadline: signed.valid_before,
    };
    let claiming = check_signature(signature, signed.from, terms, || message.digest(&offer.domain_separator))?;
    let claim = ClaimKey::eip2612(
        terms.secret,
        offer.asset.network.as_str(),
        &token(offer)?,
        &signed.from,
        &signed.nonce,
    );
    Ok(Passed {
        payer: signed.from,
        claim,
        expiry,
        claiming,
    })
}

/// Permit2 through the x402 proxy of the offer's scheme.
pub(super) fn permit2(
    payer: Address,
    signed: &PermitWitnessTransferFrom,
    signature: &SignatureForm,
    offer: &Offer,
    ready: &Ready,
    terms: &Terms<'_>,
) -> Result<Passed, Refused> {
    check_amount(&signed.amount, offer)?;
    if signed.token != token(offer)? {
        return Err(Refused::new(
            Refusal::TokenMismatch,
            format!("the permit must be for {}", offer.asset.address),
        ));
    }
    let proxy = match offer.scheme {
        Scheme::Exact => EXACT_PERMIT2_PROXY,
        Scheme::Upto => UPTO_PERMIT2_PROXY,
    };
    if signed.spender != proxy {
        return Err(Refused::new(
            Refusal::SpenderMismatch,
            format!("the permit's spender must be {proxy}"),
        ));
    }
    check_recipient(signed.witness.to(), offer)?;
    match (offer.scheme, &signed.witness) {
        (Scheme::Exact, Witness::Exact { .. }) => {}
        (Scheme::Upto, Witness::Upto { facilitator, .. }) if ready.is_facilitator(*facilitator) => {}
        _ => return Err(Refusal::FacilitatorMismatch.into()),
    }
    let expiry = window::check(&signed.witness.valid_after(), &signed.deadline, terms)?;
    let claiming = check_signature(signature, payer, terms, || signed.digest(&offer.domain_separator))?;
    let claim = ClaimKey::permit2(terms.secret, offer.asset.network.as_str(), &payer, &signed.nonce);
    Ok(Passed {
        payer,
        claim,
        expiry,
        claiming,
    })
}

fn token(offer: &Offer) -> Result<Address, Refused> {
    offer.asset.evm_address.ok_or_else(|| Refusal::InvalidAsset.into())
}

fn check_amount(signed: &U256, offer: &Offer) -> Result<(), Refused> {
    if signed.to_u128() == Some(offer.amount.0) {
        return Ok(());
    }
    let (asked, symbol) = (offer.amount.0, &offer.asset.symbol);
    let detail = format!("{signed} was authorized, {asked} is asked for, in the smallest unit of {symbol}");
    Err(Refused::new(Refusal::ValueMismatch, detail))
}

fn check_recipient(signed: Address, offer: &Offer) -> Result<(), Refused> {
    match &offer.pay_to {
        PayTo::Evm(pay_to) if *pay_to == signed => Ok(()),
        PayTo::Evm(pay_to) => Err(Refused::new(
            Refusal::RecipientMismatch,
            format!("{signed} would be paid, not {pay_to}"),
        )),
        PayTo::Solana(_) => Err(Refusal::RecipientMismatch.into()),
    }
}

/// A signature that is not plainly the payer's may still be a smart wallet's: the configuration says who decides.
fn check_signature(
    signature: &SignatureForm,
    payer: Address,
    terms: &Terms<'_>,
    digest: impl FnOnce() -> [u8; 32],
) -> Result<Claiming, Refused> {
    let (policy, refusal) = match signature {
        SignatureForm::Eoa(signature) => {
            let digest = digest();
            let signed = match terms.payers {
                Some(payers) => payers.signed(&payer, &digest, signature),
                None => recover(&digest, signature) == Some(payer),
            };
            if signed {
                return Ok(Claiming::AtOnce);
            }
            (terms.bounds.eoa_sized, Refusal::InvalidSignature)
        }
        SignatureForm::Other => (terms.bounds.other, Refusal::SmartWalletRefused),
    };
    match policy {
        SmartWalletPolicy::Facilitator => Ok(Claiming::OnceVerified),
        SmartWalletPolicy::Refuse => Err(refusal.into()),
    }
}
