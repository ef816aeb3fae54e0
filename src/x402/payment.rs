//! Payments: what a client sends to pay for a request, whichever way it spells it.
//!
//! Owns the decoded form and the rules common to all dialects; the dialects' own rules are in `dialect`.
//! Does not know what is offered: whether a payment fits is for `requirements` and `precheck` to say.

use core::fmt;

use super::dialect;
use super::json::{Json, Object};
use super::{Network, Refusal};
use crate::evm::eip3009::TransferWithAuthorization;
use crate::evm::permit2::PermitWitnessTransferFrom;
use crate::evm::{Address, Nonce, SignatureForm, U256};
use crate::pricing::{Atomic, Offer, PayTo, Transfer};

/// The largest payment header that is read, in bytes.
pub const MAX_PAYMENT_HEADER: usize = 16 * 1024;

/// How a client spells a payment. It decides the header of the receipt and what the facilitator is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Dialect {
    /// `PAYMENT-SIGNATURE`, base64 JSON with `x402Version: 2`. Source: x402 v2, HTTP transport.
    V2,
    /// `X-PAYMENT`, base64 JSON with `x402Version: 1`. Source: x402 v1, HTTP transport.
    V1,
    /// `X-PAYMENT`, JSON as it is, of v1 shape whatever its version says. Source: `@libertai/x402`.
    LibertAi,
    /// `X-Payment-Signature` and other plain headers: an EIP-3009 authorization spelled out for curl.
    Plain,
}

/// A decoded payment: well formed, and nothing more.
#[derive(Clone, PartialEq)]
pub struct Payment {
    /// How it was spelled.
    pub dialect: Dialect,
    /// `exact`, `upto`, or whatever the client wrote; `exact` for plain headers.
    pub scheme: Box<str>,
    /// The network it says; `None` only for plain headers without `X-Payment-Network`.
    pub network: Option<Network>,
    /// v2: the requirement that the client says it accepts, as sent. `None` in the other dialects.
    pub accepted: Option<Json<'static>>,
    /// v2: `resource.url`, where the client sent one.
    pub resource_url: Option<String>,
    /// v2: `extensions`, as sent.
    pub extensions: Option<Object<'static>>,
    /// Plain headers: what they say beside the authorization, to be matched against the offers.
    pub terms: Option<PlainTerms>,
    /// What was signed.
    pub payload: Payload,
    /// The JSON text as sent, to be passed on with whatever it holds; empty for plain headers.
    pub(super) text: Box<str>,
}

/// What a payer signed.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Payload {
    /// An EIP-3009 authorization, or in LibertAI's form an EIP-2612 permit of the same shape (`to` is the spender, `nonce` the
    /// permit's nonce as 32 bytes, `valid_before` its deadline): the offer tells which.
    ///
    /// ```json
    /// {"signature": "0x…", "authorization": {"from": "0x…", "to": "0x…", "value": "1000", "validAfter": "0",
    ///  "validBefore": "1795223591", "nonce": "0x… (64 digits)"}}
    /// ```
    Eip3009 {
        /// The signed message.
        authorization: TransferWithAuthorization,
        /// Its signature.
        signature: SignatureForm,
    },
    /// A Permit2 permit with a witness; the kind of witness tells `exact` from `upto`.
    ///
    /// ```json
    /// {"signature": "0x…", "permit2Authorization": {"from": "0x…", "permitted": {"token": "0x…", "amount": "1000"},
    ///  "spender": "0x…", "nonce": "11567", "deadline": "1795223600",
    ///  "witness": {"to": "0x…", "facilitator": "0x… (upto only)", "validAfter": "0"}}}
    /// ```
    Permit2 {
        /// The payer, who must be the signer.
        from: Address,
        /// The signed message.
        permit: PermitWitnessTransferFrom,
        /// Its signature.
        signature: SignatureForm,
    },
    /// Plain headers: an EIP-3009 authorization without recipient and amount, which are the offer's: see [`Payload::authorization`].
    Plain {
        /// The payer.
        from: Address,
        /// Unix seconds; the payment is valid after this.
        valid_after: U256,
        /// Unix seconds; the payment is valid before this.
        valid_before: U256,
        /// Unique per payer and token.
        nonce: Nonce,
        /// The signature over what results with the offer.
        signature: SignatureForm,
        /// The same as sent, for the facilitator: `0x` and hexadecimal digits.
        signature_text: Box<str>,
    },
    /// A Solana transaction, decoded from base64 but not parsed: see `solana`.
    Solana {
        /// Signatures and message, as the Solana wire format has them.
        transaction: Vec<u8>,
    },
}

impl Payload {
    /// The EIP-3009 authorization (or EIP-2612 permit of that shape) that the payer must have signed to pay an offer:
    /// the payload's own, or for plain headers the one that the offer completes. `None` for other payloads.
    pub fn authorization(&self, offer: &Offer) -> Option<(TransferWithAuthorization, SignatureForm)> {
        match self {
            Self::Eip3009 { authorization, signature } => Some((*authorization, *signature)),
            Self::Plain {
                from,
                valid_after,
                valid_before,
                nonce,
                signature,
                ..
            } => {
                let to = match (&offer.transfer, &offer.pay_to) {
                    (Transfer::Eip3009, PayTo::Evm(seller)) => *seller,
                    _ => return None,
                };
                let authorization = TransferWithAuthorization {
                    from: *from,
                    to,
                    value: U256::from(offer.amount.0),
                    valid_after: *valid_after,
                    valid_before: *valid_before,
                    nonce: *nonce,
                };
                Some((authorization, *signature))
            }
            Self::Permit2 { .. } | Self::Solana { .. } => None,
        }
    }
}

impl Payment {
    /// What it pays at most, by its own words: the requirement that it accepts, else what was signed. `None` where neither says.
    pub fn amount(&self) -> Option<Atomic> {
        let accepted = self
            .accepted
            .as_ref()
            .and_then(|accepted| accepted.get("amount")?.text()?.parse().ok());
        let signed = match &self.payload {
            Payload::Eip3009 { authorization, .. } => authorization.value.to_u128(),
            Payload::Permit2 { permit, .. } => permit.amount.to_u128(),
            Payload::Plain { .. } | Payload::Solana { .. } => None,
        };
        accepted.or(signed).map(Atomic)
    }
}

impl Payment {
    /// The same, with the text that it was read from.
    pub(super) fn with_text(self, text: impl Into<Box<str>>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// What was signed and its signature, in one spelling: what tells a payment from another one of the same nonce.
    pub fn signed(&self) -> Vec<u8> {
        if let Payload::Plain { signature_text, .. } = &self.payload {
            return signature_text.as_bytes().to_vec();
        }
        // Keys come out sorted.
        let whole: Option<serde_json::Value> = serde_json::from_str(&self.text).ok();
        let payload = whole.as_ref().and_then(|whole| whole.get("payload"));
        payload.map(serde_json::Value::to_string).unwrap_or_default().into_bytes()
    }
}

/// What plain headers say beside the authorization. Each is to be matched against the offers if present.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlainTerms {
    /// `X-Payment-Amount`: decimal, in whole tokens, such as `0.01`; checked to be digits with at most one point.
    pub amount: Option<String>,
    /// `X-Payment-Asset`: a symbol or an address.
    pub asset: Option<String>,
    /// `X-Payment-Network`: a v1 name or a CAIP-2 identifier.
    pub network: Option<Network>,
}

/// A payment that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PaymentError {
    /// What to answer.
    pub refusal: Refusal,
    /// What is wrong and what to do, in at most 200 bytes of printable ASCII; never a value that was signed, nor a signature.
    pub detail: String,
}

impl PaymentError {
    pub(super) fn new(refusal: Refusal, detail: impl Into<String>) -> Self {
        Self {
            refusal,
            detail: detail.into(),
        }
    }

    /// A payload that is not what it has to be.
    pub(super) fn payload(detail: impl Into<String>) -> Self {
        Self::new(Refusal::InvalidPayload, detail)
    }
}

impl fmt::Display for PaymentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl fmt::Debug for Payment {
    /// Dialect, scheme and network alone: a payload holds a signature, and signatures stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("dialect", &self.dialect)
            .field("scheme", &self.scheme)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Reads the payment among a request's headers: `None` if there is none, an error if there is one that cannot be read.
///
/// Headers come as (name in lower case, value). Not more than one payment is taken, in one header (or in one set of plain
/// headers), of at most [`MAX_PAYMENT_HEADER`] bytes. An empty payment header is no payment.
///
/// # Errors
///
/// [`PaymentError`] with [`Refusal::InvalidPayload`], [`Refusal::InvalidVersion`], [`Refusal::InvalidNetwork`] or
/// [`Refusal::InvalidSignature`].
///
/// ```
/// use x402_envoy::x402::decode;
/// assert!(decode([(&b"accept"[..], &b"*/*"[..])]).unwrap().is_none());
/// let error = decode([(&b"x-payment-signature"[..], &b"0x00"[..])]).unwrap_err();
/// assert!(error.detail.starts_with("the X-Payment-Payer header is missing"));
/// ```
pub fn decode<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Option<Payment>, PaymentError> {
    dialect::decode(headers)
}
