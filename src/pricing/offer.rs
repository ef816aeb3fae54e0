//! Offers: the ways a route can be paid, each with all that a challenge must say of it.

use std::fmt;

use crate::evm::Address;
use crate::x402::Network;

/// An amount in an asset's smallest unit (USDC: one millionth).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Atomic(pub u128);

impl Atomic {
    /// The same in millionths of a token, which a 64-bit counter can add up for tokens of any decimals; a fraction is dropped.
    pub fn millionths(self, decimals: u8) -> u128 {
        let shift = |places: u8| 10u128.checked_pow(u32::from(places));
        match decimals.checked_sub(6) {
            Some(finer) => shift(finer).and_then(|by| self.0.checked_div(by)).unwrap_or(0),
            None => self.0.saturating_mul(shift(6u8.saturating_sub(decimals)).unwrap_or(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_the_same_for_tokens_of_all_decimals() {
        assert_eq!(Atomic(1_500_000).millionths(6), 1_500_000);
        assert_eq!(Atomic(1_500_000_000_000_000_000).millionths(18), 1_500_000);
        assert_eq!(Atomic(999_999_999_999).millionths(18), 0);
        assert_eq!(Atomic(15).millionths(1), 1_500_000);
        assert_eq!(Atomic(3).millionths(0), 3_000_000);
        assert_eq!(Atomic(u128::MAX).millionths(0), u128::MAX);
        assert_eq!(Atomic(u128::MAX).millionths(255), 0);
    }
}

/// The index of the first offer whose token is a dollar.
pub fn in_dollars(offers: &[Offer]) -> Option<usize> {
    offers.iter().position(|offer| &*offer.asset.currency == "usd")
}

/// How an amount relates to what is paid. Source: x402 v2, "schemes".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// The amount is paid.
    Exact,
    /// At most the amount is paid.
    Upto,
}

impl Scheme {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Upto => "upto",
        }
    }
}

/// How the token moves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// EIP-3009 `transferWithAuthorization`. `exact` only.
    Eip3009,
    /// Permit2 through the x402 proxy of the scheme.
    Permit2,
    /// EIP-2612 `permit` to a spender who pulls the amount and passes it on (LibertAI's way). Scheme `upto`, v1 body only.
    Permit {
        /// Who is allowed to pull; `payTo` in the requirements.
        spender: Address,
    },
    /// A Solana transaction that the payer has signed.
    Solana,
}

/// Where the money goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PayTo {
    /// An EVM account.
    Evm(Address),
    /// A Solana account, in base58, checked to be 32 bytes.
    Solana(Box<str>),
}

/// As requirements write it.
impl fmt::Display for PayTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evm(address) => address.fmt(f),
            Self::Solana(account) => f.write_str(account),
        }
    }
}

/// A token on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asset {
    /// `USDC`
    pub symbol: Box<str>,
    /// The chain the token lives on.
    pub network: Network,
    /// The token's address as challenges show it: EIP-55 for EVM, base58 for Solana.
    pub address: Box<str>,
    /// The same for EVM networks, by value.
    pub evm_address: Option<Address>,
    /// Decimals of the smallest unit: 6 for USDC.
    pub decimals: u8,
    /// The currency that the token stands for, in lower case: `usd`, `eur`.
    pub currency: Box<str>,
    /// EIP-712 domain name and version, for EVM tokens.
    pub eip712: Option<Eip712Domain>,
}

/// The part of a token's EIP-712 domain that its address does not give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Eip712Domain {
    /// `USD Coin` on Base, `USDC` on Base Sepolia.
    pub name: Box<str>,
    /// `2` for Circle's tokens.
    pub version: Box<str>,
}

/// A configured way to be paid for one route: scheme, network, asset, payTo, and the amount once priced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// `exact` or `upto`.
    pub scheme: Scheme,
    /// The token and its network.
    pub asset: Asset,
    /// How the token moves.
    pub transfer: Transfer,
    /// The seller's account on that network.
    pub pay_to: PayTo,
    /// The same as requirements write it: an EVM account's checksum costs a hash.
    pub seller: Box<str>,
    /// `maxTimeoutSeconds` of the requirements.
    pub max_timeout_seconds: u64,
    /// What is charged, in the asset's smallest unit.
    pub amount: Atomic,
    /// Whether it is settled before the backend is asked: advertised as `extra.paymentFlow`.
    pub upfront: bool,
    /// Token domain separator (EIP-3009, EIP-2612) or Permit2's, computed once at configuration; zeros on Solana.
    pub domain_separator: [u8; 32],
    /// Indices into the configuration's facilitators that serve this network, in order of preference; never empty.
    pub facilitators: Vec<usize>,
}
