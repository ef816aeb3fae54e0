//! Tokens: the well-known ones, and those that the configuration adds.

use super::addresses::{evm_address, solana_address};
use super::built_in;
use super::fields::{Errors, Node};
use crate::pricing::{Asset, Eip712Domain, Transfer};
use crate::x402::Network;

/// A token and how it moves unless an offer says otherwise.
#[derive(Debug, Clone)]
pub(super) struct KnownAsset {
    pub(super) asset: Asset,
    pub(super) transfer: Transfer,
    /// Whether the official clients pay in it without being told to.
    pub(super) default_of_clients: bool,
}

/// The token of this symbol on this network: the configuration's own first, then the built-in ones.
pub(super) fn find(own: &[KnownAsset], symbol: &str, network: &Network) -> Option<KnownAsset> {
    let configured = own
        .iter()
        .find(|known| &*known.asset.symbol == symbol && known.asset.network == *network);
    configured.cloned().or_else(|| built_in::find(symbol, network))
}

/// The symbols known on a network, for error messages.
pub(super) fn symbols_on(own: &[KnownAsset], network: &Network) -> Vec<String> {
    let configured = own.iter().filter(|known| known.asset.network == *network);
    let mut symbols: Vec<String> = configured.map(|known| known.asset.symbol.to_string()).collect();
    symbols.extend(built_in::symbols_on(network).map(str::to_owned));
    symbols
}

/// Reads `assets`.
pub(super) fn read(node: Option<Node<'_>>, errors: &mut Errors) -> Vec<KnownAsset> {
    let mut own: Vec<KnownAsset> = Vec::new();
    let items = node.map(|node| node.items("a list of tokens", errors));
    for item in items.unwrap_or_default() {
        let Some(known) = read_one(&item, errors) else { continue };
        let twice = own
            .iter()
            .any(|other| other.asset.symbol == known.asset.symbol && other.asset.network == known.asset.network);
        if twice {
            errors.add(&item.path, "the same symbol and network again", "each token once");
        } else {
            own.push(known);
        }
    }
    own
}

fn read_one(node: &Node<'_>, errors: &mut Errors) -> Option<KnownAsset> {
    let known = ["symbol", "network", "address", "decimals", "currency", "transfer", "eip712"];
    let fields = node.fields(&known, &[], errors)?;
    let symbol = fields
        .require("symbol", "a symbol such as USDC", errors)
        .and_then(|node| symbol(&node, errors));
    let network = fields
        .require("network", "a network such as \"eip155:8453\"", errors)
        .and_then(|node| network(&node, errors));
    let address_node = fields.require("address", "the token's address", errors);
    let decimals = fields
        .require("decimals", "a whole number from 0 to 36", errors)
        .and_then(|node| node.whole(0, 36, errors));
    let currency = fields
        .require("currency", "a currency such as usd", errors)
        .and_then(|node| currency(&node, errors));
    let eip712 = fields.get("eip712").map(|node| eip712(&node, errors));
    let transfer_node = fields.get("transfer");
    let (network, address_node) = (network?, address_node?);
    let (address, evm_address) = if network.is_solana() {
        (solana_address(&address_node, errors)?, None)
    } else {
        let address = evm_address(&address_node, errors)?;
        (address.to_string().into(), Some(address))
    };
    let transfer = match transfer_node {
        None if network.is_solana() => Transfer::Solana,
        None => Transfer::Eip3009,
        Some(node) if network.is_solana() => node.one_of(&[("solana", ())], errors).map(|()| Transfer::Solana)?,
        Some(node) => match node.one_of(&[("eip3009", true), ("permit2", false)], errors)? {
            true => Transfer::Eip3009,
            false => Transfer::Permit2,
        },
    };
    if transfer == Transfer::Eip3009 && eip712.is_none() {
        errors.add(
            &format!("{}.eip712", node.path),
            "nothing",
            "the token's EIP-712 name and version, which its EIP-3009 signatures depend on",
        );
        return None;
    }
    let eip712 = match eip712 {
        Some(read) => Some(read?),
        None => None,
    };
    Some(KnownAsset {
        asset: Asset {
            symbol: symbol?,
            network,
            address,
            evm_address,
            decimals: u8::try_from(decimals?).ok()?,
            currency: currency?,
            eip712,
        },
        transfer,
        default_of_clients: false,
    })
}

fn eip712(node: &Node<'_>, errors: &mut Errors) -> Option<Eip712Domain> {
    let fields = node.fields(&["name", "version"], &[], errors)?;
    let mut text = |name: &str, expected: &str| {
        let node = fields.require(name, expected, errors)?;
        let text = node.text(expected, errors)?;
        if text.is_empty() || text.len() > 100 || text.chars().any(char::is_control) {
            node.reject(expected, errors);
            return None;
        }
        Some(text.into())
    };
    let (name, version) = (
        text("name", "the token's EIP-712 name"),
        text("version", "the token's EIP-712 version, as a string"),
    );
    Some(Eip712Domain {
        name: name?,
        version: version?,
    })
}

/// Symbols go into a header (`X-Payment-Asset`).
fn symbol(node: &Node<'_>, errors: &mut Errors) -> Option<Box<str>> {
    const EXPECTED: &str = "a symbol of 1 to 32 letters, digits, '.', '-' or '_'";
    let text = node.text(EXPECTED, errors)?;
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    if !fits {
        node.reject(EXPECTED, errors);
    }
    fits.then(|| text.into())
}

fn currency(node: &Node<'_>, errors: &mut Errors) -> Option<Box<str>> {
    const EXPECTED: &str = "a currency in lower case such as usd or eur";
    let text = node.text(EXPECTED, errors)?;
    let fits = is_currency(text);
    if !fits {
        node.reject(EXPECTED, errors);
    }
    fits.then(|| text.into())
}

/// Whether a text is of a currency's form.
pub(super) fn is_currency(text: &str) -> bool {
    (3..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// A network that can be paid on: EVM or Solana.
pub(super) fn network(node: &Node<'_>, errors: &mut Errors) -> Option<Network> {
    const EXPECTED: &str = "a CAIP-2 network of EVM or Solana, such as \"eip155:8453\"";
    let text = node.text(EXPECTED, errors)?;
    match Network::parse(text) {
        Ok(network) if network.chain_id().is_some() || network.is_solana() => Some(network),
        _ => {
            let hint = Network::parse_v1(text).ok().filter(|network| network.as_str() != text);
            node.reject(
                hint.map_or(EXPECTED.to_owned(), |network| format!("its CAIP-2 identifier, \"{network}\"")),
                errors,
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configured_token_comes_first_and_is_complete() {
        let mut errors = Errors::default();
        let value = json!([{
            "symbol": "USDC", "network": "eip155:8453", "address": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "decimals": 6.0, "currency": "usd", "eip712": {"name": "Mine", "version": "1"},
        }]);
        let own = read(Some(Node::root(&value)), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let found = find(&own, "USDC", &Network::parse("eip155:8453").unwrap()).unwrap();
        assert_eq!(&*found.asset.eip712.unwrap().name, "Mine");
        assert!(!found.default_of_clients);
        let without = json!([{"symbol": "T", "network": "base", "address": "0x1", "decimals": 40, "currency": "USD"}]);
        read(Some(Node::root(&without)), &mut errors);
        assert!(errors.into_vec().len() >= 3);
    }
}
