//! What a signature is, told from its bytes alone.

use std::fmt;
use x402_secp256k1::in_range;

/// The longest signature that is looked at, in bytes: smart wallets send a few kilobytes, headers hold 16 KiB.
pub const MAX_SIGNATURE_BYTES: usize = 8 * 1024;

/// Length of `r || s || v`.
const FULL: usize = 65;
/// Length of `r || yParityAndS` (EIP-2098).
const COMPACT: usize = 64;

/// Half of the order of the curve, rounded down: the highest `s` that is low.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, //
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Who can decide about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureForm {
    /// 65 bytes, or 64 (EIP-2098): [`super::recover`] tells who signed, unless a smart wallet checks it (EIP-1271).
    Eoa(Signature),
    /// Any other length, ERC-6492 wrappers included: only the chain can decide, so it is the facilitator's.
    Other,
}

/// An ECDSA signature over secp256k1 whose numbers are in range and whose `s` is low (EIP-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
    y_parity: bool,
}

/// Why a string is not a signature that any token would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not `0x` and pairs of hexadecimal digits.
    NotHex,
    /// `0x` alone.
    Empty,
    /// More than [`MAX_SIGNATURE_BYTES`].
    TooLong,
    /// 65 bytes that end in something else than 0, 1, 27 or 28.
    BadV,
    /// `r` or `s` is zero, or not below the order of the curve.
    OutOfRange,
    /// `s` is in the upper half: the second signature that anybody can make from a first one, which tokens refuse.
    HighS,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHex => "the signature is not 0x and hexadecimal digits",
            Self::Empty => "the signature is empty",
            Self::TooLong => "the signature is longer than 8192 bytes",
            Self::BadV => "the last byte of a 65-byte signature must be 0, 1, 27 or 28",
            Self::OutOfRange => "r or s of the signature is out of range",
            Self::HighS => "s of the signature is in the upper half",
        })
    }
}

impl std::error::Error for SignatureError {}

impl SignatureForm {
    /// Reads `0x` and hexadecimal digits in any case.
    ///
    /// A 65-byte signature with another `v` is an error, not `Other`: no wallet in the field makes one.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let digits = text.strip_prefix("0x").ok_or(SignatureError::NotHex)?;
        let bytes = digits.len() >> 1;
        if bytes > MAX_SIGNATURE_BYTES {
            return Err(SignatureError::TooLong);
        }
        if digits.len() & 1 != 0 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(SignatureError::NotHex);
        }
        let mut sized = [0; FULL];
        match bytes {
            0 => Err(SignatureError::Empty),
            FULL => {
                hex::decode_to_slice(digits, &mut sized).map_err(|_| SignatureError::NotHex)?;
                Signature::from_full(&sized).map(Self::Eoa)
            }
            COMPACT => {
                let mut sized = [0; COMPACT];
                hex::decode_to_slice(digits, &mut sized).map_err(|_| SignatureError::NotHex)?;
                Signature::from_compact(&sized).map(Self::Eoa)
            }
            _ => Ok(Self::Other),
        }
    }
}

impl Signature {
    /// A signature from its numbers, most significant byte first; `y_parity` is the lowest bit of R's y.
    ///
    /// # Errors
    ///
    /// [`SignatureError::OutOfRange`] and [`SignatureError::HighS`].
    pub fn new(r: [u8; 32], s: [u8; 32], y_parity: bool) -> Result<Self, SignatureError> {
        if !in_range(&r) || !in_range(&s) {
            return Err(SignatureError::OutOfRange);
        }
        if s > HALF_ORDER {
            return Err(SignatureError::HighS);
        }
        Ok(Self { r, s, y_parity })
    }

    /// `r`: the x coordinate of R.
    pub const fn r(&self) -> &[u8; 32] {
        &self.r
    }

    /// `s`.
    pub const fn s(&self) -> &[u8; 32] {
        &self.s
    }

    /// Whether R's y is odd: 1 or 28 as `v`.
    pub const fn y_parity(&self) -> bool {
        self.y_parity
    }

    fn from_full(bytes: &[u8; FULL]) -> Result<Self, SignatureError> {
        let (r, s, v) = split(bytes);
        let y_parity = match v {
            Some(0 | 27) => false,
            Some(1 | 28) => true,
            _ => return Err(SignatureError::BadV),
        };
        Self::new(r, s, y_parity)
    }

    /// EIP-2098: the highest bit of `s`, which a low `s` leaves free, holds the parity.
    fn from_compact(bytes: &[u8; COMPACT]) -> Result<Self, SignatureError> {
        let (r, mut s, _) = split(bytes);
        let [top, ..] = &mut s;
        let y_parity = *top & 0x80 != 0;
        *top &= 0x7f;
        Self::new(r, s, y_parity)
    }
}

/// The first two words of a signature, and the byte after them.
fn split(bytes: &[u8]) -> ([u8; 32], [u8; 32], Option<u8>) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    for (to, from) in r.iter_mut().chain(&mut s).zip(bytes) {
        *to = *from;
    }
    (r, s, bytes.get(COMPACT).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    const HALF: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0";
    const HALF_AND_ONE: &str = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1";
    const ONE: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn parse(parts: &[&str]) -> Result<SignatureForm, SignatureError> {
        SignatureForm::parse(&format!("0x{}", parts.concat()))
    }

    #[test]
    fn reads_every_v_that_wallets_send() {
        for (v, y_parity) in [("00", false), ("01", true), ("1b", false), ("1C", true)] {
            match parse(&[ONE, HALF, v]) {
                Ok(SignatureForm::Eoa(signature)) => assert_eq!(signature.y_parity(), y_parity),
                other => panic!("{v}: {other:?}"),
            }
        }
        for v in ["02", "03", "1a", "1d", "23", "ff"] {
            assert_eq!(parse(&[ONE, ONE, v]), Err(SignatureError::BadV));
        }
    }

    #[test]
    fn reads_the_examples_of_eip_2098() {
        let r = "68a020a209d3d56c46f38cc50a33f704f4a9a10a59377f8dd762ac66910e9b90";
        let s = "7e865ad05c4035ab5792787d4a0297a43617ae897930a6fe4d822b8faea52064";
        assert_eq!(parse(&[r, s]), parse(&[r, s, "1b"]));
        let r = "9328da16089fcba9bececa81663203989f2df5fe1faa6291a45381c81bd17f76";
        let s = "139c6d6b623b42da56557e5e734a43dc83345ddfadec52cbe24d0cc64f550793";
        let s_with_parity = "939c6d6b623b42da56557e5e734a43dc83345ddfadec52cbe24d0cc64f550793";
        assert_eq!(parse(&[r, s_with_parity]), parse(&[r, s, "1c"]));
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        for (r, s) in [(ZERO, ONE), (ONE, ZERO), (ORDER, ONE), (ONE, ORDER), (&"f".repeat(64), ONE)] {
            assert_eq!(parse(&[r, s, "1b"]), Err(SignatureError::OutOfRange));
        }
        assert_eq!(parse(&[ZERO, ONE]), Err(SignatureError::OutOfRange));
        assert_eq!(parse(&[ONE, HALF_AND_ONE, "1b"]), Err(SignatureError::HighS));
        assert_eq!(parse(&[ONE, HALF_AND_ONE]), Err(SignatureError::HighS));
        assert!(parse(&[ONE, HALF, "1b"]).is_ok());
    }

    #[test]
    fn leaves_smart_wallets_to_the_chain() {
        let erc6492 = "6492".repeat(16);
        assert_eq!(parse(&[&"ab".repeat(500), &erc6492]), Ok(SignatureForm::Other));
        assert_eq!(parse(&["ab"]), Ok(SignatureForm::Other));
        assert_eq!(parse(&[ONE, ONE, "1b1b"]), Ok(SignatureForm::Other));
        assert_eq!(parse(&[&"ab".repeat(MAX_SIGNATURE_BYTES)]), Ok(SignatureForm::Other));
        assert_eq!(parse(&[&"ab".repeat(MAX_SIGNATURE_BYTES + 1)]), Err(SignatureError::TooLong));
    }

    #[test]
    fn refuses_what_is_not_hex() {
        assert_eq!(parse(&[]), Err(SignatureError::Empty));
        assert_eq!(SignatureForm::parse(""), Err(SignatureError::NotHex));
        assert_eq!(parse(&["abc"]), Err(SignatureError::NotHex));
        assert_eq!(parse(&["zz"]), Err(SignatureError::NotHex));
        assert_eq!(parse(&["é"]), Err(SignatureError::NotHex));
        assert_eq!(SignatureForm::parse(&format!("{ONE}{ONE}1b")), Err(SignatureError::NotHex));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,140}", digits in "[0-9a-fA-F]{0,140}") {
            let _ = SignatureForm::parse(&text);
            let _ = SignatureForm::parse(&format!("0x{digits}"));
        }

        #[test]
        fn never_panics_at_the_lengths_that_matter(bytes in prop::collection::vec(any::<u8>(), 63..67)) {
            let _ = SignatureForm::parse(&format!("0x{}", hex::encode(bytes)));
        }
    }
}
