//! The keys of accounts that have signed before: who signs with one of them is told in half of the time.

use super::recover::recover_key;
use super::{Address, Signature};
use std::sync::{Mutex, PoisonError};
use x402_secp256k1::{Key, PreparedKey};

/// Keys that are kept. Prepared, each is 2.3 KiB: in all, they take 600 KiB of a worker's memory at most, and the generator's multiples 144 KiB.
const SLOTS: usize = 256;

/// The keys that a worker has seen. Each account has one place, by the last byte of its address, and shares it with others: the last to sign has it.
///
/// A key gets here only by being recovered from a signature, and its address is made of it: nobody can have another's signatures refused or their own taken
/// for another's, and who makes many accounts has others' keys recovered once more.
#[derive(Debug, Default)]
pub struct Payers(Mutex<Vec<Option<Payer>>>);

#[derive(Clone, Debug)]
struct Payer {
    address: Address,
    key: Known,
}

/// Preparing a key takes longer than it saves the first time: it is left until the account signs again. Who signs only twice costs a tenth more
/// than by two recoveries, and every time after that half of one.
#[derive(Clone, Debug)]
enum Known {
    Seen(Key),
    Prepared(PreparedKey),
}

impl Payers {
    /// Whether `payer`'s key made `signature` over `digest`: whether [`super::recover`] would name it.
    pub fn signed(&self, payer: &Address, digest: &[u8; 32], signature: &Signature) -> bool {
        let Address([.., place]) = *payer;
        let place = usize::from(place);
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(known)) = slots.get_mut(place)
            && known.address == *payer
        {
            return known.key.signed(digest, signature);
        }
        match recover_key(digest, signature) {
            Some((address, key)) if address == *payer => {
                if slots.is_empty() {
                    slots.resize(SLOTS, None);
                }
                if let Some(slot) = slots.get_mut(place) {
                    *slot = Some(Payer {
                        address,
                        key: Known::Seen(key),
                    });
                }
                true
            }
            _ => false,
        }
    }
}

impl Known {
    fn signed(&mut self, digest: &[u8; 32], signature: &Signature) -> bool {
        let (r, s, odd) = (signature.r(), signature.s(), signature.y_parity());
        match self {
            Self::Prepared(key) => key.signed(digest, r, s, odd),
            Self::Seen(key) => {
                let key = key.prepare();
                let signed = key.signed(digest, r, s, odd);
                *self = Self::Prepared(key);
                signed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evm::{keccak256, recover};
    use k256::ecdsa::SigningKey;

    fn sign(key: u8, digest: &[u8; 32]) -> (Address, Signature) {
        let key = SigningKey::from_slice(&keccak256(&[key])).unwrap();
        let (signature, id) = key.sign_prehash_recoverable(digest);
        let (r, s) = signature.split_bytes();
        let signature = Signature::new(r.into(), s.into(), id.is_y_odd()).unwrap();
        (recover(digest, &signature).unwrap(), signature)
    }

    #[test]
    fn knows_its_payers_and_nobody_else() {
        let payers = Payers::default();
        for round in 0..4_u8 {
            for key in 0..60_u8 {
                let digest = keccak256(&[round, key]);
                let (payer, signature) = sign(key, &digest);
                let (other, others) = sign(key.wrapping_add(1), &digest);
                // Another's signature, another digest and the other parity are no signatures of the payer's, whether it is known or not.
                let flipped = Signature::new(*signature.r(), *signature.s(), !signature.y_parity()).unwrap();
                assert!(!payers.signed(&payer, &digest, &others));
                assert!(!payers.signed(&other, &digest, &signature));
                assert!(!payers.signed(&payer, &keccak256(&digest), &signature));
                assert!(!payers.signed(&payer, &digest, &flipped));
                assert!(payers.signed(&payer, &digest, &signature));
            }
        }
        assert_eq!(payers.0.lock().unwrap().len(), SLOTS);
    }

    #[test]
    fn one_that_shares_a_place_takes_it() {
        let payers = Payers::default();
        let digest = [9; 32];
        let mut seen = std::collections::BTreeMap::new();
        let (first, second) = (0..=255)
            .find_map(|key| {
                let (Address(address), signature) = sign(key, &digest);
                let before = seen.insert(address[19], (Address(address), signature))?;
                Some((before, (Address(address), signature)))
            })
            .unwrap();
        for _ in 0..3 {
            for (payer, signature) in [first, second, second] {
                assert!(payers.signed(&payer, &digest, &signature));
            }
            assert!(!payers.signed(&second.0, &digest, &first.1));
        }
    }
}
