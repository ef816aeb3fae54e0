//! Accounts: EVM addresses with a checksum that fits, Solana accounts of 32 bytes, and `pay_to`.

use super::fields::{Errors, Node};
use crate::evm::Address;
use crate::pricing::PayTo;
use crate::x402::Network;
use crate::x402::base58::decode_32;

/// An EVM address. One in mixed case must have the EIP-55 checksum: a slip of the pen here would send the money away.
pub(super) fn evm_address(node: &Node<'_>, errors: &mut Errors) -> Option<Address> {
    const EXPECTED: &str = "an EVM address (0x and 40 hexadecimal digits)";
    let text = node.text(EXPECTED, errors)?;
    let Ok(address) = text.parse::<Address>() else {
        node.reject(EXPECTED, errors);
        return None;
    };
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let one_case = !digits.bytes().any(|b| b.is_ascii_uppercase()) || !digits.bytes().any(|b| b.is_ascii_lowercase());
    if !one_case && address.to_string() != text {
        node.reject(
            "an address whose EIP-55 checksum is right (a digit or a letter's case is wrong: copy it once more)",
            errors,
        );
        return None;
    }
    if address == Address([0; 20]) {
        node.reject("an address that is not zero", errors);
        return None;
    }
    Some(address)
}

/// A Solana account or mint, in base58.
pub(super) fn solana_address(node: &Node<'_>, errors: &mut Errors) -> Option<Box<str>> {
    const EXPECTED: &str = "a Solana address (32 bytes in base58)";
    let text = node.text(EXPECTED, errors)?;
    if decode_32(text).is_none_or(|bytes| bytes == [0; 32]) {
        node.reject(EXPECTED, errors);
        return None;
    }
    Some(text.into())
}

/// An account of the kind that a network has.
pub(super) fn account(node: &Node<'_>, solana: bool, errors: &mut Errors) -> Option<PayTo> {
    if solana {
        solana_address(node, errors).map(PayTo::Solana)
    } else {
        evm_address(node, errors).map(PayTo::Evm)
    }
}

/// `pay_to`: accounts by CAIP-2 namespace or network.
#[derive(Debug, Default)]
pub(super) struct PayToMap(Vec<(Box<str>, PayTo)>);

impl PayToMap {
    pub(super) fn read(node: Option<Node<'_>>, errors: &mut Errors) -> Self {
        let mut map = Vec::new();
        let entries = node.map(|node| node.entries("accounts by network, such as {eip155: \"0x…\"}", errors));
        for (key, node) in entries.unwrap_or_default() {
            let network = Network::parse(key).ok();
            let solana = match (key, network) {
                ("eip155", _) => false,
                ("solana", _) => true,
                (_, Some(network)) if network.is_solana() => true,
                (_, Some(network)) if network.chain_id().is_some() => false,
                _ => {
                    errors.add(
                        &node.path,
                        "an unknown network",
                        "eip155, solana, or a CAIP-2 network of these such as \"eip155:8453\"",
                    );
                    continue;
                }
            };
            if let Some(account) = account(&node, solana, errors) {
                map.push((key.into(), account));
            }
        }
        Self(map)
    }

    /// The account for a network: its own, else its namespace's.
    pub(super) fn get(&self, network: &Network) -> Option<&PayTo> {
        let find = |key: &str| self.0.iter().find(|(own, _)| &**own == key).map(|(_, account)| account);
        find(network.as_str()).or_else(|| find(network.namespace()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BASE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

    #[test]
    fn the_most_specific_account_wins() {
        let mut errors = Errors::default();
        let other = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        let value = json!({"eip155": BASE, "eip155:8453": other});
        let map = PayToMap::read(Some(Node::root(&value)), &mut errors);
        assert!(errors.is_empty());
        let account = |network: &str| map.get(&Network::parse(network).unwrap()).cloned();
        assert_eq!(account("eip155:8453"), Some(PayTo::Evm(other.parse().unwrap())));
        assert_eq!(account("eip155:1"), Some(PayTo::Evm(BASE.parse().unwrap())));
        assert_eq!(account("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"), None);
    }

    #[test]
    fn accounts_of_the_wrong_kind_or_with_a_slip_are_refused() {
        for value in [
            json!({"eip155": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"}),
            json!({"solana": BASE}),
            json!({"eip155": "0x209693bc6afc0C5328bA36FaF03C514EF312287C"}),
            json!({"eip155": "0x0000000000000000000000000000000000000000"}),
            json!({"base": BASE}),
            json!({"eip155": 1}),
            json!("0x"),
        ] {
            let mut errors = Errors::default();
            PayToMap::read(Some(Node::root(&value)), &mut errors);
            assert_eq!(errors.into_vec().len(), 1, "{value}");
        }
        let mut errors = Errors::default();
        PayToMap::read(Some(Node::root(&json!({"eip155": BASE.to_lowercase()}))), &mut errors);
        assert!(errors.is_empty());
    }
}
