//! An attacker who grinds nonces into one bucket, to keep others from being claimed there: gains nothing without the secret.

use super::bucket::RECORD_BYTES;
use super::buckets::Buckets;
use super::{ClaimKey, Claims, Held, MemoryStore, SharedStore, UnixSeconds};
use crate::evm::{Address, Nonce, U256};

const SECRET: [u8; 16] = *b"nobody knows it.";
/// Few, so that grinding is quick: an attacker has to try one nonce for each of them to find one for the bucket.
const BUCKETS: u32 = 64;
const MAX_CLAIMS: u32 = 6400;
const TRIES: u64 = 100_000;
const NOW: UnixSeconds = UnixSeconds(1_000);

fn key(secret: &[u8; 16], number: u64) -> ClaimKey {
    let nonce = Nonce(*U256::from(number).as_bytes());
    ClaimKey::eip3009(secret, "eip155:8453", &Address([1; 20]), &Address([2; 20]), &nonce)
}

/// The first nonces, of so many, that fall into one bucket if this is the secret.
fn ground(guess: &[u8; 16], tries: u64) -> Vec<u64> {
    let buckets = Buckets::new("claims/1", BUCKETS, MAX_CLAIMS);
    let target = buckets.name_of(&key(guess, 0));
    (0..tries)
        .filter(|number| buckets.name_of(&key(guess, *number)) == target)
        .collect()
}

/// How many records each bucket has.
fn sizes(store: &MemoryStore) -> Vec<usize> {
    let name = |bucket| format!("x402/claims/1/{bucket:04x}");
    let size = |bucket| store.get(&name(bucket)).map_or(0, |(bytes, _)| bytes.len() / RECORD_BYTES);
    (0..BUCKETS).map(size).collect()
}

#[test]
fn ground_nonces_spread_evenly_without_the_secret() {
    // No secret at all, and one that was guessed.
    for guess in [[0; 16], [7; 16]] {
        let nonces = ground(&guess, TRIES);
        let found = u32::try_from(nonces.len()).unwrap();
        assert!(found > 1_000, "{found} of {TRIES}");
        let (store, claims) = (MemoryStore::new(), Claims::with_buckets(BUCKETS, MAX_CLAIMS));
        for number in nonces {
            assert!(claims.claim(&store, &key(&SECRET, number), NOW, NOW).is_ok(), "{number}");
        }
        let sizes = sizes(&store);
        assert_eq!(sizes.iter().sum::<usize>(), found as usize);
        // The room that a bucket has for its share of so many.
        let share = Buckets::new("", BUCKETS, found).capacity();
        assert!(sizes.iter().all(|size| *size <= share), "over {share}: {sizes:?}");
    }
}

#[test]
fn ground_nonces_fill_a_bucket_with_the_secret() {
    let nonces = ground(&SECRET, TRIES / 5);
    let (store, claims) = (MemoryStore::new(), Claims::with_buckets(BUCKETS, MAX_CLAIMS));
    let results: Vec<_> = nonces
        .iter()
        .map(|number| claims.claim(&store, &key(&SECRET, *number), NOW, NOW))
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), claims.capacity());
    assert_eq!(results.last(), Some(&Err(Held::Full)));
    assert_eq!(sizes(&store).iter().filter(|size| **size > 0).count(), 1);
}
