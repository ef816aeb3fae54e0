//! Keccak-256 as Ethereum uses it: the padding from before SHA-3 was standardised. Source: FIPS 202, section 3, but for the padding.
//!
//! Bodies of requests are hashed with it, so that it has to be fast in V8: a round is written out, for the state to stay in registers.

/// Bytes that are taken in at once: the state but for twice the hash.
const RATE: usize = 136;

/// What makes the rounds differ (ι).
const ROUNDS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

type State = [u64; 25];

/// The hash of all bytes.
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    let mut state = [0; 25];
    let (blocks, rest) = bytes.as_chunks::<RATE>();
    for block in blocks {
        absorb(&mut state, block);
    }
    let mut last = [0; RATE];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    // The padding: a one, zeros, and a one, lowest bits first.
    if let Some(byte) = last.get_mut(rest.len()) {
        *byte ^= 0x01;
    }
    let [.., end] = &mut last;
    *end ^= 0x80;
    absorb(&mut state, &last);
    let mut hash = [0; 32];
    for (to, from) in hash.as_chunks_mut::<8>().0.iter_mut().zip(state) {
        *to = from.to_le_bytes();
    }
    hash
}

fn absorb(state: &mut State, block: &[u8; RATE]) {
    for (lane, word) in state.iter_mut().zip(block.as_chunks::<8>().0) {
        *lane ^= u64::from_le_bytes(*word);
    }
    permute(state);
}

/// Keccak-f[1600]. Lane x, y is number 5y + x.
fn permute(state: &mut State) {
    let [
        mut a0,
        mut a1,
        mut a2,
        mut a3,
        mut a4,
        mut a5,
        mut a6,
        mut a7,
        mut a8,
        mut a9,
        mut a10,
        mut a11,
        mut a12,
        mut a13,
        mut a14,
        mut a15,
        mut a16,
        mut a17,
        mut a18,
        mut a19,
        mut a20,
        mut a21,
        mut a22,
        mut a23,
        mut a24,
    ] = *state;
    for constant in ROUNDS {
        // θ
        let c0 = a0 ^ a5 ^ a10 ^ a15 ^ a20;
        let c1 = a1 ^ a6 ^ a11 ^ a16 ^ a21;
        let c2 = a2 ^ a7 ^ a12 ^ a17 ^ a22;
        let c3 = a3 ^ a8 ^ a13 ^ a18 ^ a23;
        let c4 = a4 ^ a9 ^ a14 ^ a19 ^ a24;
        let d0 = c4 ^ c1.rotate_left(1);
        let d1 = c0 ^ c2.rotate_left(1);
        let d2 = c1 ^ c3.rotate_left(1);
        let d3 = c2 ^ c4.rotate_left(1);
        let d4 = c3 ^ c0.rotate_left(1);
        // ρ and π
        let b0 = a0 ^ d0;
        let b10 = (a1 ^ d1).rotate_left(1);
        let b20 = (a2 ^ d2).rotate_left(62);
        let b5 = (a3 ^ d3).rotate_left(28);
        let b15 = (a4 ^ d4).rotate_left(27);
        let b16 = (a5 ^ d0).rotate_left(36);
        let b1 = (a6 ^ d1).rotate_left(44);
        let b11 = (a7 ^ d2).rotate_left(6);
        let b21 = (a8 ^ d3).rotate_left(55);
        let b6 = (a9 ^ d4).rotate_left(20);
        let b7 = (a10 ^ d0).rotate_left(3);
        let b17 = (a11 ^ d1).rotate_left(10);
        let b2 = (a12 ^ d2).rotate_left(43);
        let b12 = (a13 ^ d3).rotate_left(25);
        let b22 = (a14 ^ d4).rotate_left(39);
        let b23 = (a15 ^ d0).rotate_left(41);
        let b8 = (a16 ^ d1).rotate_left(45);
        let b18 = (a17 ^ d2).rotate_left(15);
        let b3 = (a18 ^ d3).rotate_left(21);
        let b13 = (a19 ^ d4).rotate_left(8);
        let b14 = (a20 ^ d0).rotate_left(18);
        let b24 = (a21 ^ d1).rotate_left(2);
        let b9 = (a22 ^ d2).rotate_left(61);
        let b19 = (a23 ^ d3).rotate_left(56);
        let b4 = (a24 ^ d4).rotate_left(14);
        // χ and ι
        a0 = b0 ^ (!b1 & b2) ^ constant;
        a1 = b1 ^ (!b2 & b3);
        a2 = b2 ^ (!b3 & b4);
        a3 = b3 ^ (!b4 & b0);
        a4 = b4 ^ (!b0 & b1);
        a5 = b5 ^ (!b6 & b7);
        a6 = b6 ^ (!b7 & b8);
        a7 = b7 ^ (!b8 & b9);
        a8 = b8 ^ (!b9 & b5);
        a9 = b9 ^ (!b5 & b6);
        a10 = b10 ^ (!b11 & b12);
        a11 = b11 ^ (!b12 & b13);
        a12 = b12 ^ (!b13 & b14);
        a13 = b13 ^ (!b14 & b10);
        a14 = b14 ^ (!b10 & b11);
        a15 = b15 ^ (!b16 & b17);
        a16 = b16 ^ (!b17 & b18);
        a17 = b17 ^ (!b18 & b19);
        a18 = b18 ^ (!b19 & b15);
        a19 = b19 ^ (!b15 & b16);
        a20 = b20 ^ (!b21 & b22);
        a21 = b21 ^ (!b22 & b23);
        a22 = b22 ^ (!b23 & b24);
        a23 = b23 ^ (!b24 & b20);
        a24 = b24 ^ (!b20 & b21);
    }
    *state = [
        a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22, a23, a24,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha3::{Digest, Keccak256};
    use tiny_keccak::{Hasher, Keccak};

    fn by_another(bytes: &[u8]) -> [u8; 32] {
        let (mut hasher, mut hash) = (Keccak::v256(), [0; 32]);
        hasher.update(bytes);
        hasher.finalize(&mut hash);
        hash
    }

    #[test]
    fn hashes_the_known_inputs() {
        let known = [
            ("", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
            ("abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        ];
        for (text, hash) in known {
            assert_eq!(hex::encode(keccak256(text.as_bytes())), hash);
        }
    }

    /// Around each multiple of what is taken in at once, the padding has another shape.
    #[test]
    fn every_length_is_padded_as_two_others_pad_it() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(5 * RATE).collect();
        for length in 0..=bytes.len() {
            let (part, _) = bytes.split_at(length);
            let hash = keccak256(part);
            assert_eq!(hash, *Keccak256::digest(part), "{length}");
            assert_eq!(hash, by_another(part), "{length}");
        }
    }

    proptest! {
        #[test]
        fn hashes_as_two_others_do(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let hash = keccak256(&bytes);
            prop_assert_eq!(hash, <[u8; 32]>::from(Keccak256::digest(&bytes)));
            prop_assert_eq!(hash, by_another(&bytes));
        }
    }
}
