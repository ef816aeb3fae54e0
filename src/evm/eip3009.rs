//! EIP-3009: a transfer that the holder authorizes and anybody may submit, the usual payment of scheme `exact`.

use super::eip712::{signing_hash, struct_hash};
use super::{Address, Nonce, U256};

/// Hash of `TransferWithAuthorization(address from,…,bytes32 nonce)`.
const TYPE_HASH: [u8; 32] = [
    0x7c, 0x7c, 0x6c, 0xdb, 0x67, 0xa1, 0x87, 0x43, 0xf4, 0x9e, 0xc6, 0xfa, 0x9b, 0x35, 0xf5, 0x0d, 0x52, 0xed, 0x05, 0xcb, 0xed, 0x4c,
    0xc5, 0x92, 0xe1, 0x3b, 0x44, 0x50, 0x1c, 0x1a, 0x22, 0x67,
];

/// The `authorization` of an EIP-3009 payload (x402 specification, `scheme_exact_evm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferWithAuthorization {
    /// Who pays, and must have signed.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// The amount in the token's smallest unit.
    pub value: U256,
    /// Seconds since 1970; the transfer is valid after it.
    pub valid_after: U256,
    /// Seconds since 1970; the transfer is valid before it.
    pub valid_before: U256,
    /// Unique per payer and token.
    pub nonce: Nonce,
}

impl TransferWithAuthorization {
    /// What `from` signs, under the token's [`super::domain_separator`].
    pub fn digest(&self, domain: &[u8; 32]) -> [u8; 32] {
        let hash = struct_hash([
            TYPE_HASH,
            self.from.to_word(),
            self.to.to_word(),
            self.value.0,
            self.valid_after.0,
            self.valid_before.0,
            self.nonce.0,
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
        let text = "TransferWithAuthorization(address from,address to,uint256 value,\
                    uint256 validAfter,uint256 validBefore,bytes32 nonce)";
        assert_eq!(TYPE_HASH, keccak256(text.as_bytes()));
    }

    /// Recorded from `@x402/fetch` 2.27, `x402-fetch` 1.2 and Python `x402` 2.25, paying on Base Sepolia.
    #[test]
    fn recovers_the_payers_of_recorded_payments() {
        let recorded = [
            (
                [
                    "0",
                    "1795223574",
                    "0x6fe0835b6e307d05b6a541b2cab5945fbc29a7653589a1a25559b015a309bfac",
                ],
                "0xc2e6d90bd12d229e334c0ce28640c9b9b73eab61d2a42db4f977cfa7987de4a1\
                 3b046f2f5b96e90fadee4eb85985a51650c13bb689d894e981bbfe6ab3e11fec1c",
            ),
            (
                [
                    "1795222733",
                    "1795223633",
                    "0x94d4d802b53be0a7bfb57e0d44eb05ce59c8db224af039eca9bf54c473a32943",
                ],
                "0xb62817163504e8b3848729c6699f053d21c4becfd65776e1a4e7dc9b68caca45\
                 40db549095e158ee9c83c71c53fdba41eafea07c5d14199dbb096b344e91229c1b",
            ),
            (
                [
                    "0",
                    "1795223618",
                    "0x3df33feec7e710879588bbdc05f8e3d18200566e64c6f090d4a714ceb2be10a0",
                ],
                "0xb3d173161e32f90d90ad882c4547ff382ed92755bfbfa73c4f0b5c7464be88d5\
                 74f85c90fac385b1dd11eb847cb3b24f86dbf06c57fd50c8ace0dcdb3c4e48941c",
            ),
        ];
        let token = "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap();
        let domain = domain_separator("USDC", "2", 84532, &token);
        for ([valid_after, valid_before, nonce], signature) in recorded {
            let authorization = TransferWithAuthorization {
                from: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap(),
                to: "0x90F79bf6EB2c4f870365E785982E1f101E93b906".parse().unwrap(),
                value: "1000".parse().unwrap(),
                valid_after: valid_after.parse().unwrap(),
                valid_before: valid_before.parse().unwrap(),
                nonce: nonce.parse().unwrap(),
            };
            let Ok(SignatureForm::Eoa(signature)) = SignatureForm::parse(signature) else {
                panic!("{signature}");
            };
            assert_eq!(recover(&authorization.digest(&domain), &signature), Some(authorization.from));
            let other = domain_separator("USD Coin", "2", 84532, &token);
            assert_ne!(recover(&authorization.digest(&other), &signature), Some(authorization.from));
        }
    }
}
