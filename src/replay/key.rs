//! What makes a payment unique, hashed.

use crate::evm::{Address, Nonce, U256, keccak256};
use std::fmt;

/// What can be spent once, as 16 bytes that nobody outside can predict: the keyed hash of what makes it unique.
///
/// Networks are CAIP-2 names as the configuration spells them (`eip155:8453`); names of v1 must be translated before.
/// The secret is [`super::secret`]'s.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey([u8; 16]);

/// The first byte of what is hashed: nonces of different kinds have nothing to do with each other.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Eip3009 = 1,
    Eip2612 = 2,
    Permit2 = 3,
    Solana = 4,
    Payer = 5,
    Seller = 6,
    Identifier = 7,
}

impl ClaimKey {
    /// EIP-3009: a nonce is unique per network, token and owner.
    pub fn eip3009(secret: &[u8; 16], network: &str, token: &Address, owner: &Address, nonce: &Nonce) -> Self {
        Self::of(
            secret,
            Kind::Eip3009,
            network,
            &[token.as_bytes(), owner.as_bytes(), nonce.as_bytes()],
        )
    }

    /// EIP-2612: the counter is the owner's at the token, apart from the nonces of EIP-3009.
    pub fn eip2612(secret: &[u8; 16], network: &str, token: &Address, owner: &Address, nonce: &Nonce) -> Self {
        Self::of(
            secret,
            Kind::Eip2612,
            network,
            &[token.as_bytes(), owner.as_bytes(), nonce.as_bytes()],
        )
    }

    /// Permit2: a nonce is the owner's, whatever the token, the scheme and the witness.
    pub fn permit2(secret: &[u8; 16], network: &str, owner: &Address, nonce: &U256) -> Self {
        Self::of(secret, Kind::Permit2, network, &[owner.as_bytes(), nonce.as_bytes()])
    }

    /// Solana: a transaction is unique by its message, hashed without the signatures.
    pub fn solana(secret: &[u8; 16], network: &str, message_hash: &[u8; 32]) -> Self {
        Self::of(secret, Kind::Solana, network, &[message_hash])
    }

    /// A payer on a route, by name, as networks write accounts: what bans and exposure are kept under.
    pub fn payer(secret: &[u8; 16], route: &str, currency: &str, payer: &str) -> Self {
        Self::of(secret, Kind::Payer, route, &[currency.as_bytes(), b"/", payer.as_bytes()])
    }

    /// All payers of a route in a currency.
    pub fn all_payers(secret: &[u8; 16], route: &str, currency: &str) -> Self {
        Self::of(secret, Kind::Seller, route, &[currency.as_bytes()])
    }

    /// What a payer calls a payment (the `payment-identifier` extension): nobody else's names matter.
    pub fn identifier(secret: &[u8; 16], payer: &str, identifier: &str) -> Self {
        Self::of(secret, Kind::Identifier, payer, &[identifier.as_bytes()])
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A key from bytes that were one.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Keccak is no Merkle-Damgård hash: a secret in front makes it a keyed one. The network (or route) is the only field
    /// without a fixed size or an end that cannot be within it, so its length goes before it.
    fn of(secret: &[u8; 16], kind: Kind, network: &str, fields: &[&[u8]]) -> Self {
        let mut message = Vec::with_capacity(160);
        message.extend_from_slice(secret);
        message.push(kind as u8);
        message.extend_from_slice(&(network.len() as u64).to_be_bytes());
        message.extend_from_slice(network.as_bytes());
        for field in fields {
            message.extend_from_slice(field);
        }
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(keccak256(&message)) {
            *to = from;
        }
        Self(key)
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimKey({})", hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SECRET: [u8; 16] = [7; 16];
    const BASE: &str = "eip155:8453";
    const TOKEN: Address = Address([1; 20]);
    const OWNER: Address = Address([2; 20]);
    const NONCE: Nonce = Nonce([3; 32]);

    #[test]
    fn each_part_makes_another_key() {
        let keys = [
            ClaimKey::eip3009(&SECRET, BASE, &TOKEN, &OWNER, &NONCE),
            ClaimKey::eip3009(&[8; 16], BASE, &TOKEN, &OWNER, &NONCE),
            ClaimKey::eip3009(&SECRET, "eip155:845", &TOKEN, &OWNER, &NONCE),
            ClaimKey::eip3009(&SECRET, BASE, &OWNER, &TOKEN, &NONCE),
            ClaimKey::eip3009(&SECRET, BASE, &TOKEN, &TOKEN, &NONCE),
            ClaimKey::eip3009(&SECRET, BASE, &TOKEN, &OWNER, &Nonce([4; 32])),
            ClaimKey::eip2612(&SECRET, BASE, &TOKEN, &OWNER, &NONCE),
            ClaimKey::permit2(&SECRET, BASE, &OWNER, &NONCE.to_u256()),
            ClaimKey::permit2(&SECRET, "eip155:1", &OWNER, &NONCE.to_u256()),
            ClaimKey::permit2(&SECRET, BASE, &TOKEN, &NONCE.to_u256()),
            ClaimKey::permit2(&SECRET, BASE, &OWNER, &U256::ZERO),
            ClaimKey::solana(&SECRET, "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", &NONCE.0),
            ClaimKey::solana(&SECRET, BASE, &NONCE.0),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn spelling_makes_no_difference() {
        let lower = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913".parse().unwrap();
        let mixed = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".parse().unwrap();
        assert_eq!(
            ClaimKey::eip3009(&SECRET, BASE, &lower, &OWNER, &NONCE),
            ClaimKey::eip3009(&SECRET, BASE, &mixed, &OWNER, &NONCE),
        );
    }
}
