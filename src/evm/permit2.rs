//! Permit2 with a witness: payments in any ERC-20 token, of scheme `exact` or `upto`.

use super::eip712::{signing_hash, struct_hash};
use super::{Address, U256};

/// Hash of `TokenPermissions(address token,uint256 amount)`.
const TOKEN_PERMISSIONS: [u8; 32] = [
    0x61, 0x83, 0x58, 0xac, 0x3d, 0xb8, 0xdc, 0x27, 0x4f, 0x0c, 0xd8, 0x82, 0x9d, 0xa7, 0xe2, 0x34, 0xbd, 0x48, 0xcd, 0x73, 0xc4, 0xa7,
    0x40, 0xae, 0xde, 0x1a, 0xde, 0xc9, 0x84, 0x6d, 0x06, 0xa1,
];
/// Hash of `Witness(address to,uint256 validAfter)`.
const EXACT_WITNESS: [u8; 32] = [
    0xd9, 0x7b, 0x32, 0x39, 0xa7, 0xf3, 0x22, 0x95, 0x51, 0x7b, 0xd1, 0x4c, 0xb0, 0x74, 0xed, 0xfd, 0xd1, 0x88, 0xdf, 0xe5, 0xeb, 0x42,
    0xf8, 0x02, 0xbb, 0x26, 0xd4, 0xfd, 0x1e, 0xb1, 0x2c, 0x37,
];
/// Hash of `Witness(address to,address facilitator,uint256 validAfter)`.
const UPTO_WITNESS: [u8; 32] = [
    0xd4, 0x17, 0x1c, 0x44, 0x5a, 0x74, 0x21, 0x8b, 0x01, 0xd4, 0xfd, 0x8a, 0xf3, 0x4f, 0xf1, 0x10, 0x65, 0x80, 0xea, 0x1e, 0x36, 0xff,
    0x83, 0x7e, 0x64, 0x48, 0x4b, 0xfa, 0xa2, 0x25, 0x3b, 0x75,
];
/// Hash of `PermitWitnessTransferFrom(…)` followed by its member types, with the witness of `exact`.
const EXACT_PERMIT: [u8; 32] = [
    0xeb, 0xc1, 0x56, 0xcd, 0x23, 0x67, 0x8a, 0x74, 0xc9, 0x4d, 0xf1, 0x3d, 0x77, 0x2e, 0xf5, 0x47, 0x84, 0x20, 0x63, 0x7f, 0x0c, 0x94,
    0xbd, 0x10, 0xd5, 0x09, 0xe1, 0xdc, 0x98, 0xf5, 0x21, 0xc7,
];
/// The same with the witness of `upto`.
const UPTO_PERMIT: [u8; 32] = [
    0x51, 0xdf, 0xf6, 0x97, 0x4a, 0xd4, 0x38, 0x8c, 0x49, 0x9e, 0x7f, 0xcf, 0xe8, 0x38, 0xd2, 0xbd, 0x76, 0x71, 0x62, 0x55, 0x3a, 0x14,
    0x40, 0x98, 0xce, 0x20, 0xea, 0x66, 0x1d, 0x70, 0xc2, 0xee,
];

/// The `permit2Authorization` of a payload, without `from`, which is not signed but must be the signer
/// (x402 specification, `scheme_exact_evm` and `scheme_upto_evm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermitWitnessTransferFrom {
    /// `permitted.token`.
    pub token: Address,
    /// `permitted.amount`: the amount, or the most of it, in the token's smallest unit.
    pub amount: U256,
    /// Who may take it: [`super::EXACT_PERMIT2_PROXY`] or [`super::UPTO_PERMIT2_PROXY`].
    pub spender: Address,
    /// Unique per payer, whatever the token.
    pub nonce: U256,
    /// Seconds since 1970; the permit is valid until it.
    pub deadline: U256,
    /// What the proxy holds the facilitator to.
    pub witness: Witness,
}

/// What else the payer signed; it also tells the schemes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Of scheme `exact`.
    Exact {
        /// Who is paid.
        to: Address,
        /// Seconds since 1970; the payment is valid from it.
        valid_after: U256,
    },
    /// Of scheme `upto`.
    Upto {
        /// Who is paid.
        to: Address,
        /// The only account that may settle (`extra.facilitatorAddress`).
        facilitator: Address,
        /// Seconds since 1970; the payment is valid from it.
        valid_after: U256,
    },
}

impl Witness {
    /// Who is paid.
    pub const fn to(&self) -> Address {
        match self {
            Self::Exact { to, .. } | Self::Upto { to, .. } => *to,
        }
    }

    /// Seconds since 1970; the payment is valid from it.
    pub const fn valid_after(&self) -> U256 {
        match self {
            Self::Exact { valid_after, .. } | Self::Upto { valid_after, .. } => *valid_after,
        }
    }
}

impl PermitWitnessTransferFrom {
    /// What the payer signs, under [`super::permit2_domain`].
    pub fn digest(&self, domain: &[u8; 32]) -> [u8; 32] {
        let permitted = struct_hash([TOKEN_PERMISSIONS, self.token.to_word(), self.amount.0]);
        let (permit, witness) = match &self.witness {
            Witness::Exact { to, valid_after } => (EXACT_PERMIT, struct_hash([EXACT_WITNESS, to.to_word(), valid_after.0])),
            Witness::Upto {
                to,
                facilitator,
                valid_after,
            } => (
                UPTO_PERMIT,
                struct_hash([UPTO_WITNESS, to.to_word(), facilitator.to_word(), valid_after.0]),
            ),
        };
        let hash = struct_hash([permit, permitted, self.spender.to_word(), self.nonce.0, self.deadline.0, witness]);
        signing_hash(domain, &hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::{EXACT_PERMIT2_PROXY, SignatureForm, UPTO_PERMIT2_PROXY, keccak256, permit2_domain, recover};

    #[test]
    fn type_hashes_are_those_of_the_types() {
        let permit = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,\
                      uint256 deadline,Witness witness)";
        let permissions = "TokenPermissions(address token,uint256 amount)";
        let exact = "Witness(address to,uint256 validAfter)";
        let upto = "Witness(address to,address facilitator,uint256 validAfter)";
        assert_eq!(TOKEN_PERMISSIONS, keccak256(permissions.as_bytes()));
        assert_eq!(EXACT_WITNESS, keccak256(exact.as_bytes()));
        assert_eq!(UPTO_WITNESS, keccak256(upto.as_bytes()));
        assert_eq!(EXACT_PERMIT, keccak256([permit, permissions, exact].concat().as_bytes()));
        assert_eq!(UPTO_PERMIT, keccak256([permit, permissions, upto].concat().as_bytes()));
    }

    /// Recorded from `@x402/fetch` 2.27 and Python `x402` 2.25, paying on Base Sepolia.
    #[test]
    fn recovers_the_payers_of_recorded_payments() {
        let to = "0x90F79bf6EB2c4f870365E785982E1f101E93b906".parse().unwrap();
        let facilitator = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".parse().unwrap();
        let exact = Witness::Exact {
            to,
            valid_after: U256::ZERO,
        };
        let upto = Witness::Upto {
            to,
            facilitator,
            valid_after: U256::ZERO,
        };
        let recorded = [
            (
                [
                    "1000",
                    "43095190180136176214102032079561979774689775070622287715377294874178829381566",
                    "1795223580",
                ],
                exact,
                "0x9fcdd87b6c735661beb06576215234eb99cc26e0e7cf70980d1adc2e627e521e\
                 7e22db0d91461ed1d021fd89e5206ec110e10d0a7b5ec9afa2c6866becdc523d1c",
            ),
            (
                [
                    "1000",
                    "115652296463079753257231906851197382950234459692785125073979855205670969136992",
                    "1795223623",
                ],
                exact,
                "0x232ebc51a3d33ad618f121da001c10d2ea2184fea0f0b0cd875db96ec98a05c9\
                 54c73c995404572e2d8c40cde88c743643dc402c49dfbd697a714d9c8ede68021b",
            ),
            (
                [
                    "100000",
                    "26766662814111274617105199336728492413464742631609164732948880504988914686954",
                    "1795223586",
                ],
                upto,
                "0xe3b53b9518db6443647ab36bbd433b9e963bc0fd6179583e40284e4ca9d7f648\
                 3288bbec24ef3a89bdd82f2d521a05d78366b5382051078f038deccebf0308a81c",
            ),
        ];
        for ([amount, nonce, deadline], witness, signature) in recorded {
            let permit = PermitWitnessTransferFrom {
                token: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap(),
                amount: amount.parse().unwrap(),
                spender: if witness == exact {
                    EXACT_PERMIT2_PROXY
                } else {
                    UPTO_PERMIT2_PROXY
                },
                nonce: nonce.parse().unwrap(),
                deadline: deadline.parse().unwrap(),
                witness,
            };
            let Ok(SignatureForm::Eoa(signature)) = SignatureForm::parse(signature) else {
                panic!("{signature}");
            };
            let payer = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse().unwrap();
            assert_eq!(recover(&permit.digest(&permit2_domain(84532)), &signature), Some(payer));
            assert_eq!((witness.to(), witness.valid_after()), (to, U256::ZERO));
        }
    }
}
