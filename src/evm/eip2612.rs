//! EIP-2612: an allowance granted by signature, which a facilitator submits and then spends.

use super::eip712::{signing_hash, struct_hash};
use super::{Address, Nonce, U256};

/// Hash of `Permit(address owner,…,uint256 deadline)`.
const TYPE_HASH: [u8; 32] = [
    0x6e, 0x71, 0xed, 0xae, 0x12, 0xb1, 0xb9, 0x7f, 0x4d, 0x1f, 0x60, 0x37, 0x0f, 0xef, 0x10, 0x10, 0x5f, 0xa2, 0xfa, 0xae, 0x01, 0x26,
    0x11, 0x4a, 0x16, 0x9c, 0x64, 0x84, 0x5d, 0x61, 0x26, 0xc9,
];

/// An EIP-2612 permit. LibertAI's clients send one in the shape of an EIP-3009 authorization: `to` is the spender,
/// `validBefore` the deadline and `nonce` the owner's counter as 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Who pays, and must have signed.
    pub owner: Address,
    /// Who may spend: the facilitator's account.
    pub spender: Address,
    /// How much it may spend, in the token's smallest unit.
    pub value: U256,
    /// The owner's next counter at the token (`nonces(owner)`).
    pub nonce: Nonce,
    /// Seconds since 1970; the permit is valid until it.
    pub deadline: U256,
}

impl Permit {
    /// What `owner` signs, under the token's [`super::domain_separator`].
    pub fn digest(&self, domain: &[u8; 32]) -> [u8; 32] {
        let hash = struct_hash([
            TYPE_HASH,
            self.owner.to_word(),
            self.spender.to_word(),
            self.value.0,
            self.nonce.0,
            self.deadline.0,
        ]);
        signing_hash(domain, &hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::{SignatureForm, domain_separator, keccak256, recover};

    #[test]
    fn type_hash_is_that_of_the_type() {
        let text = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)";
        assert_eq!(TYPE_HASH, keccak256(text.as_bytes()));
    }

    /// Recorded from `@libertai/x402` 0.1.0, paying on Base.
    #[test]
    fn recovers_the_owner_of_a_recorded_permit() {
        let permit = Permit {
            owner: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap(),
            spender: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap(),
            value: "100000".parse().unwrap(),
            nonce: Nonce::from_u256(U256::ZERO),
            deadline: "1795223691".parse().unwrap(),
        };
        let signature = "0xc86cc0a4bb186baecda15bf89132637aca1c8ff32e581a847411dbc368e35f63\
                         7524af0375b338bcb26b00c380ba01aa1a02c37e320880af04b72d2ada8a35fb1b";
        let Ok(SignatureForm::Eoa(signature)) = SignatureForm::parse(signature) else {
            panic!("{signature}");
        };
        let token = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".parse().unwrap();
        let domain = domain_separator("USD Coin", "2", 8453, &token);
        assert_eq!(recover(&permit.digest(&domain), &signature), Some(permit.owner));
    }
}
