//! A JSON number, of which only counts matter.

/// A number as far as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// `0`, which no digit may follow.
    Zero,
    /// A non-negative integer, at most `u64::MAX`.
    Integer(u64),
    /// Another number, or none: whether it is one is not checked.
    Other,
}

impl Number {
    /// The number with another byte, if that belongs to it.
    pub(super) fn with(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Integer(value), b'0'..=b'9') => Some(Self::Integer(value.saturating_mul(10).saturating_add(u64::from(byte & 0xf)))),
            (_, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => Some(Self::Other),
            _ => None,
        }
    }

    /// Its value, if it is a non-negative integer.
    pub(super) fn value(self) -> Option<u64> {
        match self {
            Self::Zero => Some(0),
            Self::Integer(value) => Some(value),
            Self::Other => None,
        }
    }
}
