//! Tests that hold this module against alloy, on thousands of generated payloads and on garbage.
#![allow(clippy::arithmetic_side_effects)] // of counters and lengths, in tests only

use super::eip2612::Permit;
use super::eip3009::TransferWithAuthorization;
use super::permit2::{PermitWitnessTransferFrom, Witness};
use super::*;
use alloy_primitives::{B256, Signature as AlloySignature};
use alloy_sol_types::{Eip712Domain, SolStruct};
use k256::ecdsa::SigningKey;

/// Payloads of each type.
const ROUNDS: u32 = 2_500;

mod oracle_types {
    alloy_sol_types::sol! {
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
        struct Permit {
            address owner;
            address spender;
            uint256 value;
            uint256 nonce;
            uint256 deadline;
        }
        struct TokenPermissions {
            address token;
            uint256 amount;
        }
    }

    pub(super) mod exact {
        alloy_sol_types::sol! {
            struct TokenPermissions {
                address token;
                uint256 amount;
            }
            struct Witness {
                address to;
                uint256 validAfter;
            }
            struct PermitWitnessTransferFrom {
                TokenPermissions permitted;
                address spender;
                uint256 nonce;
                uint256 deadline;
                Witness witness;
            }
        }
    }

    pub(super) mod upto {
        alloy_sol_types::sol! {
            struct TokenPermissions {
                address token;
                uint256 amount;
            }
            struct Witness {
                address to;
                address facilitator;
                uint256 validAfter;
            }
            struct PermitWitnessTransferFrom {
                TokenPermissions permitted;
                address spender;
                uint256 nonce;
                uint256 deadline;
                Witness witness;
            }
        }
    }
}

/// Random values that are the same in each run: hashes of a counter.
struct Values {
    seed: &'static str,
    count: u64,
}

impl Values {
    fn new(seed: &'static str) -> Self {
        Self { seed, count: 0 }
    }

    fn word(&mut self) -> [u8; 32] {
        self.count += 1;
        keccak256(format!("{} {}", self.seed, self.count).as_bytes())
    }

    /// Numbers of all sizes, so that zeros on the left and small amounts occur.
    fn number(&mut self) -> U256 {
        let (mut word, [zeros, ..]) = (self.word(), self.word());
        word[..usize::from(zeros % 33)].fill(0);
        U256(word)
    }

    fn address(&mut self) -> Address {
        Address::from_word(self.word())
    }

    fn chain_id(&mut self) -> u64 {
        self.number().to_u64().unwrap_or(8453)
    }

    /// A token's domain: ours, and alloy's.
    fn token_domain(&mut self) -> ([u8; 32], Eip712Domain) {
        let (name, version) = (format!("Token {}", self.number()), (self.word()[0] % 9).to_string());
        let (chain_id, token) = (self.chain_id(), self.address());
        let theirs = Eip712Domain::new(
            Some(name.clone().into()),
            Some(version.clone().into()),
            Some(alloy_primitives::U256::from(chain_id)),
            Some(token.0.into()),
            None,
        );
        (domain_separator(&name, &version, chain_id, &token), theirs)
    }

    fn permit2_domain(&mut self) -> ([u8; 32], Eip712Domain) {
        let chain_id = self.chain_id();
        let theirs = Eip712Domain::new(
            Some("Permit2".into()),
            None,
            Some(alloy_primitives::U256::from(chain_id)),
            Some(PERMIT2.0.into()),
            None,
        );
        (permit2_domain(chain_id), theirs)
    }

    /// Signs the digest with a fresh key and recovers it from both forms, by us and by alloy.
    fn sign_and_recover(&mut self, digest: [u8; 32]) {
        let key = SigningKey::from_slice(&self.word()).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let signer = Address::from_word(keccak256(&point.as_bytes()[1..]));

        let (signature, id) = key.sign_prehash_recoverable(&digest);
        let bytes = signature.to_bytes();
        let theirs = AlloySignature::from_bytes_and_parity(&bytes, id.is_y_odd());
        let recovered = theirs.recover_address_from_prehash(&digest.into()).unwrap();
        assert_eq!(recovered, signer.0);

        let mut compact = bytes.to_vec();
        compact[32] |= u8::from(id.is_y_odd()) << 7;
        let v = u8::from(id.is_y_odd()) + if self.word()[0] & 1 == 0 { 27 } else { 0 };
        let full = [bytes.as_slice(), &[v]].concat();
        for form in [full, compact] {
            match SignatureForm::parse(&format!("0x{}", hex::encode(form))) {
                Ok(SignatureForm::Eoa(ours)) => assert_eq!(recover(&digest, &ours), Some(signer)),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn alloy(number: U256) -> alloy_primitives::U256 {
    alloy_primitives::U256::from_be_bytes(number.0)
}

#[test]
fn transfers_with_authorization_agree() {
    let mut values = Values::new("eip3009");
    for _ in 0..ROUNDS {
        let ours = TransferWithAuthorization {
            from: values.address(),
            to: values.address(),
            value: values.number(),
            valid_after: values.number(),
            valid_before: values.number(),
            nonce: Nonce(values.word()),
        };
        let theirs = oracle_types::TransferWithAuthorization {
            from: ours.from.0.into(),
            to: ours.to.0.into(),
            value: alloy(ours.value),
            validAfter: alloy(ours.valid_after),
            validBefore: alloy(ours.valid_before),
            nonce: ours.nonce.0.into(),
        };
        let (our_domain, their_domain) = values.token_domain();
        let digest = ours.digest(&our_domain);
        assert_eq!(digest, theirs.eip712_signing_hash(&their_domain).0);
        values.sign_and_recover(digest);
    }
}

#[test]
fn permits_agree() {
    let mut values = Values::new("eip2612");
    for _ in 0..ROUNDS {
        let ours = Permit {
            owner: values.address(),
            spender: values.address(),
            value: values.number(),
            nonce: Nonce::from_u256(values.number()),
            deadline: values.number(),
        };
        let theirs = oracle_types::Permit {
            owner: ours.owner.0.into(),
            spender: ours.spender.0.into(),
            value: alloy(ours.value),
            nonce: alloy(ours.nonce.to_u256()),
            deadline: alloy(ours.deadline),
        };
        let (our_domain, their_domain) = values.token_domain();
        let digest = ours.digest(&our_domain);
        assert_eq!(digest, theirs.eip712_signing_hash(&their_domain).0);
        values.sign_and_recover(digest);
    }
}

#[test]
fn permit2_payments_of_scheme_exact_agree() {
    use oracle_types::exact as oracle;
    let mut values = Values::new("exact");
    for _ in 0..ROUNDS {
        let (to, valid_after) = (values.address(), values.number());
        let ours = PermitWitnessTransferFrom {
            token: values.address(),
            amount: values.number(),
            spender: values.address(),
            nonce: values.number(),
            deadline: values.number(),
            witness: Witness::Exact { to, valid_after },
        };
        let theirs = oracle::PermitWitnessTransferFrom {
            permitted: oracle::TokenPermissions {
                token: ours.token.0.into(),
                amount: alloy(ours.amount),
            },
            spender: ours.spender.0.into(),
            nonce: alloy(ours.nonce),
            deadline: alloy(ours.deadline),
            witness: oracle::Witness {
                to: to.0.into(),
                validAfter: alloy(valid_after),
            },
        };
        let (our_domain, their_domain) = values.permit2_domain();
        let digest = ours.digest(&our_domain);
        assert_eq!(digest, theirs.eip712_signing_hash(&their_domain).0);
        values.sign_and_recover(digest);
    }
}

#[test]
fn permit2_payments_of_scheme_upto_agree() {
    use oracle_types::upto as oracle;
    let mut values = Values::new("upto");
    for _ in 0..ROUNDS {
        let (to, facilitator, valid_after) = (values.address(), values.address(), values.number());
        let ours = PermitWitnessTransferFrom {
            token: values.address(),
            amount: values.number(),
            spender: values.address(),
            nonce: values.number(),
            deadline: values.number(),
            witness: Witness::Upto {
                to,
                facilitator,
                valid_after,
            },
        };
        let theirs = oracle::PermitWitnessTransferFrom {
            permitted: oracle::TokenPermissions {
                token: ours.token.0.into(),
                amount: alloy(ours.amount),
            },
            spender: ours.spender.0.into(),
            nonce: alloy(ours.nonce),
            deadline: alloy(ours.deadline),
            witness: oracle::Witness {
                to: to.0.into(),
                facilitator: facilitator.0.into(),
                validAfter: alloy(valid_after),
            },
        };
        let (our_domain, their_domain) = values.permit2_domain();
        let digest = ours.digest(&our_domain);
        assert_eq!(digest, theirs.eip712_signing_hash(&their_domain).0);
        values.sign_and_recover(digest);
    }
}

#[test]
fn recovery_from_garbage_agrees() {
    let mut values = Values::new("garbage");
    let mut outcomes = [0_u32; 2];
    for _ in 0..ROUNDS {
        // Small numbers are included; about half of all r are no x coordinate.
        let (digest, r, mut s) = (values.number().0, values.number().0, values.number().0);
        s[0] &= 0x7f;
        let parity = values.word()[0] & 1 == 1;
        let Ok(ours) = Signature::new(r, s, parity) else {
            continue;
        };
        let theirs = AlloySignature::from_scalars_and_parity(r.into(), s.into(), parity)
            .recover_address_from_prehash(&B256::from(digest))
            .ok()
            .map(|address| Address(address.into_array()));
        let ours = recover(&digest, &ours);
        assert_eq!(ours, theirs, "{digest:?} {r:?} {s:?} {parity}");
        outcomes[usize::from(ours.is_some())] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > ROUNDS / 4), "{outcomes:?}");
}

/// With R = G, s = z and r = x(G), Q = r⁻¹(sG − zG) is the point at infinity, which is nobody's key.
#[test]
fn the_point_at_infinity_signs_nothing() {
    let x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let (mut r, mut z) = ([0; 32], [0; 32]);
    hex::decode_to_slice(x, &mut r).unwrap();
    z[31] = 7;
    assert_eq!(recover(&z, &Signature::new(r, z, false).unwrap()), None);
    assert!(recover(&z, &Signature::new(r, z, true).unwrap()).is_some());
}

/// No point of the curve has x = 5.
#[test]
fn an_r_that_is_no_coordinate_signs_nothing() {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    (r[31], s[31]) = (5, 1);
    for parity in [false, true] {
        assert_eq!(recover(&[1; 32], &Signature::new(r, s, parity).unwrap()), None);
    }
}
