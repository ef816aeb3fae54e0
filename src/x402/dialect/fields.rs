//! Fields of a payment's JSON, with errors that name the field and never repeat its value.

use super::super::Network;
use super::super::Refusal;
use super::super::json::{Json, Object};
use super::super::payment::{Payload, PaymentError};
use crate::evm::eip3009::TransferWithAuthorization;
use crate::evm::permit2::{PermitWitnessTransferFrom, Witness};
use crate::evm::{Address, Nonce, SignatureError, SignatureForm, U256};

/// The longest scheme, network or URL that is looked at, in bytes.
const MAX_TEXT: usize = 2048;

/// How deep the objects lie that are looked into.
const MAX_PATH: usize = 3;

/// An object and where it is.
pub(super) struct Fields<'a> {
    /// Keys from the outside in; empty ones at the end.
    path: [&'static str; MAX_PATH],
    object: &'a Object<'a>,
}

impl<'a> Fields<'a> {
    /// The fields of the whole payment.
    pub(super) fn new(object: &'a Object<'a>) -> Self {
        Self {
            path: [""; MAX_PATH],
            object,
        }
    }

    /// Where a field is, for people.
    fn at(&self, key: &str) -> String {
        let path = self.path.iter().filter(|key| !key.is_empty());
        path.flat_map(|key| [key, "."]).chain([key]).collect()
    }

    fn wrong(&self, key: &str, expected: &str) -> PaymentError {
        let fault = if self.object.contains_key(key) {
            "must be"
        } else {
            "is missing: it must be"
        };
        PaymentError::payload(format!("{} {fault} {expected}", self.at(key)))
    }

    pub(super) fn object(&self, key: &'static str) -> Result<Fields<'a>, PaymentError> {
        let Some(Json::Object(object)) = self.object.get(key) else {
            return Err(self.wrong(key, "an object"));
        };
        let mut path = self.path;
        if let Some(free) = path.iter_mut().find(|key| key.is_empty()) {
            *free = key;
        }
        Ok(Fields { path, object })
    }

    /// Whether there is something other than `null`.
    pub(super) fn has(&self, key: &str) -> bool {
        !matches!(self.object.get(key), None | Some(Json::Null))
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, PaymentError> {
        match self.object.get(key) {
            Some(Json::Text(text)) if !text.is_empty() && text.len() <= MAX_TEXT => Ok(text),
            _ => Err(self.wrong(key, "a string")),
        }
    }

    pub(super) fn network(&self, key: &str) -> Result<Network, PaymentError> {
        // A network that nobody can name is well formed all the same: it is not offered.
        Network::parse_v1(self.text(key)?).map_err(|_| {
            PaymentError::new(
                Refusal::InvalidNetwork,
                format!("{} must be a network such as \"eip155:8453\", or in v1 \"base\"", self.at(key)),
            )
        })
    }

    fn address(&self, key: &str) -> Result<Address, PaymentError> {
        let expected = "an address: 0x and 40 hexadecimal digits";
        self.string(key)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.wrong(key, expected))
    }

    fn integer(&self, key: &str) -> Result<U256, PaymentError> {
        let expected = "an integer in a string, such as \"1000\"";
        self.string(key)
            .and_then(|text| U256::from_dec_str(text).ok())
            .ok_or_else(|| self.wrong(key, expected))
    }

    fn nonce(&self, key: &str) -> Result<Nonce, PaymentError> {
        let expected = "a nonce: 0x and 64 hexadecimal digits";
        self.string(key)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.wrong(key, expected))
    }

    fn string(&self, key: &str) -> Option<&'a str> {
        self.object.get(key).and_then(Json::text)
    }

    fn signature(&self, key: &str) -> Result<SignatureForm, PaymentError> {
        let text = self
            .string(key)
            .ok_or_else(|| self.wrong(key, "a string of 0x and hexadecimal digits"))?;
        signature(text)
    }

    /// Reads this object as the payload of a payment on a network.
    pub(super) fn payload(&self, network: &Network) -> Result<Payload, PaymentError> {
        if network.is_solana() {
            return self.solana();
        }
        match (self.object.get("authorization"), self.object.get("permit2Authorization")) {
            (Some(_), Some(_)) => Err(PaymentError::payload(
                "payload has both authorization and permit2Authorization: send one of them",
            )),
            (None, Some(_)) => self.permit2(),
            _ => self.eip3009(),
        }
    }

    fn solana(&self) -> Result<Payload, PaymentError> {
        self.string("transaction")
            .and_then(super::base64)
            .map(|transaction| Payload::Solana { transaction })
            .ok_or_else(|| self.wrong("transaction", "a transaction in base64"))
    }

    fn eip3009(&self) -> Result<Payload, PaymentError> {
        let signed = self.object("authorization")?;
        Ok(Payload::Eip3009 {
            authorization: TransferWithAuthorization {
                from: signed.address("from")?,
                to: signed.address("to")?,
                value: signed.integer("value")?,
                valid_after: signed.integer("validAfter")?,
                valid_before: signed.integer("validBefore")?,
                nonce: signed.nonce("nonce")?,
            },
            signature: self.signature("signature")?,
        })
    }

    fn permit2(&self) -> Result<Payload, PaymentError> {
        let signed = self.object("permit2Authorization")?;
        let permitted = signed.object("permitted")?;
        let witness = signed.object("witness")?;
        let (to, valid_after) = (witness.address("to")?, witness.integer("validAfter")?);
        let witness = match witness.has("facilitator") {
            false => Witness::Exact { to, valid_after },
            true => Witness::Upto {
                to,
                facilitator: witness.address("facilitator")?,
                valid_after,
            },
        };
        Ok(Payload::Permit2 {
            from: signed.address("from")?,
            permit: PermitWitnessTransferFrom {
                token: permitted.address("token")?,
                amount: permitted.integer("amount")?,
                spender: signed.address("spender")?,
                nonce: signed.integer("nonce")?,
                deadline: signed.integer("deadline")?,
                witness,
            },
            signature: self.signature("signature")?,
        })
    }
}

/// Reads a signature; one that no token would accept is a bad signature, not a malformed payment.
pub(super) fn signature(text: &str) -> Result<SignatureForm, PaymentError> {
    SignatureForm::parse(text).map_err(|why| {
        let refusal = match why {
            SignatureError::NotHex | SignatureError::Empty | SignatureError::TooLong => Refusal::InvalidPayload,
            _ => Refusal::InvalidSignature,
        };
        PaymentError::new(refusal, why.to_string())
    })
}
