//! What can be tested wherever this is compiled for, in WebAssembly above all: Project Wycheproof, and inputs whose results by oracles are known
//! as a sum over all of them. Where the oracles themselves can be compiled, the other tests make these sums of what they say.
#![allow(clippy::arithmetic_side_effects)] // of inputs

use super::group::Affine;
use super::multiply::{self, Prepared};
use super::scalar::Scalar;
use super::words::{self, Words};
use super::{Key, recover};

/// The sums of what oracles say of [`recoveries`] and of [`sums_of_multiples`].
pub(super) const RECOVERIES: u64 = 0xaf89_bdc8_5e99_d32e;
pub(super) const SUMS_OF_MULTIPLES: u64 = 0x3916_1375_d101_999e;

const P: [u32; 8] = [!976, !1, !0, !0, !0, !0, !0, !0];
const N: [u32; 8] = [0xd036_4141, 0xbfd2_5e8c, 0xaf48_a03b, 0xbaae_dce6, !1, !0, !0, !0];
const LAMBDA: [u32; 8] = [
    0x1b23_bd72,
    0xdf02_967c,
    0x2081_6678,
    0x122e_22ea,
    0x8812_645a,
    0xa526_1c02,
    0xc05c_30e0,
    0x5363_ad4c,
];
/// p − n, most significant byte first.
const P_MINUS_N: [u8; 32] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x45, 0x51, 0x23, 0x19, 0x50, 0xb7, 0x5f, 0xc4, 0x40, 0x2d, 0xa1, 0x72, 0x2f, 0xc9,
    0xba, 0xee,
];

/// What is recovered from: the digest, r, s, and whether y is odd.
pub(super) type Signed = ([u8; 32], [u8; 32], [u8; 32], bool);

fn sum(a: &Words, b: &Words) -> Words {
    let mut sum = *a;
    words::add(&mut sum, b);
    sum
}

fn difference(a: &Words, b: &Words) -> Words {
    let mut difference = *a;
    words::subtract(&mut difference, b);
    difference
}

fn small(number: u32) -> Words {
    [number, 0, 0, 0, 0, 0, 0, 0]
}

fn power_of_two(power: u32) -> Words {
    let mut words = [0; 8];
    words::set_bits(&mut words, power, 1);
    words
}

/// What goes wrong where numbers are small, near a modulus, a power of two, or λ.
pub(super) fn special() -> Vec<[u8; 32]> {
    let mut numbers = vec![];
    let halved = |number: &Words| std::array::from_fn(|index| words::bits(number, index as u32 * 32 + 1, 32));
    for base in [
        [0; 8],
        P,
        N,
        halved(&N),
        LAMBDA,
        difference(&N, &LAMBDA),
        halved(&LAMBDA),
        difference(&P, &N),
    ] {
        for near in 0..4 {
            numbers.extend([sum(&base, &small(near)), difference(&base, &small(near))]);
        }
    }
    for power in [16, 26, 29, 30, 32, 48, 58, 64, 80, 96, 112, 127, 128, 129, 232, 255] {
        let power = power_of_two(power);
        numbers.extend([
            power,
            difference(&power, &small(1)),
            sum(&power, &small(1)),
            difference(&N, &power),
            difference(&P, &power),
            difference(&P, &sum(&power, &small(1))),
        ]);
    }
    numbers.iter().map(words::to_bytes).collect()
}

/// Numbers that look random, and are the same ones everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn number(&mut self) -> [u8; 32] {
        words::to_bytes(&std::array::from_fn(|_| self.next() as u32))
    }

    /// A special number as often as not.
    fn either(&mut self, special: &[[u8; 32]]) -> [u8; 32] {
        match self.next() {
            choice if choice & 1 == 0 => special[((choice >> 1) % special.len() as u64) as usize],
            _ => self.number(),
        }
    }
}

/// Signatures, of which about half are of some key.
pub(super) fn recoveries() -> Vec<Signed> {
    let (mut random, special) = (Random(1), special());
    let mut one = || {
        (
            random.either(&special),
            random.either(&special),
            random.either(&special),
            random.next() & 1 == 1,
        )
    };
    (0..4000).map(|_| one()).collect()
}

/// Numbers g, q and k below n, for g G + q (k G), of which k is not zero. Every third sum meets itself: g is q k or its negative.
pub(super) fn sums_of_multiples() -> Vec<[Scalar; 3]> {
    let (mut random, special) = (Random(2), special());
    let mut scalar = || Scalar::reduce(&random.either(&special));
    (0..3000)
        .map(|index| {
            let [g, q, k] = [scalar(), scalar(), scalar()];
            let k = if k.is_zero() {
                Scalar::reduce(&words::to_bytes(&small(1)))
            } else {
                k
            };
            let met = q.mul(&k);
            let g = match index % 6 {
                0 => met,
                3 => met.negate(),
                _ => g,
            };
            [g, q, k]
        })
        .collect()
}

/// A sum over results, in their order (FNV-1a).
pub(super) fn sum_over(results: impl IntoIterator<Item = Option<[u8; 64]>>) -> u64 {
    results
        .into_iter()
        .flat_map(|result| result.map_or(vec![1], |point| point.to_vec()))
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// The point `key` G, from a sum that is tested with the rest.
pub(super) fn point_of(key: &Scalar) -> Affine {
    let zero = Scalar::reduce(&[0; 32]);
    multiply::sum_of_multiples(key, &zero, &Affine::GENERATOR).to_affine().unwrap()
}

/// `recover`, and that the key which it finds has signed.
pub(super) fn recovered((digest, r, s, odd): &Signed) -> Option<[u8; 64]> {
    let key = recover(digest, r, s, *odd)?;
    assert!(key.prepare().signed(digest, r, s, *odd));
    Some(key.to_bytes())
}

/// The sum, from the point itself and from what is prepared of it.
pub(super) fn summed(of_generator: &Scalar, of_point: &Scalar, point: &Affine) -> Option<[u8; 64]> {
    let sum = multiply::sum_of_multiples(of_generator, of_point, point)
        .to_affine()
        .map(Affine::to_bytes);
    let prepared = Prepared::new(point);
    assert_eq!(
        sum,
        prepared.sum_of_multiples(of_generator, of_point).to_affine().map(Affine::to_bytes)
    );
    sum
}

/// Whether the key is found to have signed; it has to be where it is recovered, and nowhere else.
pub(super) fn signed(key: [u8; 64], (digest, r, s, odd): &Signed) -> bool {
    let (x, y) = key.split_first_chunk().unwrap();
    let key = Key(Affine::from_x(x, y[31] & 1 == 1).unwrap());
    let signed = key.prepare().signed(digest, r, s, *odd);
    assert_eq!(
        signed,
        recover(digest, r, s, *odd).map(Key::to_bytes) == Some(key.to_bytes()),
        "{digest:?} {r:?} {s:?} {odd}"
    );
    signed
}

#[test]
fn recoveries_are_those_of_the_oracles() {
    assert_eq!(sum_over(recoveries().iter().map(recovered)), RECOVERIES);
}

#[test]
fn sums_of_multiples_are_those_of_the_oracles() {
    let sums = sums_of_multiples();
    assert_eq!(sum_over(sums.iter().map(|[g, q, k]| summed(g, q, &point_of(k)))), SUMS_OF_MULTIPLES);
}

/// What is valid names its key, unless the x of R is r + n, for which Ethereum has no `v`; what is not valid never does.
#[test]
fn wycheproof_agrees() {
    let word = |text: &str| {
        let mut word = [0; 32];
        hex::decode_to_slice(text, &mut word).unwrap();
        word
    };
    let (mut key, mut valid, mut beyond, mut invalid) = ([0; 64], 0, 0, 0);
    for line in include_str!("../wycheproof.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(next) = line.strip_prefix("key ") {
            hex::decode_to_slice(next, &mut key).unwrap();
            continue;
        }
        let [digest, signature, result] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (r, s) = signature.split_at(64);
        let (r, s) = (word(r), word(s));
        let signed = [false, true].into_iter().any(|odd| signed(key, &(word(digest), r, s, odd)));
        if result == "valid" {
            assert!(signed || r < P_MINUS_N, "{line}");
            (valid, beyond) = (valid + 1, beyond + u32::from(!signed));
        } else {
            assert!(!signed, "{line}");
            invalid += 1;
        }
    }
    assert_eq!((valid, beyond, invalid), (167, 2, 67));
}
