//! Solana's transaction format: signatures, then a message, legacy or of version 0. Source: Solana documentation, "Transactions".

use super::MAX_TRANSACTION;
use crate::x402::base58;

/// Marks a versioned message; the lower bits are the version.
const VERSIONED: u8 = 0x80;

/// A transaction that was read to its last byte.
pub(super) struct Transaction<'a> {
    signatures: &'a [[u8; 64]],
    /// All that is signed.
    pub(super) message: &'a [u8],
    /// The keys that the message itself has; further indices are into lookup tables.
    keys: &'a [[u8; 32]],
    /// In order.
    pub(super) instructions: Vec<Instruction<'a>>,
}

/// One call of a program.
pub(super) struct Instruction<'a> {
    /// Index of the program's key.
    pub(super) program: u8,
    /// Indices of the accounts it is given.
    pub(super) accounts: &'a [u8],
    /// What the program reads.
    pub(super) data: &'a [u8],
}

impl<'a> Transaction<'a> {
    /// `None` for what is no transaction, or has more bytes than one.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_TRANSACTION {
            return None;
        }
        let mut reader = Reader(bytes);
        let signatures = reader.chunks::<64>()?;
        let message = reader.0;
        let first = reader.byte()?;
        let versioned = first & VERSIONED != 0;
        let required = match (versioned, first) {
            (false, required) => required,
            (true, VERSIONED) => reader.byte()?,
            (true, _) => return None,
        };
        if usize::from(required) != signatures.len() || signatures.is_empty() {
            return None;
        }
        reader.take(2)?; // how many of the keys are read-only
        let keys = reader.chunks::<32>()?;
        reader.take(32)?; // the recent block hash
        let mut instructions = Vec::new();
        for _ in 0..reader.compact()? {
            instructions.push(Instruction {
                program: reader.byte()?,
                accounts: reader.bytes()?,
                data: reader.bytes()?,
            });
        }
        if versioned {
            for _ in 0..reader.compact()? {
                reader.take(32)?;
                reader.bytes()?;
                reader.bytes()?;
            }
        }
        let whole = reader.0.is_empty() && keys.len() >= signatures.len();
        whole.then_some(Self {
            signatures,
            message,
            keys,
            instructions,
        })
    }

    /// A key in base58; `None` where it is in a lookup table.
    pub(super) fn key(&self, index: u8) -> Option<String> {
        self.keys.get(usize::from(index)).map(base58::encode_32)
    }

    /// The signature of a signer; `None` for a key that does not sign.
    pub(super) fn signature(&self, index: u8) -> Option<&[u8; 64]> {
        self.signatures.get(usize::from(index))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A length of one to three bytes, seven bits each, lowest first, in its shortest form.
    fn compact(&mut self) -> Option<u16> {
        let mut value = 0_u16;
        for shift in [0_u32, 7, 14] {
            let byte = self.byte()?;
            let bits = u16::from(byte & 0x7f);
            if (shift == 14 && byte > 3) || (shift > 0 && byte == 0) {
                return None;
            }
            value |= bits.checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.compact()?;
        self.take(count.into())
    }

    fn chunks<const N: usize>(&mut self) -> Option<&'a [[u8; N]]> {
        let count = usize::from(self.compact()?).checked_mul(N)?;
        let (chunks, _) = self.take(count)?.as_chunks::<N>();
        Some(chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_form() {
        let read = |bytes: &[u8]| Reader(bytes).compact();
        for (bytes, value) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0x80, 1], 128),
            (&[0xff, 0x7f], 16383),
            (&[0xff, 0xff, 3], 65535),
        ] {
            assert_eq!(read(bytes), Some(value));
        }
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0x80, 0x80, 0],
            &[0x80, 0x80, 4],
            &[0xff, 0xff, 0x83],
        ] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }
}
