//! The well-known tokens.

use super::assets::KnownAsset;
use crate::pricing::{Asset, Eip712Domain, Transfer};
use crate::x402::Network;

/// A row of the built-in table: network, symbol, address, EIP-712 name, currency. All have 6 decimals and, on EVM, version 2.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// Circle's tokens. A wrong name makes every signature wrong, so only what could be verified is here.
///
/// USDC: `DEFAULT_ASSETS` of `@x402/evm` 2.27.0 (8453, 84532, 1, 137, 42161, 43114); `config` of `x402` 1.2.0 (43113, and
/// 8453, 84532, 43114, 137 once more); 10: Circle's list of USDC contracts, name from the tables of x402 facilitators.
/// Mints: `USDC_MAINNET_ADDRESS` and `USDC_DEVNET_ADDRESS` of `@x402/svm` 2.27.0.
/// EURC: Circle's list of EURC contracts; `EURC` on Base and Base Sepolia was read from the contracts (coinbase/onchainkit
/// issue 2561), `Euro Coin` on Ethereum is from the tables of an x402 facilitator and of a wallet (dfinity/oisy-wallet).
/// EURC on Avalanche and Fuji is left out: its name could not be verified.
const BUILT_IN: &[Row] = &[
    (
        "eip155:8453",
        "USDC",
        "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
        "USD Coin",
        "usd",
    ),
    ("eip155:84532", "USDC", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "usd"),
    ("eip155:1", "USDC", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin", "usd"),
    (
        "eip155:137",
        "USDC",
        "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359",
        "USD Coin",
        "usd",
    ),
    (
        "eip155:42161",
        "USDC",
        "0xaf88d065e77c8cC2239327C5EDb3A432268e5831",
        "USD Coin",
        "usd",
    ),
    ("eip155:10", "USDC", "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "USD Coin", "usd"),
    (
        "eip155:43114",
        "USDC",
        "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E",
        "USD Coin",
        "usd",
    ),
    (
        "eip155:43113",
        "USDC",
        "0x5425890298aed601595a70AB815c96711a31Bc65",
        "USD Coin",
        "usd",
    ),
    ("eip155:8453", "EURC", "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42", "EURC", "eur"),
    ("eip155:84532", "EURC", "0x808456652fdb597867f38412077A9182bf77359F", "EURC", "eur"),
    ("eip155:1", "EURC", "0x1aBaEA1f7C830bD89Acc67eC4af516284b1bC33c", "Euro Coin", "eur"),
    (
        "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
        "USDC",
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "",
        "usd",
    ),
    (
        "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
        "USDC",
        "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
        "",
        "usd",
    ),
];

/// The well-known token of this symbol on this network.
pub(super) fn find(symbol: &str, network: &Network) -> Option<KnownAsset> {
    let row = BUILT_IN.iter().find(|row| row.0 == network.as_str() && row.1 == symbol)?;
    built_in(row)
}

/// The symbols of the well-known tokens on a network.
pub(super) fn symbols_on(network: &Network) -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().filter(|row| row.0 == network.as_str()).map(|row| row.1)
}

fn built_in((network, symbol, address, name, currency): &Row) -> Option<KnownAsset> {
    let network = Network::parse(network).ok()?;
    let evm_address = address.parse().ok();
    Some(KnownAsset {
        default_of_clients: *symbol == "USDC",
        transfer: if network.is_solana() { Transfer::Solana } else { Transfer::Eip3009 },
        asset: Asset {
            symbol: (*symbol).into(),
            address: (*address).into(),
            evm_address,
            decimals: 6,
            currency: (*currency).into(),
            eip712: evm_address.map(|_| Eip712Domain {
                name: (*name).into(),
                version: "2".into(),
            }),
            network,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::base58::decode_32;

    #[test]
    fn every_built_in_address_is_well_formed() {
        for row in BUILT_IN {
            let known = built_in(row).unwrap();
            match known.asset.evm_address {
                Some(address) => assert_eq!(address.to_string(), row.2, "EIP-55 checksum"),
                None => assert!(decode_32(row.2).is_some(), "{}", row.2),
            }
        }
    }

    #[test]
    fn the_names_that_are_mistaken_most_often() {
        let name = |network: &str| {
            let known = find("USDC", &Network::parse(network).unwrap()).unwrap();
            known.asset.eip712.unwrap().name
        };
        assert_eq!(&*name("eip155:8453"), "USD Coin");
        assert_eq!(&*name("eip155:84532"), "USDC");
    }
}
