//! `accept`: the ways to be paid, complete but for the amount.

use super::addresses::{PayToMap, account, evm_address};
use super::assets::{self, KnownAsset};
use super::fields::{Errors, Fields, Node};
use crate::evm::{domain_separator, permit2_domain};
use crate::pricing::{Atomic, Offer, Scheme, Transfer};

/// What offers are made from.
pub(super) struct Surroundings<'s> {
    pub(super) pay_to: &'s PayToMap,
    pub(super) assets: &'s [KnownAsset],
    /// `pre_check.max_validity` in seconds.
    pub(super) max_validity: u64,
}

/// An offer without its amount.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// Amount zero, no facilitators.
    pub(super) offer: Offer,
    /// Where in the configuration it is.
    pub(super) path: String,
    /// Whether the official clients pay in its token without being told to.
    pub(super) default_of_clients: bool,
}

#[derive(Clone, Copy)]
enum Method {
    Eip3009,
    Permit2,
    Permit,
    Solana,
}

/// Reads a list of offers; `None` if any of them is wrong.
pub(super) fn read(node: &Node<'_>, around: &Surroundings<'_>, errors: &mut Errors) -> Option<Vec<Template>> {
    let items = node.items("a list of offers", errors);
    if items.is_empty() && node.value.is_array() {
        errors.add(&node.path, "an empty list", "at least one offer");
    }
    let mut offers: Vec<Template> = Vec::new();
    let mut all_good = !items.is_empty();
    for item in items {
        let Some(template) = read_one(&item, around, errors) else {
            all_good = false;
            continue;
        };
        let same = |other: &&Template| {
            let (a, b) = (&other.offer, &template.offer);
            a.scheme == b.scheme && a.transfer == b.transfer && a.asset.network == b.asset.network && a.asset.address == b.asset.address
        };
        if let Some(other) = offers.iter().find(same) {
            errors.add(&item.path, format!("the same offer as {}", other.path), "each offer once");
            all_good = false;
        }
        offers.push(template);
    }
    all_good.then_some(offers)
}

fn read_one(node: &Node<'_>, around: &Surroundings<'_>, errors: &mut Errors) -> Option<Template> {
    let known = ["scheme", "network", "asset", "transfer", "spender", "max_timeout", "pay_to"];
    let fields = node.fields(&known, &[], errors)?;
    let scheme = fields
        .require("scheme", "exact or upto", errors)
        .and_then(|node| node.one_of(&[("exact", Scheme::Exact), ("upto", Scheme::Upto)], errors));
    let max_timeout = match fields.get("max_timeout") {
        Some(node) => node.seconds(1, around.max_validity, errors),
        None => Some(around.max_validity.min(300)),
    };
    let network = fields
        .require("network", "a network such as \"eip155:8453\"", errors)
        .and_then(|node| assets::network(&node, errors));
    let asset_node = fields.require("asset", "the symbol of a token such as USDC", errors);
    let (network, asset_node) = (network?, asset_node?);

    let pay_to = match fields.get("pay_to") {
        Some(node) => account(&node, network.is_solana(), errors),
        None => {
            let found = around.pay_to.get(&network).cloned();
            if found.is_none() {
                let path = format!("{}.pay_to", node.path);
                errors.add(&path, "nothing", format!("an account, here or in pay_to for {network}"));
            }
            found
        }
    };
    let symbol = asset_node.text("the symbol of a token such as USDC", errors)?;
    let Some(known) = assets::find(around.assets, symbol, &network) else {
        let symbols = assets::symbols_on(around.assets, &network);
        asset_node.reject(
            if symbols.is_empty() {
                format!("a token of {network} that is described in assets")
            } else {
                format!("one of {}, or a token that is described in assets", symbols.join(", "))
            },
            errors,
        );
        return None;
    };
    let scheme = scheme?;
    let transfer = transfer(&fields, node, scheme, &known, errors)?;
    let domain_separator = domain(&known, &transfer, node, errors)?;
    let pay_to = pay_to?;
    Some(Template {
        offer: Offer {
            scheme,
            asset: known.asset,
            transfer,
            seller: pay_to.to_string().into(),
            pay_to,
            max_timeout_seconds: max_timeout?,
            amount: Atomic(0),
            upfront: false,
            domain_separator,
            facilitators: Vec::new(),
        },
        path: node.path.clone(),
        default_of_clients: known.default_of_clients,
    })
}

/// How the token moves: as the offer says, else by the scheme's only way (`upto`: Permit2), else as the token does.
fn transfer(fields: &Fields<'_>, offer: &Node<'_>, scheme: Scheme, known: &KnownAsset, errors: &mut Errors) -> Option<Transfer> {
    let spender = fields.get("spender");
    let words: &[(&str, Method)] = if known.asset.network.is_solana() {
        &[("solana", Method::Solana)]
    } else {
        &[
            ("eip3009", Method::Eip3009),
            ("permit2", Method::Permit2),
            ("permit", Method::Permit),
        ]
    };
    let node = fields.get("transfer");
    let transfer = match &node {
        None if scheme == Scheme::Upto && !known.asset.network.is_solana() => Transfer::Permit2,
        None => known.transfer.clone(),
        Some(node) => match node.one_of(words, errors)? {
            Method::Eip3009 => Transfer::Eip3009,
            Method::Permit2 => Transfer::Permit2,
            Method::Solana => Transfer::Solana,
            Method::Permit => match &spender {
                Some(spender) => Transfer::Permit {
                    spender: evm_address(spender, errors)?,
                },
                None => {
                    errors.add(
                        &format!("{}.spender", offer.path),
                        "nothing",
                        "who is allowed to pull the money (transfer: permit)",
                    );
                    return None;
                }
            },
        },
    };
    if let (Some(spender), false) = (&spender, matches!(transfer, Transfer::Permit { .. })) {
        spender.reject("no spender, which only transfer: permit has", errors);
    }
    let complaint = match (scheme, &transfer) {
        (Scheme::Exact, Transfer::Permit { .. }) => "scheme: upto with transfer: permit",
        (Scheme::Upto, Transfer::Eip3009) => "permit2 or permit with scheme: upto (EIP-3009 moves an exact amount)",
        (Scheme::Upto, Transfer::Solana) => "scheme: exact on Solana",
        _ => return Some(transfer),
    };
    node.unwrap_or_else(|| offer.clone()).reject(complaint, errors);
    None
}

/// The EIP-712 domain separator that payments of an offer are signed under; zeros on Solana.
fn domain(known: &KnownAsset, transfer: &Transfer, node: &Node<'_>, errors: &mut Errors) -> Option<[u8; 32]> {
    let chain_id = known.asset.network.chain_id();
    match (transfer, chain_id, &known.asset.eip712, known.asset.evm_address) {
        (Transfer::Solana, ..) => Some([0; 32]),
        (Transfer::Permit2, Some(chain_id), ..) => Some(permit2_domain(chain_id)),
        (_, Some(chain_id), Some(domain), Some(token)) => Some(domain_separator(&domain.name, &domain.version, chain_id, &token)),
        _ => {
            let path = format!("{}.asset", node.path);
            errors.add(
                &path,
                "a token without eip712",
                "one with eip712: {name, version} in assets, or transfer: permit2",
            );
            None
        }
    }
}
