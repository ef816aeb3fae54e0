//! Matching: which of the offers a payment was made for.
//!
//! Looks at what the client says it accepted, and at the kind of its payload; amounts and parties that were signed are for
//! `precheck`. Source: the official servers match `accepted` field by field and `extra` as a superset (`@x402/core` 2.27).

use super::json::Json;
use super::payment::{Dialect, Payload, Payment, PlainTerms};
use super::requirements::{EIP3009, TRANSFER_METHOD};
use super::{Network, Payable, Refusal};
use crate::evm::Address;
use crate::pricing::{Asset, Offer, PayTo, Scheme, Transfer};

/// All that a v2 requirement has.
const FIELDS: [&str; 7] = ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"];

/// Whether a payment means to take an offer: what it says it accepts, or, in v1 and plain headers, what it says at all; and whether
/// its payload is of the offer's kind.
///
/// # Errors
///
/// The first thing that does not fit.
pub fn fits(payment: &Payment, payable: &Payable<'_>) -> Result<(), Refusal> {
    let offer = payable.offer;
    match (&payment.accepted, &payment.terms) {
        (Some(accepted), _) => matches(accepted, payable)?,
        (None, Some(terms)) => matches_terms(terms, offer)?,
        (None, None) => matches_v1(payment, offer)?,
    }
    let same_way = match (&payment.payload, &offer.transfer) {
        // A Permit has the shape of EIP-3009, and only LibertAI's clients sign one.
        (Payload::Eip3009 { .. }, Transfer::Permit { .. }) => payment.dialect == Dialect::LibertAi,
        (Payload::Eip3009 { .. } | Payload::Plain { .. }, Transfer::Eip3009) => true,
        (Payload::Permit2 { .. }, Transfer::Permit2) => true,
        (Payload::Solana { .. }, Transfer::Solana) => true,
        _ => false,
    };
    if same_way { Ok(()) } else { Err(Refusal::TransferMethodNotOffered) }
}

/// Whether what a v2 client accepted is the offer: every field as it is, but addresses by value, and `extra` as a superset.
///
/// # Errors
///
/// [`Refusal::UnsupportedScheme`], [`Refusal::InvalidNetwork`], [`Refusal::InvalidAsset`], [`Refusal::TransferMethodNotOffered`],
/// else [`Refusal::NoMatchingRequirements`].
pub fn matches(accepted: &Json<'_>, payable: &Payable<'_>) -> Result<(), Refusal> {
    let wanted = payable.v2().ok_or(Refusal::UnsupportedScheme)?;
    let accepted = accepted.object().ok_or(Refusal::NoMatchingRequirements)?;
    let is = |key, wanted| same(accepted.get(key), wanted);
    if !is("scheme", wanted.scheme) {
        return Err(Refusal::UnsupportedScheme);
    }
    if !is("network", wanted.network) {
        return Err(Refusal::InvalidNetwork);
    }
    if !is("asset", wanted.asset) {
        return Err(Refusal::InvalidAsset);
    }
    let extra = accepted.get("extra");
    let given = |key| extra.and_then(|extra| extra.get(key));
    let method = given(TRANSFER_METHOD).map_or(Some(EIP3009), Json::text);
    if method != Some(wanted.extra.asset_transfer_method.unwrap_or(EIP3009)) {
        return Err(Refusal::TransferMethodNotOffered);
    }
    let known = accepted.iter().all(|(key, value)| FIELDS.contains(&&**key) || *value == Json::Null);
    let in_time = accepted.get("maxTimeoutSeconds").and_then(Json::whole) == Some(wanted.max_timeout_seconds);
    let extra_fits = match extra {
        Some(Json::Object(_)) => wanted.extra.fields().all(|(key, wanted)| same(given(key), wanted)),
        Some(_) => false,
        None => wanted.extra.fields().next().is_none(),
    };
    let rest = is("amount", &wanted.amount) && is("payTo", &wanted.pay_to) && in_time;
    if known && rest && extra_fits {
        Ok(())
    } else {
        Err(Refusal::NoMatchingRequirements)
    }
}

/// Equal, or two spellings of an address.
fn same(given: Option<&Json<'_>>, wanted: &str) -> bool {
    let Some(given) = given.and_then(Json::text) else { return false };
    given == wanted || matches!((given.parse::<Address>(), wanted.parse::<Address>()), (Ok(given), Ok(wanted)) if given == wanted)
}

/// v1 and LibertAI name scheme and network alone.
fn matches_v1(payment: &Payment, offer: &Offer) -> Result<(), Refusal> {
    let scheme = match offer.scheme {
        Scheme::Exact => "exact",
        Scheme::Upto => "upto",
    };
    if *payment.scheme != *scheme {
        return Err(Refusal::UnsupportedScheme);
    }
    if payment.network.as_ref() != Some(&offer.asset.network) {
        return Err(Refusal::InvalidNetwork);
    }
    // Of several such offers the one that was signed for: who is paid tells where the token is not said.
    match (&payment.payload, &offer.transfer, &offer.pay_to) {
        (Payload::Eip3009 { authorization, .. }, Transfer::Permit { spender }, _) if authorization.to != *spender => {
            Err(Refusal::SpenderMismatch)
        }
        (Payload::Eip3009 { authorization, .. }, Transfer::Eip3009, PayTo::Evm(seller)) if authorization.to != *seller => {
            Err(Refusal::RecipientMismatch)
        }
        _ => Ok(()),
    }
}

/// Whether plain headers describe an offer: what they leave out does not matter.
fn matches_terms(terms: &PlainTerms, offer: &Offer) -> Result<(), Refusal> {
    let network = |network: &Network| *network == offer.asset.network;
    if offer.scheme != Scheme::Exact {
        return Err(Refusal::UnsupportedScheme);
    }
    if !terms.network.as_ref().is_none_or(network) {
        return Err(Refusal::InvalidNetwork);
    }
    if !terms.asset.as_ref().is_none_or(|asset| names(asset, &offer.asset)) {
        return Err(Refusal::InvalidAsset);
    }
    if offer.transfer != Transfer::Eip3009 {
        return Err(Refusal::TransferMethodNotOffered);
    }
    let other_amount = |amount: &String| atomic(amount, offer.asset.decimals) != Some(offer.amount.0);
    if terms.amount.as_ref().is_some_and(other_amount) {
        return Err(Refusal::ValueMismatch);
    }
    Ok(())
}

fn names(text: &str, asset: &Asset) -> bool {
    let address = text.parse::<Address>().ok();
    asset.symbol.eq_ignore_ascii_case(text) || *asset.address == *text || (address.is_some() && address == asset.evm_address)
}

/// `0.01` with 6 decimals is 10000; `None` for what is no such amount, or finer than the token.
fn atomic(text: &str, decimals: u8) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let zeros = usize::from(decimals).checked_sub(fraction.len())?;
    format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().ok()
}
