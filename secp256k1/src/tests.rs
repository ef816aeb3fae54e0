//! Holds the arithmetic against `ruint`'s, points against k256's, and recovery against k256 and libsecp256k1.
#![allow(clippy::arithmetic_side_effects)] // of the oracles

use super::field::Field;
use super::group::{Affine, Jacobian};
use super::multiply;
use super::scalar::{Half, Scalar};
use super::{Key, recover, vectors, words};
use alloy_primitives::{U256, uint};
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::point::DecompressPoint;
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::{AffinePoint, ProjectivePoint};
use proptest::prelude::*;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, Secp256k1};

const P: U256 = uint!(0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f_U256);
const N: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const LAMBDA: U256 = uint!(0x5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72_U256);

fn special() -> Vec<U256> {
    vectors::special().into_iter().map(U256::from_be_bytes).collect()
}

fn number() -> impl Strategy<Value = U256> {
    let long_runs =
        prop::collection::vec(prop::sample::select(vec![0_u8, 0xff, 0x80, 1]), 32).prop_map(|bytes| U256::from_be_slice(&bytes));
    prop_oneof![
        4 => any::<[u8; 32]>().prop_map(U256::from_be_bytes),
        2 => prop::sample::select(special()),
        1 => long_runs,
        1 => any::<u64>().prop_map(U256::from),
    ]
}

fn field(number: U256) -> Field {
    Field::from_words(&words::from_bytes(&(number % P).to_be_bytes()))
}

fn value(field: Field) -> U256 {
    U256::from_be_bytes(words::to_bytes(&field.to_words()))
}

fn scalar(number: U256) -> Scalar {
    Scalar::reduce(&number.to_be_bytes())
}

fn scalar_value(scalar: &Scalar) -> U256 {
    U256::from_be_bytes(scalar.to_bytes())
}

fn half_value(half: Half) -> U256 {
    let size = U256::from(half.size);
    if half.negative && size != U256::ZERO { N - size } else { size }
}

fn theirs(number: U256) -> k256::Scalar {
    k256::Scalar::from_repr((number % N).to_be_bytes().into()).unwrap()
}

/// 64 bytes, as `Affine::to_bytes`; `None` at infinity.
fn their_bytes(point: ProjectivePoint) -> Option<[u8; 64]> {
    let encoded = point.to_affine().to_sec1_point(false);
    encoded.as_bytes().get(1..)?.try_into().ok()
}

fn our_bytes(point: Jacobian) -> Option<[u8; 64]> {
    Some(point.to_affine()?.to_bytes())
}

fn affine(point: ProjectivePoint) -> Affine {
    let bytes = their_bytes(point).unwrap();
    let (x, y) = bytes.split_first_chunk().unwrap();
    Affine::from_x(x, y[31] & 1 == 1).unwrap()
}

/// The point with another z.
fn scaled(point: Affine, z: Field) -> Jacobian {
    let squared = z.square();
    Jacobian {
        x: point.x.mul(&squared),
        y: point.y.mul(&squared).mul(&z),
        z,
        infinity: false,
    }
}

fn doubled(mut point: Jacobian) -> Jacobian {
    point.double();
    point
}

fn added(mut point: Jacobian, other: ProjectivePoint) -> Jacobian {
    point.add(&affine(other));
    point
}

/// A sum of up to four small numbers times powers of two and of λ.
fn few_digits() -> impl Strategy<Value = U256> {
    let digit = (0..8_u64, 0..129_usize, any::<bool>(), any::<bool>()).prop_map(|(size, power, lambda, negative)| {
        let digit = (U256::ONE << power).mul_mod(U256::from(size), N);
        let digit = if lambda { digit.mul_mod(LAMBDA, N) } else { digit };
        if negative { (N - digit) % N } else { digit }
    });
    prop::collection::vec(digit, 0..4).prop_map(|digits| digits.into_iter().fold(U256::ZERO, |sum, digit| sum.add_mod(digit, N)))
}

/// r, s and the digest as k256 sees them: from the definition.
fn by_k256(digest: U256, r: U256, s: U256, odd: bool) -> Option<[u8; 64]> {
    if r.is_zero() || r >= N || s.is_zero() || s >= N {
        return None;
    }
    let point = AffinePoint::decompress(&r.to_be_bytes().into(), u8::from(odd).into()).into_option()?;
    let inverse = theirs(r).invert().unwrap();
    their_bytes(ProjectivePoint::from(point) * (theirs(s) * inverse) - ProjectivePoint::GENERATOR * (theirs(digest) * inverse))
}

fn by_libsecp256k1(digest: U256, r: U256, s: U256, odd: bool) -> Option<[u8; 64]> {
    let signature = [r.to_be_bytes::<32>(), s.to_be_bytes()].concat();
    let id = if odd { RecoveryId::One } else { RecoveryId::Zero };
    let signature = RecoverableSignature::from_compact(&signature, id).ok()?;
    let key = Secp256k1::new()
        .recover_ecdsa(Message::from_digest(digest.to_be_bytes()), &signature)
        .ok()?;
    key.serialize_uncompressed()[1..].try_into().ok()
}

fn ours(digest: U256, r: U256, s: U256, odd: bool) -> Option<[u8; 64]> {
    recover(&digest.to_be_bytes(), &r.to_be_bytes(), &s.to_be_bytes(), odd).map(Key::to_bytes)
}

fn our_sum(of_generator: &Scalar, of_point: &Scalar, point: ProjectivePoint) -> Option<[u8; 64]> {
    vectors::summed(of_generator, of_point, &affine(point))
}

fn ours_of(key: [u8; 64], digest: U256, r: U256, s: U256, odd: bool) -> bool {
    vectors::signed(key, &(digest.to_be_bytes(), r.to_be_bytes(), s.to_be_bytes(), odd))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn fields_agree(a in number(), b in number()) {
        let (x, y) = (field(a), field(b));
        let (a, b) = (a % P, b % P);
        prop_assert_eq!(value(x), a);
        prop_assert_eq!(value(x.reduce()), a);
        prop_assert_eq!(value(-x), (P - a) % P);
        prop_assert_eq!(value(x + y), a.add_mod(b, P));
        prop_assert_eq!(value(x - y), a.add_mod(P - b, P));
        prop_assert_eq!(value(x.double()), a.add_mod(a, P));
        prop_assert_eq!(value(x.mul(&y)), a.mul_mod(b, P));
        prop_assert_eq!(value(x.square()), a.mul_mod(a, P));
        let half = (P + U256::ONE) >> 1;
        prop_assert_eq!(value(x.reduce().three_halves()), a.mul_mod(U256::from(3), P).mul_mod(half, P));
        prop_assert_eq!(x.is_odd(), a.bit(0));
        prop_assert_eq!((x - y).reduce().is_zero(), a == b);
        prop_assert_eq!((x.mul(&y) - y.mul(&x)).reduce().is_zero(), true);
        prop_assert_eq!(x.mul(&y).is_zero(), a.is_zero() || b.is_zero());
        prop_assert_eq!(value(x.invert()), a.inv_mod(P).unwrap_or_default());
        let square = a.mul_mod(a, P);
        let root = field(square).square_root().map(value);
        prop_assert!(root == Some(a) || root == Some((P - a) % P));
        // −1 is no square modulo p.
        prop_assert!(a.is_zero() || field(P - square).square_root().is_none());
    }

    /// Products of the largest sizes that may be multiplied: with the checks for overflow that tests have.
    #[test]
    fn fields_agree_as_large_as_they_may_be(a in number(), b in number()) {
        let (x, y) = (field(a).reduce(), field(b).reduce());
        let (a, b) = (a % P, b % P);
        let times = |x: Field, n: u64| (1..n).fold(x, |sum, _| sum + x);
        for (m, n) in [(3, 4), (6, 2), (7, 1), (1, 7), (2, 6), (4, 3)] {
            for (x, y) in [(x, y), (-x, y), (-x, -y)] {
                let (a, b) = (value(x), value(y));
                let product = a.mul_mod(b, P).mul_mod(U256::from(m * n), P);
                prop_assert_eq!(value(times(x, m).mul(&times(y, n))), product);
            }
        }
        prop_assert_eq!(value(times(x, 3).square()), a.mul_mod(a, P).mul_mod(U256::from(9), P));
        prop_assert_eq!(value(times(x, 7)), a.mul_mod(U256::from(7), P));
        prop_assert_eq!(value(-times(y, 7)), (P - b.mul_mod(U256::from(7), P)) % P);
    }

    #[test]
    fn scalars_agree(a in number(), b in number()) {
        let (x, y) = (scalar(a), scalar(b));
        prop_assert_eq!(Scalar::from_bytes(&a.to_be_bytes()).is_some(), a < N);
        let (a, b) = (a % N, b % N);
        prop_assert_eq!(scalar_value(&x), a);
        prop_assert_eq!(x.is_zero(), a.is_zero());
        prop_assert_eq!(scalar_value(&x.negate()), (N - a) % N);
        prop_assert_eq!(scalar_value(&x.mul(&y)), a.mul_mod(b, N));
        prop_assert_eq!(scalar_value(&x.invert()), a.inv_mod(N).unwrap_or_default());
        let (first, second) = x.split();
        prop_assert_eq!(half_value(first).add_mod(half_value(second).mul_mod(LAMBDA, N), N), a);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sums_of_points_agree(a in number(), b in number(), z in number(), scale in number()) {
        let (z, scale) = (field(z), field(scale));
        let (a, b) = (theirs(a), theirs(b));
        prop_assume!(!bool::from(a.is_zero()) && !bool::from(b.is_zero()) && !z.reduce().is_zero() && !scale.reduce().is_zero());
        let (z, scale) = (z.reduce(), scale.reduce());
        let (a, b) = (ProjectivePoint::GENERATOR * a, ProjectivePoint::GENERATOR * b);
        let point = scaled(affine(a), z);
        prop_assert_eq!(our_bytes(point), their_bytes(a));
        prop_assert_eq!(our_bytes(doubled(point)), their_bytes(a.double()));
        for other in [b, a, -a, a.double(), -a.double()] {
            let sum = their_bytes(a + other);
            prop_assert_eq!(our_bytes(added(point, other)), sum);
            // On the curve where z lacks `scale`.
            let mut total = scaled(affine(a), z.mul(&scale));
            total.z = z;
            total.add_unscaled(&affine(other), &scale);
            total.z = total.z.mul(&scale);
            prop_assert_eq!(our_bytes(total), sum);
            // After sums, sizes are as large as they become.
            let more = doubled(added(doubled(added(point, other)), b));
            prop_assert_eq!(our_bytes(more), their_bytes(((a + other).double() + b).double()));
            if other != a && other != -a {
                let mut sum = affine(a);
                let run = sum.run_to(&affine(other));
                sum.add_distinct(&affine(other), &run.invert());
                prop_assert_eq!(Some(sum.to_bytes()), their_bytes(a + other));
            }
        }
        prop_assert_eq!(our_bytes(doubled(Jacobian::INFINITY)), None);
        prop_assert_eq!(our_bytes(added(Jacobian::INFINITY, a)), their_bytes(a));
    }

    /// Few digits, at places that points which are the generator's multiples by a power of two share with the generator: the same points come
    /// together, and opposite ones.
    #[test]
    fn sums_of_few_points_agree(g in few_digits(), q in few_digits(), base in 0..9_usize, odd in 0..8_u64, negative in any::<bool>()) {
        let key = (U256::ONE << (16 * base)).mul_mod(U256::from(2 * odd + 1), N);
        let key = if negative { N - key } else { key };
        let point = ProjectivePoint::GENERATOR * theirs(key);
        for (g, q) in [(g, q), (g, g), (q, q), (N - g, g), (g, N - q)] {
            let sum = ProjectivePoint::GENERATOR * theirs(g) + point * theirs(q);
            prop_assert_eq!(our_sum(&scalar(g), &scalar(q), point), their_bytes(sum));
        }
    }

    #[test]
    fn sums_of_multiples_agree(g in number(), q in number(), key in number()) {
        prop_assume!(!(key % N).is_zero());
        let point = ProjectivePoint::GENERATOR * theirs(key);
        prop_assert_eq!(our_sum(&scalar(g), &scalar(q), point), their_bytes(ProjectivePoint::GENERATOR * theirs(g) + point * theirs(q)));
    }

    /// Nothing, and twice the same: g G + q Q with g = ±q key.
    #[test]
    fn sums_that_meet_agree(q in number(), key in prop_oneof![number(), (1..40_u64).prop_map(U256::from)], negative in any::<bool>()) {
        prop_assume!(!(key % N).is_zero());
        let point = ProjectivePoint::GENERATOR * theirs(key);
        let mut g = (q % N).mul_mod(key % N, N);
        if negative {
            g = N - g;
        }
        prop_assert_eq!(our_sum(&scalar(g), &scalar(q), point), their_bytes(ProjectivePoint::GENERATOR * theirs(g) + point * theirs(q)));
    }

    #[test]
    fn recovery_agrees(digest in number(), r in number(), s in number(), odd in any::<bool>()) {
        let key = ours(digest, r, s, odd);
        prop_assert_eq!(key, by_k256(digest, r, s, odd));
        prop_assert_eq!(key, by_libsecp256k1(digest, r, s, odd));
        if let Some(key) = key {
            prop_assert!(ours_of(key, digest, r, s, odd));
            // Every malleation, and what is out of range.
            for (r, s, odd) in [(r, s, !odd), (r, N - s, odd), (r, N - s, !odd), (r.wrapping_add(N), s, odd), (r, s.wrapping_add(N), odd), (U256::ZERO, s, odd)] {
                ours_of(key, digest, r, s, odd);
            }
            ours_of(key, digest.wrapping_add(U256::ONE), r, s, odd);
        }
    }
}

/// Special multiples of the generator and of special points.
#[test]
fn special_sums_of_multiples_agree() {
    let special: Vec<_> = special().into_iter().filter(|number| *number < N).collect();
    for (index, g) in special.iter().enumerate() {
        for (q, key) in special.iter().zip(special.iter().cycle().skip(index)).step_by(5) {
            if key.is_zero() {
                continue;
            }
            let point = ProjectivePoint::GENERATOR * theirs(*key);
            let theirs = ProjectivePoint::GENERATOR * theirs(*g) + point * theirs(*q);
            assert_eq!(our_sum(&scalar(*g), &scalar(*q), point), their_bytes(theirs), "{g} {q} {key}");
        }
    }
}

#[test]
fn special_signatures_agree() {
    let special = special();
    for (index, r) in special.iter().enumerate() {
        for (s, digest) in special.iter().skip(index % 3).zip(special.iter().cycle().skip(7)).step_by(3) {
            for odd in [false, true] {
                let key = ours(*digest, *r, *s, odd);
                assert_eq!(key, by_libsecp256k1(*digest, *r, *s, odd), "{digest} {r} {s} {odd}");
            }
        }
    }
}

/// R's x is r + n, below p: such an R is not meant by a `v` of 27 or 28, whoever made the signature.
#[test]
fn an_x_beyond_the_order_is_nobodys() {
    let mut tried = 0;
    for r in (1..40_u64).map(U256::from) {
        for odd in [false, true] {
            let Some(point) = Affine::from_x(&(r + N).to_be_bytes(), odd) else {
                continue;
            };
            // With s = 1 and z = 0: Q = R / r, as it would be with an id of 2 or 3.
            let key = multiply::sum_of_multiples(&scalar(U256::ZERO), &scalar(r).invert(), &point)
                .to_affine()
                .unwrap();
            assert!(!ours_of(key.to_bytes(), U256::ZERO, r, U256::ONE, odd));
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

/// Where the oracles cannot be compiled, these sums stand for them. Whoever changes the inputs takes the sums from here.
#[test]
fn the_sums_over_results_are_the_oracles() {
    let of_k256 = vectors::recoveries().into_iter().map(|(digest, r, s, odd)| {
        let [digest, r, s] = [digest, r, s].map(U256::from_be_bytes);
        let key = by_k256(digest, r, s, odd);
        assert_eq!(key, by_libsecp256k1(digest, r, s, odd), "{digest} {r} {s} {odd}");
        key
    });
    let found: Vec<_> = of_k256.collect();
    let keys = found.iter().flatten().count();
    assert!(keys > 1000 && found.len() - keys > 1000, "{keys} of {}", found.len());

    let sums = vectors::sums_of_multiples().into_iter().map(|numbers| {
        let [g, q, k] = numbers.map(|number| theirs(scalar_value(&number)));
        their_bytes(ProjectivePoint::GENERATOR * g + ProjectivePoint::GENERATOR * k * q)
    });
    let theirs = [vectors::sum_over(found), vectors::sum_over(sums)];
    assert_eq!(theirs, [vectors::RECOVERIES, vectors::SUMS_OF_MULTIPLES], "{theirs:#x?}");
}
