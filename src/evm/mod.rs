//! What the pre-check needs of Ethereum: addresses, amounts, EIP-712 digests and signature recovery.
//!
//! Bytes in, values out. Nothing here knows x402, JSON or the host, allocates more than its input, or can panic.
//!
//! The way of a payment through this module: [`SignatureForm::parse`] tells what can be decided locally, a payload
//! ([`eip3009::TransferWithAuthorization`], [`permit2::PermitWitnessTransferFrom`], [`eip2612::Permit`]) gives the
//! digest under a domain separator ([`domain_separator`], [`permit2_domain`]; compute it once per offer, it is half the
//! cost of a digest), and [`recover`] names the signer. Recovery costs some thirty times the rest: do it last.

mod address;
pub mod eip2612;
pub mod eip3009;
mod eip712;
mod hexadecimal;
mod keccak;
mod nonce;
#[cfg(test)]
mod oracle;
mod payers;
pub mod permit2;
mod recover;
mod signature;
mod u256;

pub use address::{Address, EXACT_PERMIT2_PROXY, PERMIT2, UPTO_PERMIT2_PROXY};
pub use eip712::{domain_separator, permit2_domain};
pub use hexadecimal::HexError;
pub use keccak::keccak256;
pub use nonce::Nonce;
pub use payers::Payers;
pub use recover::recover;
pub use signature::{MAX_SIGNATURE_BYTES, Signature, SignatureError, SignatureForm};
pub use u256::{DecimalError, U256};
