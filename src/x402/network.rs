//! Networks: CAIP-2 identifiers, and the names that x402 v1 gives some of them.

use core::fmt;

/// v1 names and their CAIP-2 identifiers. `published` marks those that the published v1 clients (`x402` 1.2.0) know:
/// an item with any other makes them throw the whole list of requirements away.
const V1_NAMES: &[(&str, &str, bool)] = &[
    ("base", "eip155:8453", true),
    ("base-sepolia", "eip155:84532", true),
    ("avalanche", "eip155:43114", true),
    ("avalanche-fuji", "eip155:43113", true),
    ("polygon", "eip155:137", true),
    ("polygon-amoy", "eip155:80002", true),
    ("abstract", "eip155:2741", true),
    ("abstract-testnet", "eip155:11124", true),
    ("iotex", "eip155:4689", true),
    ("sei", "eip155:1329", true),
    ("sei-testnet", "eip155:1328", true),
    ("peaq", "eip155:3338", true),
    ("story", "eip155:1514", true),
    ("educhain", "eip155:41923", true),
    ("skale-base-sepolia", "eip155:324705682", true),
    ("solana", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", true),
    ("solana-devnet", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", true),
    ("ethereum", "eip155:1", false),
    ("sepolia", "eip155:11155111", false),
    ("arbitrum", "eip155:42161", false),
    ("optimism", "eip155:10", false),
];

/// A blockchain, as a CAIP-2 identifier such as `eip155:8453`.
///
/// Source: x402 v2 specification, "network"; CAIP-2.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(Box<str>);

/// A string that is neither a CAIP-2 identifier nor a v1 network name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownNetwork;

impl fmt::Display for UnknownNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a CAIP-2 network such as \"eip155:8453\"")
    }
}

impl Network {
    /// Parses a CAIP-2 identifier: `[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}`.
    pub fn parse(text: &str) -> Result<Self, UnknownNetwork> {
        let (namespace, reference) = text.split_once(':').ok_or(UnknownNetwork)?;
        let namespace_ok =
            (3..=8).contains(&namespace.len()) && namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let reference_ok =
            (1..=32).contains(&reference.len()) && reference.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !namespace_ok || !reference_ok {
            return Err(UnknownNetwork);
        }
        // An EVM reference is the chain id in canonical decimal: "eip155:08453" must not be another network.
        if namespace == "eip155" && (reference.starts_with('0') || reference.parse::<u64>().is_err()) {
            return Err(UnknownNetwork);
        }
        Ok(Self(text.into()))
    }

    /// Parses a v1 name (`base`), or a CAIP-2 identifier where a client sends one in its place.
    pub fn parse_v1(text: &str) -> Result<Self, UnknownNetwork> {
        match V1_NAMES.iter().find(|(name, ..)| *name == text) {
            Some((_, caip2, _)) => Ok(Self((*caip2).into())),
            None => Self::parse(text),
        }
    }

    /// The CAIP-2 identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The CAIP-2 namespace: `eip155`, `solana`, ...
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or("", |(namespace, _)| namespace)
    }

    /// The name that v1 has for this network, or its CAIP-2 identifier where v1 has none.
    pub fn v1_name(&self) -> &str {
        self.row().map_or(&self.0, |(name, ..)| name)
    }

    /// Whether the published v1 clients know this network.
    pub fn known_to_v1_clients(&self) -> bool {
        self.row().is_some_and(|(_, _, published)| *published)
    }

    /// The EVM chain id, for networks of the namespace `eip155`.
    pub fn chain_id(&self) -> Option<u64> {
        self.0.strip_prefix("eip155:")?.parse().ok()
    }

    /// Whether this is a Solana network.
    pub fn is_solana(&self) -> bool {
        self.namespace() == "solana"
    }

    fn row(&self) -> Option<&'static (&'static str, &'static str, bool)> {
        V1_NAMES.iter().find(|(_, caip2, _)| *caip2 == &*self.0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_names_round_trip() {
        for (name, caip2, _) in V1_NAMES {
            let network = Network::parse_v1(name).unwrap();
            assert_eq!(network.as_str(), *caip2);
            assert_eq!(network.v1_name(), *name);
            assert_eq!(Network::parse(caip2).unwrap(), network);
        }
    }

    #[test]
    fn a_network_without_a_v1_name_keeps_its_identifier() {
        let network = Network::parse("eip155:31337").unwrap();
        assert_eq!(network.v1_name(), "eip155:31337");
        assert_eq!(network.chain_id(), Some(31337));
        assert!(!network.known_to_v1_clients());
    }

    #[test]
    fn what_is_not_caip2_is_refused() {
        for text in [
            "",
            "base",
            "eip155",
            "eip155:",
            "eip155:08453",
            "eip155:0x1",
            "EIP155:1",
            "eip155:1:2",
            "e:1",
            "solana:a b",
        ] {
            assert_eq!(Network::parse(text), Err(UnknownNetwork), "{text}");
        }
    }
}
