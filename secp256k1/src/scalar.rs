//! Numbers modulo n, the order of the curve: what points are multiplied by.

use super::inverse::{self, MODULUS_N};
use super::words::{self, Words};

/// n.
const ORDER: Words = [
    0xd036_4141,
    0xbfd2_5e8c,
    0xaf48_a03b,
    0xbaae_dce6,
    0xffff_fffe,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
];
/// 2²⁵⁶ − n.
const COMPLEMENT: [u32; 5] = [0x2fc9_bebf, 0x402d_a173, 0x50b7_5fc4, 0x4551_2319, 1];

/// The shortest vectors (a, b) with a + b λ = 0 modulo n are (A1, −B1) and (A2, A1): Guide to Elliptic Curve Cryptography, section 3.5.
const A1: [u32; 4] = [0x9284_eb15, 0xe86c_90e4, 0xa7d4_6bcd, 0x3086_d221];
const B1: [u32; 4] = [0x0abf_e4c3, 0x6f54_7fa9, 0x010e_8828, 0xe443_7ed6];
const A2: [u32; 5] = [0x9d44_cfd8, 0x57c1_108d, 0xa8e2_f3f6, 0x14ca_50f7, 1];
/// 2³⁸⁴ A1 / n and 2³⁸⁴ B1 / n, rounded.
const G1: Words = [
    0x45db_b031,
    0xe893_209a,
    0x71e8_ca7f,
    0x3daa_8a14,
    0x9284_eb15,
    0xe86c_90e4,
    0xa7d4_6bcd,
    0x3086_d221,
];
const G2: Words = [
    0x8ac4_7f71,
    0x1571_b4ae,
    0x9df5_06c6,
    0x2212_08ac,
    0x0abf_e4c4,
    0x6f54_7fa9,
    0x010e_8828,
    0xe443_7ed6,
];

/// From 0 to n − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scalar(Words);

/// A number between −2¹²⁸ and 2¹²⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) negative: bool,
    pub(super) size: u128,
}

impl Scalar {
    /// A number that is below n.
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let number = words::from_bytes(bytes);
        words::less(&number, &ORDER).then_some(Self(number))
    }

    /// Any number, modulo n.
    pub(super) fn reduce(bytes: &[u8; 32]) -> Self {
        Self(below_order(words::from_bytes(bytes)))
    }

    #[cfg(all(test, not(target_family = "wasm")))]
    pub(super) fn to_bytes(self) -> [u8; 32] {
        words::to_bytes(&self.0)
    }

    pub(super) fn is_zero(&self) -> bool {
        words::is_zero(&self.0)
    }

    pub(super) fn negate(&self) -> Self {
        let mut negative = ORDER;
        words::subtract(&mut negative, &self.0);
        Self(below_order(negative))
    }

    pub(super) fn mul(&self, other: &Self) -> Self {
        let mut product = [0; 16];
        words::add_product(&mut product, &self.0, &other.0);
        // 2²⁵⁶ is COMPLEMENT modulo n: 512 bits become 386, 260 and then 257 or fewer.
        loop {
            let (low, high) = product.split_at_mut(8);
            if words::is_zero(high) {
                let mut number = [0; 8];
                number.copy_from_slice(low);
                return Self(below_order(number));
            }
            let mut next = [0; 16];
            words::add(&mut next, low);
            words::add_product(&mut next, high, &COMPLEMENT);
            product = next;
        }
    }

    /// 1 / number; zero for zero.
    pub(super) fn invert(&self) -> Self {
        Self(inverse::invert(&self.0, &MODULUS_N))
    }

    /// Two halves k₁ and k₂ with k₁ + k₂ λ = the number modulo n: what is near it of what the vectors span is taken off it.
    pub(super) fn split(&self) -> (Half, Half) {
        let (c1, c2) = (product_over_2_384(&self.0, &G1), product_over_2_384(&self.0, &G2));
        // 160 bits are enough of numbers that are between −2¹²⁸ and 2¹²⁸.
        let [k0, k1, k2, k3, k4, ..] = self.0;
        let (mut first, mut taken) = ([k0, k1, k2, k3, k4], [0; 5]);
        words::add_product(&mut taken, &c1, &A1);
        words::add_product(&mut taken, &c2, &A2);
        words::subtract(&mut first, &taken);
        let (mut second, mut taken) = ([0; 5], [0; 5]);
        words::add_product(&mut second, &c1, &B1);
        words::add_product(&mut taken, &c2, &A1);
        words::subtract(&mut second, &taken);
        (half(first), half(second))
    }
}

/// The number modulo n. What is below 2²⁵⁶ is below 2n.
fn below_order(mut number: Words) -> Words {
    if !words::less(&number, &ORDER) {
        words::subtract(&mut number, &ORDER);
    }
    number
}

/// a · b / 2³⁸⁴, rounded.
fn product_over_2_384(a: &Words, b: &Words) -> [u32; 4] {
    let mut product = [0; 16];
    words::add_product(&mut product, a, b);
    let [.., below, p0, p1, p2, p3] = product;
    let mut quotient = [p0, p1, p2, p3];
    words::add(&mut quotient, &[below >> 31]);
    quotient
}

/// A number of 160 bits in two's complement.
fn half(number: [u32; 5]) -> Half {
    let [.., top] = number;
    let negative = top >> 31 == 1;
    let mut size = [0; 5];
    if negative {
        words::subtract(&mut size, &number);
    } else {
        size = number;
    }
    let size = size.iter().take(4).rev().fold(0, |size, word| size << 32 | u128::from(*word));
    Half { negative, size }
}
