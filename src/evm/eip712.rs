//! EIP-712: domains, struct hashes and the digest that is signed.

use super::{Address, PERMIT2, U256, keccak256};

/// Hash of [`DOMAIN_TYPE`].
const DOMAIN_TYPE_HASH: [u8; 32] = [
    0x8b, 0x73, 0xc3, 0xc6, 0x9b, 0xb8, 0xfe, 0x3d, 0x51, 0x2e, 0xcc, 0x4c, 0xf7, 0x59, 0xcc, 0x79, 0x23, 0x9f, 0x7b, 0x17, 0x9b, 0x0f,
    0xfa, 0xca, 0xa9, 0xa7, 0x5d, 0x52, 0x2b, 0x39, 0x40, 0x0f,
];
/// Hash of [`DOMAIN_TYPE_WITHOUT_VERSION`].
const DOMAIN_TYPE_HASH_WITHOUT_VERSION: [u8; 32] = [
    0x8c, 0xad, 0x95, 0x68, 0x7b, 0xa8, 0x2c, 0x2c, 0xe5, 0x0e, 0x74, 0xf7, 0xb7, 0x54, 0x64, 0x5e, 0x51, 0x17, 0xc3, 0xa5, 0xbe, 0xc8,
    0x15, 0x1c, 0x07, 0x26, 0xd5, 0x85, 0x79, 0x80, 0xa8, 0x66,
];
/// Hash of `Permit2`, the name in Permit2's domain.
const PERMIT2_NAME_HASH: [u8; 32] = [
    0x9a, 0xc9, 0x97, 0x41, 0x6e, 0x8f, 0xf9, 0xd2, 0xff, 0x6b, 0xeb, 0xeb, 0x71, 0x49, 0xf6, 0x5c, 0xda, 0xe5, 0xe3, 0x2e, 0x2b, 0x90,
    0x44, 0x0b, 0x56, 0x6b, 0xb3, 0x04, 0x40, 0x41, 0xd3, 0x6a,
];

/// The domain separator of a token: what binds a signature to one contract on one chain.
///
/// `name` and `version` are what the contract says (`extra.name` and `extra.version` of the payment requirements).
/// It depends on configuration alone: compute it once per offer.
pub fn domain_separator(name: &str, version: &str, chain_id: u64, token: &Address) -> [u8; 32] {
    struct_hash([
        DOMAIN_TYPE_HASH,
        keccak256(name.as_bytes()),
        keccak256(version.as_bytes()),
        U256::from(chain_id).0,
        token.to_word(),
    ])
}

/// The domain separator of Permit2 on a chain: its domain has no version.
pub fn permit2_domain(chain_id: u64) -> [u8; 32] {
    struct_hash([
        DOMAIN_TYPE_HASH_WITHOUT_VERSION,
        PERMIT2_NAME_HASH,
        U256::from(chain_id).0,
        PERMIT2.to_word(),
    ])
}

/// `hashStruct`: the hash of the type hash and the encoded members, all of which are one word here.
pub(super) fn struct_hash<const N: usize>(words: [[u8; 32]; N]) -> [u8; 32] {
    keccak256(words.as_flattened())
}

/// The digest that is signed: the hash of 0x19, 0x01, the domain separator and the struct hash.
pub(super) fn signing_hash(domain: &[u8; 32], hash: &[u8; 32]) -> [u8; 32] {
    let mut message = [0; 66];
    let parts = [0x19, 0x01].iter().chain(domain).chain(hash);
    for (to, from) in message.iter_mut().zip(parts) {
        *to = *from;
    }
    keccak256(&message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_sol_types::Eip712Domain;
    use proptest::prelude::*;

    const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
    const DOMAIN_TYPE_WITHOUT_VERSION: &str = "EIP712Domain(string name,uint256 chainId,address verifyingContract)";

    #[test]
    fn type_hashes_are_those_of_the_types() {
        assert_eq!(DOMAIN_TYPE_HASH, keccak256(DOMAIN_TYPE.as_bytes()));
        assert_eq!(DOMAIN_TYPE_HASH_WITHOUT_VERSION, keccak256(DOMAIN_TYPE_WITHOUT_VERSION.as_bytes()));
        assert_eq!(PERMIT2_NAME_HASH, keccak256(b"Permit2"));
    }

    #[test]
    fn usdc_on_base_has_the_separator_of_its_contract() {
        let usdc = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".parse().unwrap();
        assert_eq!(
            hex::encode(domain_separator("USD Coin", "2", 8453, &usdc)),
            "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f"
        );
    }

    proptest! {
        #[test]
        fn agrees_with_alloy(name in ".{0,40}", version in ".{0,8}", chain_id: u64, token: [u8; 20]) {
            let theirs = Eip712Domain::new(
                Some(name.clone().into()),
                Some(version.clone().into()),
                Some(alloy_primitives::U256::from(chain_id)),
                Some(token.into()),
                None,
            );
            prop_assert_eq!(domain_separator(&name, &version, chain_id, &Address(token)), theirs.separator().0);
            let theirs = Eip712Domain::new(
                Some("Permit2".into()),
                None,
                Some(alloy_primitives::U256::from(chain_id)),
                Some(PERMIT2.0.into()),
                None,
            );
            prop_assert_eq!(permit2_domain(chain_id), theirs.separator().0);
        }
    }
}
