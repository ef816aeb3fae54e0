//! Plain headers: an EIP-3009 authorization spelled out, for curl and for people.
//!
//! They do not say who is paid: the offer does, and the amount where it is left out.

use super::super::Network;
use super::super::Refusal;
use super::super::payment::{Dialect, Payload, Payment, PaymentError, PlainTerms};
use super::fields;
use crate::evm::{Address, Nonce, U256};

/// The longest plain header but the signature, in bytes.
const MAX_VALUE: usize = 128;

/// The plain headers of a request, as they came.
///
/// ```text
/// X-Payment-Signature: 0x…
/// X-Payment-Payer: 0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC
/// X-Payment-Nonce: 42
/// X-Payment-Valid-Before: 1795223591
/// ```
#[derive(Default)]
pub(super) struct Headers<'a> {
    signature: Option<&'a str>,
    payer: Option<&'a str>,
    amount: Option<&'a str>,
    asset: Option<&'a str>,
    network: Option<&'a str>,
    nonce: Option<&'a str>,
    valid_after: Option<&'a str>,
    valid_before: Option<&'a str>,
}

impl<'a> Headers<'a> {
    /// Whether a header, by its name in lower case, is one of these.
    pub(super) fn knows(name: &[u8]) -> bool {
        Self::default().slot(name).is_some()
    }

    /// The signature, which is what makes the others a payment.
    pub(super) fn signature(&self) -> Option<&'a str> {
        self.signature
    }

    /// Takes one header in.
    pub(super) fn take(&mut self, name: &[u8], value: &'a str) -> Result<(), PaymentError> {
        match self.slot(name) {
            Some((slot, shown)) => super::once(slot, value, shown),
            None => Ok(()),
        }
    }

    fn slot(&mut self, name: &[u8]) -> Option<(&mut Option<&'a str>, &'static str)> {
        Some(match name {
            b"x-payment-signature" => (&mut self.signature, "X-Payment-Signature"),
            b"x-payment-payer" => (&mut self.payer, "X-Payment-Payer"),
            b"x-payment-amount" => (&mut self.amount, "X-Payment-Amount"),
            b"x-payment-asset" => (&mut self.asset, "X-Payment-Asset"),
            b"x-payment-network" => (&mut self.network, "X-Payment-Network"),
            b"x-payment-nonce" => (&mut self.nonce, "X-Payment-Nonce"),
            b"x-payment-valid-after" => (&mut self.valid_after, "X-Payment-Valid-After"),
            b"x-payment-valid-before" => (&mut self.valid_before, "X-Payment-Valid-Before"),
            _ => return None,
        })
    }

    /// Reads the headers as a payment.
    pub(super) fn payment(&self, signature: &str) -> Result<Payment, PaymentError> {
        let from = required(
            self.payer,
            "X-Payment-Payer",
            "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            |text| text.parse::<Address>().ok(),
        )?;
        let nonce = required(self.nonce, "X-Payment-Nonce", "42", nonce)?;
        let valid_before = required(self.valid_before, "X-Payment-Valid-Before", "1795223591", integer)?;
        let valid_after = optional(self.valid_after, "X-Payment-Valid-After", "0", integer)?;
        let network = self.network.map(|text| {
            Network::parse_v1(text).map_err(|_| {
                PaymentError::new(
                    Refusal::InvalidNetwork,
                    "X-Payment-Network must be a network such as \"base\" or \"eip155:8453\"",
                )
            })
        });
        let network = network.transpose()?;
        let amount = optional(self.amount, "X-Payment-Amount", "0.01", decimal)?;
        let asset = optional(self.asset, "X-Payment-Asset", "USDC", |text| Some(text.to_owned()))?;
        Ok(Payment {
            dialect: Dialect::Plain,
            scheme: "exact".into(),
            network: network.clone(),
            accepted: None,
            resource_url: None,
            extensions: None,
            terms: Some(PlainTerms { amount, asset, network }),
            payload: Payload::Plain {
                from,
                valid_after: valid_after.unwrap_or(U256::from(0_u128)),
                valid_before,
                nonce,
                signature: fields::signature(signature)?,
                signature_text: signature.into(),
            },
            text: "".into(),
        })
    }
}

fn required<T>(value: Option<&str>, name: &str, example: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, PaymentError> {
    let missing = || {
        PaymentError::payload(format!(
            "the {name} header is missing: send it beside X-Payment-Signature, such as {name}: {example}"
        ))
    };
    optional(value, name, example, read)?.ok_or_else(missing)
}

fn optional<T>(value: Option<&str>, name: &str, example: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, PaymentError> {
    let Some(value) = value else { return Ok(None) };
    let value = if value.len() > MAX_VALUE { None } else { read(value) };
    value
        .map(Some)
        .ok_or_else(|| PaymentError::payload(format!("the {name} header cannot be read: send it such as {name}: {example}")))
}

fn integer(text: &str) -> Option<U256> {
    U256::from_dec_str(text).ok()
}

/// 32 bytes in hexadecimal, or a number that is padded on the left.
fn nonce(text: &str) -> Option<Nonce> {
    if text.starts_with("0x") {
        return text.parse().ok();
    }
    integer(text).map(Nonce::from_u256)
}

/// Digits with at most one point, and digits on both sides of it.
fn decimal(text: &str) -> Option<String> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    (digits(whole) && digits(fraction)).then(|| text.to_owned())
}
