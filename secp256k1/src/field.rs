//! Numbers modulo p = 2²⁵⁶ − 2³² − 977, the coordinates of points.
//!
//! Nine signed limbs of 29 bits: of what `i64` can add up nine products of, these are the fewest, and subtracting needs no multiple of p.
//! WebAssembly has no product of 64 by 64 bits, so that wider limbs would be four multiplications each.
//!
//! A limb is allowed to grow beyond its 29 bits. How far, is counted in sizes: an element is of size m if no limb of it is beyond
//! ±m · 2²⁸ · (1 + 2⁻⁶). What is multiplied or reduced is of size 1 again, sums and differences have the sum of the sizes, and two
//! elements may be multiplied if the product of their sizes is at most 13: nine products of limbs, 9 · 13 · 2⁵⁶ · (1 + 2⁻⁶)², and what is
//! carried into a column, less than 2⁵⁰, are below 2⁶³.
//!
//! Products of limbs are what multiplying takes its time for: a processor begins one in each cycle, and there is little else to do. Limbs
//! in threes save 27 of 81 (Karatsuba): a₀b₁ + a₁b₀ is (a₀ + a₁)(b₀ + b₁) − a₀b₀ − a₁b₁. What is subtracted may overflow, the columns that
//! come of it do not.
#![allow(clippy::arithmetic_side_effects)] // None can overflow while sizes are kept, as above. Tests, which check for it, multiply the largest.

use super::inverse::{self, MODULUS_P};
use super::words::{self, Words};
use std::ops::{Add, Neg, Sub};

/// Bits of a limb.
const BITS: u32 = 29;
const MASK: i64 = (1 << BITS) - 1;
/// What rounds to the nearest, so that limbs come out between −2²⁸ and 2²⁸.
const HALF: i64 = 1 << (BITS - 1);
/// Bits of the highest limb: 256 − 8 · 29.
const TOP_BITS: u32 = 24;
const TOP_MASK: i64 = (1 << TOP_BITS) - 1;
const TOP_HALF: i64 = 1 << (TOP_BITS - 1);
/// 2²⁵⁶ is 2³² + 977 modulo p; in limbs, 977 and 2³ of the next.
const FOLD: i64 = 977;
const FOLD_NEXT: u32 = 3;
/// 2²⁶¹ is 2⁵ times that.
const FOLD_COLUMN: i64 = 977 << 5;
const FOLD_COLUMN_NEXT: u32 = 8;

/// A number modulo p; the same number can be written in many ways, so that it has no `PartialEq`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field([i32; 9]);

impl Field {
    pub(super) const ZERO: Self = Self([0; 9]);
    pub(super) const ONE: Self = Self([1, 0, 0, 0, 0, 0, 0, 0, 0]);

    /// What the curve adds to x³.
    pub(super) const SEVEN: Self = Self([7, 0, 0, 0, 0, 0, 0, 0, 0]);

    /// A third root of one: (β x, y) is λ times the point (x, y).
    pub(super) const BETA: Self = Self([
        0x119501ee, 0x9cb6143, 0x1d626570, 0x92ea25, 0x34e99cf, 0x3cf561a, 0x1c41b991, 0x56caf80, 0x7ae96a,
    ]);
    /// The generator's coordinates.
    pub(super) const GENERATOR_X: Self = Self([
        0x16f81798, 0xf940ad8, 0x138a3656, 0x17f9b65b, 0x10b07029, 0x114ae743, 0xeb15681, 0xfdf3b97, 0x79be66,
    ]);
    pub(super) const GENERATOR_Y: Self = Self([
        0x1b10d4b8, 0x23e847f, 0x1550667, 0xf68914d, 0x108a8fd1, 0x1dfe0708, 0x11957693, 0xee4d478, 0x483ada,
    ]);

    /// Of size 2: its limbs are from 0 to 2²⁹ − 1.
    #[inline(always)]
    pub(super) fn from_words(number: &Words) -> Self {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = *number;
        Self(
            [
                w0,
                w0 >> 29 | w1 << 3,
                w1 >> 26 | w2 << 6,
                w2 >> 23 | w3 << 9,
                w3 >> 20 | w4 << 12,
                w4 >> 17 | w5 << 15,
                w5 >> 14 | w6 << 18,
                w6 >> 11 | w7 << 21,
                w7 >> 8,
            ]
            .map(|limb| limb as i32 & MASK as i32),
        )
    }

    /// The number from 0 to p − 1. The size may be up to 7.
    pub(super) fn to_words(self) -> Words {
        // Reduced, it is between −2²⁵⁵ and 2²⁵⁵, with some more on both sides.
        let mut limbs = self.reduce().0;
        if Self(limbs).is_negative() {
            let [a0, a1, .., a8] = &mut limbs;
            (*a0, *a1, *a8) = (*a0 - 977, *a1 - 8, *a8 + (1 << TOP_BITS));
        }
        let mut carry = 0_i64;
        let mut words = [0; 8];
        for (at, limb) in (0..).step_by(BITS as usize).zip(limbs) {
            carry += i64::from(limb);
            words::set_bits(&mut words, at, (carry & MASK) as u32);
            carry >>= BITS;
        }
        words
    }

    /// Whether the number as it is written, not modulo p, is below zero.
    fn is_negative(&self) -> bool {
        let carry = self.0.iter().fold(0, |carry, limb| (carry + i64::from(*limb)) >> BITS);
        carry < 0
    }

    /// The same number, of size 1. The size may be up to 7.
    #[inline(always)]
    pub(super) fn reduce(self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = self.0.map(i64::from);
        let (r2, carry) = split(a2);
        let (r3, carry) = split(a3 + carry);
        let (r4, carry) = split(a4 + carry);
        let (r5, carry) = split(a5 + carry);
        let (r6, carry) = split(a6 + carry);
        let (r7, carry) = split(a7 + carry);
        let (r8, top) = split_top(a8 + carry);
        let (r0, carry) = split(a0 + top * FOLD);
        let (r1, carry) = split(a1 + (top << FOLD_NEXT) + carry);
        Self([r0, r1, r2 + carry as i32, r3, r4, r5, r6, r7, r8])
    }

    /// Whether it is zero modulo p, of an element that was reduced or multiplied last: it is between −p and p, and zero has one form.
    #[inline(always)]
    pub(super) fn is_zero(&self) -> bool {
        let [first, rest @ ..] = &self.0;
        *first == 0 && rest.iter().all(|limb| *limb == 0)
    }

    /// Whether the number from 0 to p − 1 is odd.
    pub(super) fn is_odd(self) -> bool {
        let [lowest, ..] = self.to_words();
        lowest & 1 == 1
    }

    /// Three halves of it. Of size 1 it becomes one of size 2.5.
    #[inline(always)]
    pub(super) fn three_halves(self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = self.0.map(|limb| 3 * limb);
        // An odd number is made even by adding p.
        let odd = -(a0 & 1);
        let (a0, a1, a8) = (a0 - (977 & odd), a1 - (8 & odd), a8 + ((1 << TOP_BITS) & odd));
        let half = |limb: i32, next: i32| (limb >> 1) + ((next & 1) << (BITS - 1));
        Self([
            half(a0, a1),
            half(a1, a2),
            half(a2, a3),
            half(a3, a4),
            half(a4, a5),
            half(a5, a6),
            half(a6, a7),
            half(a7, a8),
            a8 >> 1,
        ])
    }

    #[inline(always)]
    pub(super) fn double(self) -> Self {
        Self(self.0.map(|limb| limb << 1))
    }

    /// The product. The sizes may be up to 7 each, and their product up to 13.
    #[inline(never)]
    pub(super) fn mul(&self, other: &Self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = self.0.map(i64::from);
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8] = other.0.map(i64::from);
        let low = product([a0, a1, a2], [b0, b1, b2]);
        let middle = product([a3, a4, a5], [b3, b4, b5]);
        let high = product([a6, a7, a8], [b6, b7, b8]);
        let low_middle = product([a0 + a3, a1 + a4, a2 + a5], [b0 + b3, b1 + b4, b2 + b5]);
        let low_high = product([a0 + a6, a1 + a7, a2 + a8], [b0 + b6, b1 + b7, b2 + b8]);
        let middle_high = product([a3 + a6, a4 + a7, a5 + a8], [b3 + b6, b4 + b7, b5 + b8]);
        combine(low, middle, high, low_middle, low_high, middle_high)
    }

    /// The square. The size may be up to 3.6.
    #[inline(never)]
    pub(super) fn square(&self) -> Self {
        square(self.0)
    }

    /// The number to the power of 2ⁿ.
    fn square_times(self, times: u32) -> Self {
        (0..times).fold(self, |power, _| power.square())
    }

    /// A number whose square it is, if there is one: its power of (p + 1) / 4, for p is 3 modulo 4. The size may be up to 3.6.
    pub(super) fn square_root(&self) -> Option<Self> {
        // (p + 1) / 4 in binary: 223 ones, a zero, 22 ones, four zeros, two ones, two zeros. `ones_n` is the power of 2ⁿ − 1.
        let ones_2 = self.square().mul(self);
        let ones_3 = ones_2.square().mul(self);
        let ones_6 = ones_3.square_times(3).mul(&ones_3);
        let ones_9 = ones_6.square_times(3).mul(&ones_3);
        let ones_11 = ones_9.square_times(2).mul(&ones_2);
        let ones_22 = ones_11.square_times(11).mul(&ones_11);
        let ones_44 = ones_22.square_times(22).mul(&ones_22);
        let ones_88 = ones_44.square_times(44).mul(&ones_44);
        let ones_176 = ones_88.square_times(88).mul(&ones_88);
        let ones_220 = ones_176.square_times(44).mul(&ones_44);
        let ones_223 = ones_220.square_times(3).mul(&ones_3);
        let root = ones_223.square_times(23).mul(&ones_22).square_times(6).mul(&ones_2).square_times(2);
        (root.square() - *self).reduce().is_zero().then_some(root)
    }

    /// 1 / number; zero for zero. The size may be up to 7.
    pub(super) fn invert(self) -> Self {
        Self::from_words(&inverse::invert(&self.to_words(), &MODULUS_P)).reduce()
    }
}

/// The nearest multiple of 2²⁹ in units of it, and what is left.
#[inline(always)]
fn split(column: i64) -> (i32, i64) {
    let rounded = column + HALF;
    (((rounded & MASK) - HALF) as i32, rounded >> BITS)
}

/// The same of a sum, whose second part is the later to be known.
#[inline(always)]
fn split_with(column: i64, carry: i64) -> (i32, i64) {
    let rounded = (column + HALF) + carry;
    (((rounded & MASK) - HALF) as i32, rounded >> BITS)
}

#[inline(always)]
fn split_top_with(column: i64, carry: i64) -> (i32, i64) {
    let rounded = (column + TOP_HALF) + carry;
    (((rounded & TOP_MASK) - TOP_HALF) as i32, rounded >> TOP_BITS)
}

#[inline(always)]
fn split_top(column: i64) -> (i32, i64) {
    let rounded = column + TOP_HALF;
    (((rounded & TOP_MASK) - TOP_HALF) as i32, rounded >> TOP_BITS)
}

#[inline(always)]
fn square(limbs: [i32; 9]) -> Field {
    let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = limbs.map(i64::from);
    combine(
        own_product([a0, a1, a2]),
        own_product([a3, a4, a5]),
        own_product([a6, a7, a8]),
        own_product([a0 + a3, a1 + a4, a2 + a5]),
        own_product([a0 + a6, a1 + a7, a2 + a8]),
        own_product([a3 + a6, a4 + a7, a5 + a8]),
    )
}

/// The same of three limbs with themselves.
#[inline(always)]
fn own_product([a0, a1, a2]: [i64; 3]) -> [i64; 5] {
    let times = i64::wrapping_mul;
    let (d0, d1) = (a0 << 1, a1 << 1);
    [
        times(a0, a0),
        times(d0, a1),
        times(d0, a2).wrapping_add(times(a1, a1)),
        times(d1, a2),
        times(a2, a2),
    ]
}

/// Five columns of products of three limbs by three, modulo 2⁶⁴.
#[inline(always)]
fn product([a0, a1, a2]: [i64; 3], [b0, b1, b2]: [i64; 3]) -> [i64; 5] {
    let times = i64::wrapping_mul;
    let plus = i64::wrapping_add;
    [
        times(a0, b0),
        plus(times(a0, b1), times(a1, b0)),
        plus(plus(times(a0, b2), times(a1, b1)), times(a2, b0)),
        plus(times(a1, b2), times(a2, b1)),
        times(a2, b2),
    ]
}

/// The difference of columns, modulo 2⁶⁴.
#[inline(always)]
fn less([a0, a1, a2, a3, a4]: [i64; 5], [b0, b1, b2, b3, b4]: [i64; 5]) -> [i64; 5] {
    let minus = i64::wrapping_sub;
    [minus(a0, b0), minus(a1, b1), minus(a2, b2), minus(a3, b3), minus(a4, b4)]
}

/// The product of two numbers in three parts each: from the products of each part with its like, and those of the sums of two parts.
#[inline(always)]
fn combine(low: [i64; 5], middle: [i64; 5], high: [i64; 5], low_middle: [i64; 5], low_high: [i64; 5], middle_high: [i64; 5]) -> Field {
    let [p0, p1, p2, p3, p4] = low;
    let [q0, q1, q2, q3, q4] = less(less(low_middle, low), middle);
    let [r0, r1, r2, r3, r4] = less(less(low_high, less(low, middle)), high);
    let [s0, s1, s2, s3, s4] = less(less(middle_high, middle), high);
    let [t0, t1, t2, t3, t4] = high;
    let plus = i64::wrapping_add;
    fold(
        [p0, p1, p2, plus(p3, q0), plus(p4, q1), q2, plus(q3, r0), plus(q4, r1), r2],
        [plus(r3, s0), plus(r4, s1), s2, plus(s3, t0), plus(s4, t1), t2, t3, t4],
    )
}

/// What 17 columns of products come to modulo p: the columns from 2²⁶¹ up are carried, and added below times 2²⁶¹ modulo p.
#[inline(always)]
fn fold(low: [i64; 9], high: [i64; 8]) -> Field {
    let [c0, c1, c2, c3, c4, c5, c6, c7, c8] = low;
    let [c9, c10, c11, c12, c13, c14, c15, c16] = high;
    // Not carried from column to column, each of which would wait for the one before. Up to 2³⁵ on either side of zero.
    let h0 = c9 & MASK;
    let h1 = (c10 & MASK) + (c9 >> BITS);
    let h2 = (c11 & MASK) + (c10 >> BITS);
    let h3 = (c12 & MASK) + (c11 >> BITS);
    let h4 = (c13 & MASK) + (c12 >> BITS);
    let h5 = (c14 & MASK) + (c13 >> BITS);
    let h6 = (c15 & MASK) + (c14 >> BITS);
    let h7 = (c16 & MASK) + (c15 >> BITS);
    let h8 = c16 >> BITS;

    let (r0, carry) = split(c0 + h0 * FOLD_COLUMN);
    let (r1, carry) = split_with(c1 + h1 * FOLD_COLUMN + (h0 << FOLD_COLUMN_NEXT), carry);
    let (r2, carry) = split_with(c2 + h2 * FOLD_COLUMN + (h1 << FOLD_COLUMN_NEXT), carry);
    let (r3, carry) = split_with(c3 + h3 * FOLD_COLUMN + (h2 << FOLD_COLUMN_NEXT), carry);
    let (r4, carry) = split_with(c4 + h4 * FOLD_COLUMN + (h3 << FOLD_COLUMN_NEXT), carry);
    let (r5, carry) = split_with(c5 + h5 * FOLD_COLUMN + (h4 << FOLD_COLUMN_NEXT), carry);
    let (r6, carry) = split_with(c6 + h6 * FOLD_COLUMN + (h5 << FOLD_COLUMN_NEXT), carry);
    let (r7, carry) = split_with(c7 + h7 * FOLD_COLUMN + (h6 << FOLD_COLUMN_NEXT), carry);
    let (r8, top) = split_top_with(c8 + h8 * FOLD_COLUMN + (h7 << FOLD_COLUMN_NEXT), carry);
    // h8's second part belongs to 2²⁶¹, which is 2⁵ times 2²⁵⁶. Up to 2⁴⁸: times 977, up to 2⁵⁸.
    let top = top + (h8 << (FOLD_COLUMN_NEXT + 5));
    let (r0, carry) = split(i64::from(r0) + top * FOLD);
    let (r1, carry) = split(i64::from(r1) + (top << FOLD_NEXT) + carry);
    // Up to 2²²: what sizes leave room for.
    Field([r0, r1, r2 + carry as i32, r3, r4, r5, r6, r7, r8])
}

impl Add for Field {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = self.0;
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8] = other.0;
        Self([a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7, a8 + b8])
    }
}

impl Sub for Field {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8] = self.0;
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8] = other.0;
        Self([a0 - b0, a1 - b1, a2 - b2, a3 - b3, a4 - b4, a5 - b5, a6 - b6, a7 - b7, a8 - b8])
    }
}

impl Neg for Field {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self(self.0.map(|limb| -limb))
    }
}
