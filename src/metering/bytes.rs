//! The next byte that matters, looked for in eight bytes at a time: what is between takes most of an answer.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Length of what stands before the next CR or LF, or of all.
pub(super) fn before_line_end(bytes: &[u8]) -> usize {
    before(
        bytes,
        |word| equal(word, b'\r') | equal(word, b'\n'),
        |byte| matches!(byte, b'\r' | b'\n'),
    )
}

/// Length of what stands as it is in a JSON string: before the next quote, backslash or control character, or all.
pub(super) fn before_special(bytes: &[u8]) -> usize {
    let is_special = |byte| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    before(bytes, |word| equal(word, b'"') | equal(word, b'\\') | below(word, b' '), is_special)
}

/// `found` marks bytes of a word, the first of them rightly; `is` tells the same of one byte.
#[inline(always)]
fn before(bytes: &[u8], found: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0usize;
    for word in words {
        let marks = found(u64::from_le_bytes(*word));
        if marks != 0 {
            let bits = usize::try_from(marks.trailing_zeros()).unwrap_or(0);
            return length.saturating_add(bits >> 3);
        }
        length = length.saturating_add(8);
    }
    length.saturating_add(rest.iter().position(|byte| is(*byte)).unwrap_or(rest.len()))
}

/// The highest bit of each byte that equals this one; of bytes after the first such, perhaps of others too, for the borrow.
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ ONES.wrapping_mul(u64::from(byte)), 1)
}

/// The same of bytes less than this one, which is at most 128.
fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(ONES.wrapping_mul(u64::from(byte))) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_looking_at_each_byte_finds(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(b'!'), Just(0x1f), Just(0x9f)], 0..40)) {
            let end = |is: fn(&u8) -> bool| bytes.iter().position(is).unwrap_or(bytes.len());
            prop_assert_eq!(before_line_end(&bytes), end(|byte| matches!(byte, b'\r' | b'\n')));
            prop_assert_eq!(before_special(&bytes), end(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)));
        }
    }
}
