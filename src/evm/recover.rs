//! Who signed a digest.

use super::{Address, Signature, keccak256};
use x402_secp256k1::Key;

/// The account whose key made `signature` over `digest`, or `None` if there is none.
///
/// Nearly every well-formed signature recovers to *some* address: only comparing it with the payer's means anything.
/// As `ecrecover` does (yellow paper, appendix F): Q = r⁻¹(sR − zG). R's x is r itself: an x of the order or more needs a `v` above 28,
/// which is refused.
pub fn recover(digest: &[u8; 32], signature: &Signature) -> Option<Address> {
    recover_key(digest, signature).map(|(address, _)| address)
}

/// The same, with the account's key.
pub(super) fn recover_key(digest: &[u8; 32], signature: &Signature) -> Option<(Address, Key)> {
    let key = x402_secp256k1::recover(digest, signature.r(), signature.s(), signature.y_parity())?;
    Some((Address::from_word(keccak256(&key.to_bytes())), key))
}
