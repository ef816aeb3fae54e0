//! Fixed bytes at the start of a stream.

/// Compares the start of a stream with fixed bytes, wherever the stream is split.
#[derive(Debug)]
pub(super) struct Prefix {
    /// What must come next; `None` once something else came.
    left: Option<&'static [u8]>,
}

impl Prefix {
    /// UTF-8's byte order mark.
    pub(super) const BOM: Self = Self::new(&[0xef, 0xbb, 0xbf]);

    pub(super) const fn new(prefix: &'static [u8]) -> Self {
        Self { left: Some(prefix) }
    }

    /// Takes bytes, and gives what follows those that belong to the prefix.
    pub(super) fn take<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let (Some(left), Some((byte, rest))) = (self.left, bytes.split_first()) {
            match left.split_first() {
                None => break,
                Some((expected, more)) if expected == byte => {
                    self.left = Some(more);
                    bytes = rest;
                }
                Some(_) => self.left = None,
            }
        }
        bytes
    }

    /// Whether all of the prefix was there.
    pub(super) fn is_complete(&self) -> bool {
        self.left.is_some_and(<[u8]>::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_found_over_any_split() {
        for split in 0..=4 {
            let (mut prefix, text) = (Prefix::new(b"abc"), b"abcd");
            let first = prefix.take(&text[..split]).to_vec();
            let second = prefix.take(&text[split..]).to_vec();
            assert_eq!([first, second].concat(), b"d");
            assert!(prefix.is_complete());
        }
        let mut other = Prefix::new(b"abc");
        assert_eq!(other.take(b"abxc"), b"xc");
        assert_eq!(other.take(b"abc"), b"abc");
        assert!(!other.is_complete());
    }
}
