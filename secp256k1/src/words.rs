//! Whole numbers as words of 32 bits, the lowest first.

/// A number below 2²⁵⁶.
pub(super) type Words = [u32; 8];

pub(super) fn from_bytes(bytes: &[u8; 32]) -> Words {
    let mut words = [0; 8];
    let (chunks, _) = bytes.as_chunks();
    for (word, chunk) in words.iter_mut().zip(chunks.iter().rev()) {
        *word = u32::from_be_bytes(*chunk);
    }
    words
}

pub(super) fn to_bytes(words: &Words) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (chunks, _) = bytes.as_chunks_mut();
    for (chunk, word) in chunks.iter_mut().zip(words.iter().rev()) {
        *chunk = word.to_be_bytes();
    }
    bytes
}

/// Up to 32 bits from the bit `at` on; beyond the number there are zeros.
#[inline(always)]
pub(super) fn bits(words: &Words, at: u32, count: u32) -> u32 {
    let (index, shift) = ((at >> 5) as usize, at & 31);
    let word = |index: usize| u64::from(words.get(index).copied().unwrap_or(0));
    let pair = word(index) | word(index.wrapping_add(1)) << 32;
    let mask = u32::MAX.wrapping_shr(32_u32.wrapping_sub(count));
    (pair >> shift) as u32 & mask
}

/// Sets bits from the bit `at` on, which are still zeros; what is beyond the number is lost.
#[inline(always)]
pub(super) fn set_bits(words: &mut Words, at: u32, bits: u32) {
    let shifted = u64::from(bits) << (at & 31);
    for (word, part) in words
        .iter_mut()
        .skip((at >> 5) as usize)
        .zip([shifted as u32, (shifted >> 32) as u32])
    {
        *word |= part;
    }
}

pub(super) fn is_zero(words: &[u32]) -> bool {
    words.iter().all(|word| *word == 0)
}

/// Whether `a` is less than `b`.
pub(super) fn less(a: &Words, b: &Words) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

/// `a` + `b` + `carry`, modulo 2 to the power of `a`'s bits. Words that `b` lacks are zeros.
pub(super) fn add(a: &mut [u32], b: &[u32]) {
    let mut carry = 0_u64;
    for (word, other) in a.iter_mut().zip(b.iter().chain(std::iter::repeat(&0))) {
        // Below 2³³.
        let sum = u64::from(*word).wrapping_add(u64::from(*other)).wrapping_add(carry);
        (*word, carry) = (sum as u32, sum >> 32);
    }
}

/// `a` − `b`, modulo 2 to the power of `a`'s bits. Words that `b` lacks are zeros.
pub(super) fn subtract(a: &mut [u32], b: &[u32]) {
    let mut borrow = 0_i64;
    for (word, other) in a.iter_mut().zip(b.iter().chain(std::iter::repeat(&0))) {
        let difference = i64::from(*word).wrapping_sub(i64::from(*other)).wrapping_add(borrow);
        (*word, borrow) = (difference as u32, difference >> 32);
    }
}

/// Adds `a` · `b` to `sum`, modulo 2 to the power of `sum`'s bits.
pub(super) fn add_product(sum: &mut [u32], a: &[u32], b: &[u32]) {
    for (at, factor) in a.iter().enumerate() {
        let factor = u64::from(*factor);
        let mut carry = 0_u64;
        let mut words = sum.iter_mut().skip(at);
        for (other, word) in b.iter().zip(words.by_ref()) {
            // (2³² − 1)² + 2 · (2³² − 1) is 2⁶⁴ − 1.
            let column = factor
                .wrapping_mul((*other).into())
                .wrapping_add((*word).into())
                .wrapping_add(carry);
            (*word, carry) = (column as u32, column >> 32);
        }
        for word in words {
            if carry == 0 {
                break;
            }
            let sum = u64::from(*word).wrapping_add(carry);
            (*word, carry) = (sum as u32, sum >> 32);
        }
    }
}
