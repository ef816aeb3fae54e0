//! Internal redirects: Envoy may answer a backend's redirect by sending the request on as a new one, through all filters again.
//!
//! The first request then ends without an answer, so that nothing is settled for it, and the second one may go to a path that costs
//! nothing. So whatever was let through for money carries a mark, which clients cannot make, and is not let through again.

use super::edits::FORWARDED_HEADER;
use crate::evm::keccak256;

/// The mark of a process with this secret: what a client sends in its place is removed as every header is that only this filter may set.
pub fn mark(secret: &[u8; 16]) -> String {
    let digest = keccak256(&[&secret[..], b"forwarded for money"].concat());
    hex::encode(digest.split_at(16).0)
}

/// Whether a request was let through for money before and comes again. `mark`: this process's own.
pub(super) fn is_from_here(headers: &[(&[u8], &[u8])], mark: &str) -> bool {
    let is_mark = |name: &[u8], value: &[u8]| name == FORWARDED_HEADER.as_bytes() && value == mark.as_bytes();
    headers.iter().any(|(name, value)| is_mark(name, value))
}
