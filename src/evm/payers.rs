//! The keys of accounts that have signed before: who signs with one of them is told in half of the time.

use super::recover::recover_key;
use super::{Address, Signature};
use std::sync::{Mutex, PoisonError};
use x402_secp256k1::{Key, PreparedKey};

/// Sets of keys, each by the last byte of an address.
const SETS: usize = 64;
/// Keys in a set. With one, a hundred payers would cost a third of each other's keys.
const WAYS: usize = 4;

/// Keys that are kept. Prepared, each is 2.3 KiB: in all, they take 600 KiB of a worker's memory at most, and the generator's multiples 144 KiB.
const SLOTS: usize = SETS * WAYS;

/// The keys that a worker has seen. Accounts share sets of a few keys, by the last byte of their address: those that signed last are kept.
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
    Prepared(Box<PreparedKey>),
}

impl Payers {
    /// Whether `payer`'s key made `signature` over `digest`: whether [`super::recover`] would name it.
    pub fn signed(&self, payer: &Address, digest: &[u8; 32], signature: &Signature) -> bool {
        let Address([.., place]) = *payer;
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            slots.resize(SLOTS, None);
        }
        let Some(set) = slots.chunks_exact_mut(WAYS).nth(usize::from(place) % SETS) else {
            return recover_key(digest, signature).is_some_and(|(address, _)| address == *payer);
        };
        let known = |slot: &Option<Payer>| slot.as_ref().is_some_and(|known| known.address == *payer);
        if let Some(at) = set.iter().position(known) {
            // The first of a set signed last.
            if let Some(before) = set.get_mut(..=at) {
                before.rotate_right(1);
            }
            return match set {
                [Some(payer), ..] => payer.key.signed(digest, signature),
                _ => false,
            };
        }
        match recover_key(digest, signature) {
            Some((address, key)) if address == *payer => {
                set.rotate_right(1);
                if let [first, ..] = set {
                    let key = Known::Seen(key);
                    *first = Some(Payer { address, key });
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
                *self = Self::Prepared(Box::new(key));
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
    fn of_those_that_share_a_set_the_last_to_sign_are_kept() {
        let payers = Payers::default();
        let digest = [9; 32];
        let mut sets: std::collections::BTreeMap<usize, Vec<(Address, Signature)>> = std::collections::BTreeMap::new();
        let sharing = (0..=255)
            .find_map(|key| {
                let (payer, signature) = sign(key, &digest);
                let set = sets.entry(usize::from(payer.0[19]) % SETS).or_default();
                set.push((payer, signature));
                (set.len() > WAYS).then(|| set.clone())
            })
            .unwrap();
        let kept = || {
            let slots = payers.0.lock().unwrap();
            let set = slots.chunks(WAYS).nth(usize::from(sharing[0].0.0[19]) % SETS).unwrap();
            set.iter().flatten().map(|payer| payer.address).collect::<Vec<_>>()
        };
        for (payer, signature) in sharing.iter().chain(&sharing[1..]).chain(&sharing) {
            assert!(payers.signed(payer, &digest, signature));
            assert!(!payers.signed(payer, &[8; 32], signature));
            assert_eq!(kept()[0], *payer);
        }
        // All but the one that signed first.
        let newest_first: Vec<Address> = sharing[1..].iter().rev().map(|(payer, _)| *payer).collect();
        assert_eq!(kept(), newest_first);
        assert!(!payers.signed(&sharing[4].0, &digest, &sharing[3].1));
    }
}
