//! How the payloads of open top-ups are kept: a signed payment is as good as money until it is settled.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

const NONCE_BYTES: usize = 12;

/// Why a payload could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The key is not 64 hexadecimal digits.
    #[error("the key has to be 64 hexadecimal digits (openssl rand -hex 32 makes one)")]
    Key,
    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Random,
    /// Another key sealed it, for another top-up, or it was changed.
    #[error("the payload cannot be opened with this key")]
    Unreadable,
}

/// Seals payloads with ChaCha20-Poly1305, each bound to its top-up.
#[derive(Clone)]
pub struct Cipher(ChaCha20Poly1305);

impl Cipher {
    /// A cipher with the key that these 64 hexadecimal digits spell (`X402_LEDGER_KEY`).
    ///
    /// # Errors
    ///
    /// [`CipherError::Key`], which does not repeat what was given.
    pub fn new(key: &str) -> Result<Self, CipherError> {
        let bytes: [u8; 32] = hex::decode(key.trim())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(CipherError::Key)?;
        Ok(Self(ChaCha20Poly1305::new(&Key::from(bytes))))
    }

    /// Seals a payload for the top-up of this id: base64 of a random nonce and what it encrypts.
    ///
    /// # Errors
    ///
    /// [`CipherError::Random`].
    pub fn seal(&self, id: &str, payload: &[u8]) -> Result<String, CipherError> {
        let mut nonce = [0u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| CipherError::Random)?;
        let bound = Payload {
            msg: payload,
            aad: id.as_bytes(),
        };
        let sealed = self.0.encrypt(&Nonce::from(nonce), bound).map_err(|_| CipherError::Unreadable)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }

    /// Opens what [`Cipher::seal`] gave for the same id.
    ///
    /// # Errors
    ///
    /// [`CipherError::Unreadable`].
    pub fn open(&self, id: &str, sealed: &str) -> Result<Vec<u8>, CipherError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| CipherError::Unreadable)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(CipherError::Unreadable)?;
        let bound = Payload {
            msg: sealed,
            aad: id.as_bytes(),
        };
        self.0.decrypt(&Nonce::from(*nonce), bound).map_err(|_| CipherError::Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_top_up_open_it() {
        let cipher = Cipher::new(&"ab".repeat(32)).unwrap();
        let sealed = cipher.seal("pi_1", b"signed").unwrap();
        assert_eq!(cipher.open("pi_1", &sealed).unwrap(), b"signed");
        assert_eq!(cipher.open("pi_2", &sealed), Err(CipherError::Unreadable));
        assert_eq!(
            Cipher::new(&"ac".repeat(32)).unwrap().open("pi_1", &sealed),
            Err(CipherError::Unreadable)
        );
        assert_ne!(cipher.seal("pi_1", b"signed").unwrap(), sealed);
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert_eq!(
                cipher.open("pi_1", &STANDARD.encode(&bytes)),
                Err(CipherError::Unreadable),
                "{index}"
            );
            bytes[index] ^= 1;
        }
        for short in ["", "AAAA", "%"] {
            assert_eq!(cipher.open("pi_1", short), Err(CipherError::Unreadable));
        }
    }

    #[test]
    fn a_key_is_64_digits() {
        for key in ["", "ab", &"ab".repeat(33), &"zz".repeat(32)] {
            assert_eq!(Cipher::new(key).err(), Some(CipherError::Key));
        }
    }
}
