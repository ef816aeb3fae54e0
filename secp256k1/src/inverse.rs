//! Inverses modulo a prime, by the division steps of Bernstein and Yang (<https://gcd.cr.yp.to/safegcd-20190413.pdf>), 30 at a time, as
//! libsecp256k1 does it (its doc/safegcd_implementation.md proves the bounds). How long it takes depends on the number: all of them are public.
#![allow(clippy::arithmetic_side_effects)] // Every limb is below 2³⁰ and every entry of a matrix at most 2³⁰, on either side of zero: four products stay below 2⁶².

use super::words::{self, Words};
use std::array;

const BITS: u32 = 30;
const MASK: i64 = (1 << BITS) - 1;

/// Nine limbs of 30 bits, the lowest first. All but the highest are from 0 to 2³⁰ − 1, and that one has the sign.
type Limbs = [i32; 9];

/// An odd prime, whose limbs may have signs, and its inverse modulo 2³⁰.
pub(super) struct Modulus {
    limbs: Limbs,
    inverse: u32,
}

/// 2²⁵⁶ − 2³² − 977.
pub(super) const MODULUS_P: Modulus = Modulus {
    limbs: [-0x3d1, -4, 0, 0, 0, 0, 0, 0, 1 << 16],
    inverse: 0x2dda_cacf,
};

/// The order of the curve.
pub(super) const MODULUS_N: Modulus = Modulus {
    limbs: [0x1036_4141, 0x3f49_7a33, 0x348a_03bb, 0x2bb7_39ab, -0x146, 0, 0, 0, 1 << 16],
    inverse: 0x2a77_4ec1,
};

/// What 30 division steps make of f and g, times 2³⁰: (u f + v g, q f + r g).
#[derive(Clone, Copy)]
struct Steps {
    u: i32,
    v: i32,
    q: i32,
    r: i32,
}

/// 1 / number, from 0 to the modulus − 1; zero for zero. The number must be below the modulus.
pub(super) fn invert(number: &Words, modulus: &Modulus) -> Words {
    let mut f = modulus.limbs;
    let mut g = array::from_fn(|index| words::bits(number, index as u32 * BITS, BITS) as i32);
    let (mut d, mut e): (Limbs, Limbs) = ([0; 9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut eta = -1;
    // 735 steps are enough for every number.
    for _ in 0..25 {
        if g == [0; 9] {
            break;
        }
        let ([f0, ..], [g0, ..]) = (f, g);
        let steps = divide(&mut eta, f0 as u32, g0 as u32);
        update_inverses(&mut d, &mut e, steps, modulus);
        update(&mut f, &mut g, steps);
    }
    // Now f is 1 or −1, and d its sign over the number.
    let [.., sign] = f;
    normalise(d, sign < 0, modulus)
}

/// 30 steps on the lowest bits of f and g.
#[inline(always)]
fn divide(eta: &mut i32, f: u32, g: u32) -> Steps {
    let (mut f, mut g) = (f, g);
    let (mut u, mut v, mut q, mut r) = (1_u32, 0_u32, 0_u32, 1_u32);
    let mut left = BITS;
    loop {
        let zeros = (g | u32::MAX << left).trailing_zeros();
        g >>= zeros;
        u <<= zeros;
        v <<= zeros;
        *eta -= zeros as i32;
        left -= zeros;
        if left == 0 {
            return Steps {
                u: u as i32,
                v: v as i32,
                q: q as i32,
                r: r as i32,
            };
        }
        if *eta < 0 {
            *eta = -*eta;
            (f, g) = (g, f.wrapping_neg());
            (u, q) = (q, u.wrapping_neg());
            (v, r) = (r, v.wrapping_neg());
        }
        // As many zeros as may be made at once: until f and g change places, until the steps end, and six, for which this inverts f.
        let limit = left.min(*eta as u32 + 1).min(6);
        let factor = f.wrapping_mul(g).wrapping_mul(f.wrapping_mul(f).wrapping_sub(2)) & (u32::MAX >> (32 - limit));
        g = g.wrapping_add(f.wrapping_mul(factor));
        q = q.wrapping_add(u.wrapping_mul(factor));
        r = r.wrapping_add(v.wrapping_mul(factor));
    }
}

/// The steps on all of f and g. What is divided by 2³⁰ has 30 zeros there.
#[inline(always)]
fn update(f: &mut Limbs, g: &mut Limbs, steps: Steps) {
    let [u, v, q, r] = [steps.u, steps.v, steps.q, steps.r].map(i64::from);
    let (mut of_f, mut of_g) = (0_i64, 0_i64);
    let (mut next_f, mut next_g) = ([0; 9], [0; 9]);
    let mut add = |f: i32, g: i32| {
        let (f, g) = (i64::from(f), i64::from(g));
        of_f += u * f + v * g;
        of_g += q * f + r * g;
        let low = ((of_f & MASK) as i32, (of_g & MASK) as i32);
        (of_f, of_g) = (of_f >> BITS, of_g >> BITS);
        low
    };
    let ([f0, f_rest @ ..], [g0, g_rest @ ..]) = (*f, *g);
    add(f0, g0);
    for ((to_f, to_g), (f, g)) in next_f.iter_mut().zip(&mut next_g).zip(f_rest.into_iter().zip(g_rest)) {
        (*to_f, *to_g) = add(f, g);
    }
    let ([.., top_f], [.., top_g]) = (&mut next_f, &mut next_g);
    (*top_f, *top_g) = (of_f as i32, of_g as i32);
    (*f, *g) = (next_f, next_g);
}

/// The steps on d and e, modulo the modulus: a multiple of it is added that makes the lowest 30 bits zeros.
#[inline(always)]
fn update_inverses(d: &mut Limbs, e: &mut Limbs, steps: Steps, modulus: &Modulus) {
    let [u, v, q, r] = [steps.u, steps.v, steps.q, steps.r].map(i64::from);
    let ([d0, .., d8], [e0, .., e8]) = (*d, *e);
    // One modulus more for each that is negative keeps both between −2 and 1 of it.
    let (sign_d, sign_e) = (d8 >> 31, e8 >> 31);
    let of_d = (steps.u & sign_d) + (steps.v & sign_e);
    let of_e = (steps.q & sign_d) + (steps.r & sign_e);
    let multiple = |whole: i32, low: i64| {
        let wrong = modulus.inverse.wrapping_mul(low as u32).wrapping_add(whole as u32) & MASK as u32;
        i64::from(whole) - i64::from(wrong)
    };
    let times_d = multiple(of_d, u.wrapping_mul(d0.into()).wrapping_add(v.wrapping_mul(e0.into())));
    let times_e = multiple(of_e, q.wrapping_mul(d0.into()).wrapping_add(r.wrapping_mul(e0.into())));

    let (mut sum_d, mut sum_e) = (0_i64, 0_i64);
    let (mut next_d, mut next_e) = ([0; 9], [0; 9]);
    let mut add = |d: i32, e: i32, modulus: i32| {
        let (d, e, modulus) = (i64::from(d), i64::from(e), i64::from(modulus));
        sum_d += u * d + v * e + modulus * times_d;
        sum_e += q * d + r * e + modulus * times_e;
        let low = ((sum_d & MASK) as i32, (sum_e & MASK) as i32);
        (sum_d, sum_e) = (sum_d >> BITS, sum_e >> BITS);
        low
    };
    let ([_, d_rest @ ..], [_, e_rest @ ..], [m0, m_rest @ ..]) = (*d, *e, modulus.limbs);
    add(d0, e0, m0);
    for ((to_d, to_e), ((d, e), m)) in next_d.iter_mut().zip(&mut next_e).zip(d_rest.into_iter().zip(e_rest).zip(m_rest)) {
        (*to_d, *to_e) = add(d, e, m);
    }
    let ([.., top_d], [.., top_e]) = (&mut next_d, &mut next_e);
    (*top_d, *top_e) = (sum_d as i32, sum_e as i32);
    (*d, *e) = (next_d, next_e);
}

/// From 0 to the modulus − 1, of a number between −2 and 1 of it, which is negated first if `negate`.
fn normalise(number: Limbs, negate: bool, modulus: &Modulus) -> Words {
    let carried = |limbs: [i64; 9]| {
        let mut carry = 0;
        let mut to = limbs.map(|limb| {
            carry += limb;
            let low = carry & MASK;
            carry >>= BITS;
            low
        });
        // The highest keeps what would be carried out of it.
        let [.., top] = &mut to;
        *top += carry << BITS;
        to
    };
    let raised = |limbs: [i64; 9]| {
        let [.., top] = limbs;
        let sign = top >> 63;
        let mut moduli = modulus.limbs.iter();
        carried(limbs.map(|limb| limb + (sign & i64::from(moduli.next().copied().unwrap_or(0)))))
    };
    let limbs = raised(number.map(i64::from));
    let limbs = if negate { carried(limbs.map(|limb| -limb)) } else { limbs };
    let mut words = [0; 8];
    for (at, limb) in (0..).step_by(BITS as usize).zip(raised(limbs)) {
        words::set_bits(&mut words, at, limb as u32);
    }
    words
}
