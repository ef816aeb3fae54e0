//! Matching: which of the offers a payment was made for.
//!
//! Looks at what the client says it accepted, and at the kind of its payload; amounts and parties that were signed are for
//! `precheck`. Source: the official servers match `accepted` field by field and `extra` as a superset (`@x402/core` 2.27).

use serde_json::{Map, Value};

use super::payment::{Dialect, Payload, Payment, PlainTerms};
use super::{Network, Payable, Refusal};
use crate::evm::Address;
use crate::pricing::{Asset, Offer, PayTo, Scheme, Transfer};

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
pub fn matches(accepted: &Value, payable: &Payable<'_>) -> Result<(), Refusal> {
    const NONE: Refusal = Refusal::NoMatchingRequirements;
    let requirement = payable.v2().ok_or(Refusal::UnsupportedScheme)?;
    let wanted = serde_json::to_value(&requirement).map_err(|_| NONE)?;
    let (Value::Object(wanted), Value::Object(accepted)) = (&wanted, accepted) else {
        return Err(NONE);
    };
    for (key, refusal) in [
        ("scheme", Refusal::UnsupportedScheme),
        ("network", Refusal::InvalidNetwork),
        ("asset", Refusal::InvalidAsset),
    ] {
        if !same(wanted.get(key), accepted.get(key)) {
            return Err(refusal);
        }
    }
    let method = |object: &Map<String, Value>| object.get("extra").and_then(|extra| extra.get("assetTransferMethod").cloned());
    let asked = method(wanted).unwrap_or_else(|| "eip3009".into());
    let given = method(accepted).unwrap_or_else(|| "eip3009".into());
    if asked != given {
        return Err(Refusal::TransferMethodNotOffered);
    }
    let known = accepted.iter().all(|(key, value)| wanted.contains_key(key) || value.is_null());
    let fields = ["amount", "payTo", "maxTimeoutSeconds"]
        .iter()
        .all(|key| same(wanted.get(*key), accepted.get(*key)));
    let extra = contains(accepted.get("extra"), wanted.get("extra"));
    if known && fields && extra { Ok(()) } else { Err(NONE) }
}

/// Equal, or two spellings of an address.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    if one.is_some() && one == other {
        return true;
    }
    let address = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<Address>().ok());
    match (address(one), address(other)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

fn contains(given: Option<&Value>, wanted: Option<&Value>) -> bool {
    match (given, wanted) {
        (Some(Value::Object(given)), Some(Value::Object(wanted))) => {
            wanted.iter().all(|(key, value)| contains(given.get(key), Some(value)))
        }
        (None, Some(Value::Object(wanted))) => wanted.is_empty(),
        _ => same(given, wanted),
    }
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
