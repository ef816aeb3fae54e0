//! `/supported`: what a facilitator can settle, and the facts that offers need of it.

use super::answers::MAX_ANSWER;
use super::body::Speaks;
use crate::json::Json;
use crate::pricing::{Offer, Scheme};
use crate::x402::Network;
use crate::x402::json;

/// The most kinds that are kept.
const MAX_KINDS: usize = 512;
/// The longest field that is kept, in bytes.
const MAX_FIELD: usize = 128;

/// One way of paying that a facilitator settles.
///
/// ```json
/// {"x402Version": 2, "scheme": "upto", "network": "eip155:84532", "extra": {"facilitatorAddress": "0x7099…"}}
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kind {
    /// 1 or 2.
    pub version: u8,
    /// `exact`, `upto`, ...
    pub scheme: Box<str>,
    /// A v1 name, a CAIP-2 identifier, or a glob such as `eip155:*`.
    pub network: Box<str>,
    /// Who settles `upto`.
    pub facilitator_address: Option<Box<str>>,
    /// Who pays Solana's fees.
    pub fee_payer: Option<Box<str>>,
}

/// What a facilitator said it supports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Supported {
    /// In the facilitator's order.
    pub kinds: Vec<Kind>,
}

/// An answer that is not what `/supported` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SupportedError;

impl Supported {
    /// Reads the answer of `/supported`, of at most [`MAX_ANSWER`] bytes. Kinds that cannot be read are skipped.
    ///
    /// ```json
    /// {"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}], "extensions": [], "signers": {}}
    /// ```
    pub fn parse(body: &[u8]) -> Result<Self, SupportedError> {
        if body.len() > MAX_ANSWER {
            return Err(SupportedError);
        }
        let value = core::str::from_utf8(body)
            .ok()
            .and_then(|text| json::parse(text).ok())
            .ok_or(SupportedError)?;
        let kinds = value.get("kinds").and_then(Json::list).ok_or(SupportedError)?;
        let kinds = kinds.iter().filter_map(Kind::read).take(MAX_KINDS).collect();
        Ok(Self { kinds })
    }

    /// Whether a version of a scheme is settled on a network.
    pub fn supports(&self, version: u8, scheme: Scheme, network: &Network) -> bool {
        self.kinds.iter().any(|kind| kind.version == version && kind.is(scheme, network))
    }

    /// Which versions are spoken for an offer; neither where the facilitator does not support it.
    pub fn speaks(&self, offer: &Offer) -> Speaks {
        let supports = |version| self.supports(version, offer.scheme, &offer.asset.network);
        Speaks {
            v1: supports(1),
            v2: supports(2),
        }
    }

    /// The account that settles `upto` on a network: `extra.facilitatorAddress` of offers.
    pub fn facilitator_address(&self, network: &Network) -> Option<&str> {
        self.fact(Scheme::Upto, network, |kind| kind.facilitator_address.as_deref())
    }

    /// The account that pays the fee of `exact` on a Solana network: `extra.feePayer` of offers.
    pub fn fee_payer(&self, network: &Network) -> Option<&str> {
        self.fact(Scheme::Exact, network, |kind| kind.fee_payer.as_deref())
    }

    /// v2 before v1, and a network by its name before a glob.
    fn fact<'a>(&'a self, scheme: Scheme, network: &Network, of: impl Fn(&'a Kind) -> Option<&'a str>) -> Option<&'a str> {
        let known = self.kinds.iter().filter(|kind| kind.is(scheme, network));
        let known = known.filter_map(|kind| of(kind).map(|fact| ((kind.network.ends_with('*'), kind.version != 2), fact)));
        known.min_by_key(|(rank, _)| *rank).map(|(_, fact)| fact)
    }

    /// A compact form to be shared among workers; [`Supported::decode`] reads it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = String::new();
        for kind in &self.kinds {
            let version = kind.version.to_string();
            let address = kind.facilitator_address.as_deref().unwrap_or_default();
            let fee_payer = kind.fee_payer.as_deref().unwrap_or_default();
            out.push_str(&[&version, &*kind.scheme, &*kind.network, address, fee_payer].join(" "));
            out.push('\n');
        }
        out.into_bytes()
    }

    /// Reads what [`Supported::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, SupportedError> {
        let text = core::str::from_utf8(bytes).map_err(|_| SupportedError)?;
        let kinds = text.lines().take(MAX_KINDS).map(Kind::from_line);
        kinds.collect::<Option<Vec<_>>>().map(|kinds| Self { kinds }).ok_or(SupportedError)
    }
}

impl Kind {
    fn read(value: &Json<'_>) -> Option<Self> {
        let extra = |key| value.get("extra").and_then(|extra| word(extra.get(key)));
        Some(Self {
            version: match value.get("x402Version").and_then(Json::whole)? {
                1 => 1,
                2 => 2,
                _ => return None,
            },
            scheme: word(value.get("scheme"))?,
            network: word(value.get("network"))?,
            facilitator_address: extra("facilitatorAddress"),
            fee_payer: extra("feePayer"),
        })
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let optional = |word: &str| (!word.is_empty()).then(|| word.into());
        Some(Self {
            version: words.next()?.parse().ok()?,
            scheme: words.next()?.into(),
            network: words.next()?.into(),
            facilitator_address: optional(words.next()?),
            fee_payer: optional(words.next()?),
        })
    }

    fn is(&self, scheme: Scheme, network: &Network) -> bool {
        let scheme_name = match scheme {
            Scheme::Exact => "exact",
            Scheme::Upto => "upto",
        };
        let same = *self.network == *network.as_str() || (self.version == 1 && *self.network == *network.v1_name());
        let glob = self
            .network
            .strip_suffix(":*")
            .is_some_and(|namespace| namespace == network.namespace());
        *self.scheme == *scheme_name && (same || glob)
    }
}

/// A word of printable ASCII: what else there may be would break the compact form, or a header.
fn word(value: Option<&Json<'_>>) -> Option<Box<str>> {
    let text = value?.text()?;
    let word = (1..=MAX_FIELD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    word.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &[u8] = include_bytes!("../../../tests/wire/supported.json");

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn reads_what_was_recorded() {
        let supported = Supported::parse(RECORDED).unwrap();
        let sepolia = network("eip155:84532");
        assert_eq!(
            supported.facilitator_address(&sepolia),
            Some("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
        );
        assert!(supported.supports(2, Scheme::Exact, &sepolia));
        assert!(supported.supports(1, Scheme::Exact, &sepolia));
        assert!(!supported.supports(1, Scheme::Upto, &sepolia));
        assert!(supported.supports(1, Scheme::Exact, &network("eip155:8453")));
        assert!(!supported.supports(2, Scheme::Exact, &network("eip155:8453")));
        assert_eq!(Supported::decode(&supported.encode()), Ok(supported));
    }

    #[test]
    fn globs_count_and_names_go_before_them() {
        let body = br#"{"kinds":[
            {"x402Version":2,"scheme":"upto","network":"eip155:*","extra":{"facilitatorAddress":"0xany"}},
            {"x402Version":2,"scheme":"upto","network":"eip155:1","extra":{"facilitatorAddress":"0xone"}},
            {"x402Version":1,"scheme":"exact","network":"solana","extra":{"feePayer":"Fee1"}},
            {"x402Version":3,"scheme":"exact","network":"eip155:1"}, 7, {"x402Version":2,"scheme":"a b","network":"c"}]}"#;
        let supported = Supported::parse(body).unwrap();
        assert_eq!(supported.kinds.len(), 3);
        assert_eq!(supported.facilitator_address(&network("eip155:1")), Some("0xone"));
        assert_eq!(supported.facilitator_address(&network("eip155:8453")), Some("0xany"));
        let solana = network("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp");
        assert_eq!(supported.fee_payer(&solana), Some("Fee1"));
        assert!(!supported.supports(2, Scheme::Upto, &solana));
    }

    #[test]
    fn what_is_something_else_is_an_error() {
        for body in ["", "[]", "{}", r#"{"kinds":{}}"#] {
            assert_eq!(Supported::parse(body.as_bytes()), Err(SupportedError), "{body}");
        }
        assert_eq!(Supported::decode(b"2 exact"), Err(SupportedError));
    }
}
