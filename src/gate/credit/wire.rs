//! The ledger's data path as JSON. Source: docs/LEDGER.md, `POST /internal/v1/reserve` and `/internal/v1/capture`.

use serde::Serialize;
use serde_json::Value;

use crate::config::AccountLimits;
use crate::x402::Answer;

/// What is asked to be reserved. Amounts are millionths of a dollar in decimal, as JSON numbers lose digits.
#[derive(Serialize)]
pub(super) struct Reserve<'a> {
    /// 32 hexadecimal digits.
    pub(super) id: &'a str,
    /// SHA-256 of the API key, 64 hexadecimal digits.
    pub(super) key: &'a str,
    pub(super) amount: String,
    pub(super) route: &'a str,
    /// What a top-up is made for.
    pub(super) resource: &'a str,
    pub(super) description: &'a str,
    pub(super) mime_type: &'a str,
    /// Whether the client is a page of another origin, and whether it is a browser: what a challenge has to suit.
    pub(super) origin: bool,
    pub(super) browser: bool,
    pub(super) limits: Option<Limits>,
    /// Names and values of the headers that pay.
    pub(super) headers: Vec<(&'a str, &'a str)>,
    /// What is worth leasing besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lease: Option<Lease<'a>>,
}

/// A lease that is wanted.
#[derive(Serialize)]
pub(super) struct Lease<'a> {
    /// 32 hexadecimal digits.
    pub(super) id: &'a str,
    pub(super) amount: String,
}

#[derive(Serialize)]
pub(super) struct Limits {
    requests: Option<u32>,
    window_ms: u64,
    spend: Option<String>,
}

impl Limits {
    pub(super) fn of(limits: &AccountLimits) -> Self {
        Self {
            requests: limits.requests,
            window_ms: limits.window_ms,
            spend: limits.spend.map(|spend| spend.to_string()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Capture<'a> {
    pub(super) id: &'a str,
    pub(super) amount: String,
    /// The key's hash, where nothing may have been reserved: it is charged all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<&'a str>,
}

/// A lease that was granted, by the name that it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// In millionths of a dollar.
    pub(super) amount: u64,
    pub(super) ttl_ms: u64,
}

impl Granted {
    fn read(said: &Value) -> Option<Self> {
        Some(Self {
            amount: said.get("amount")?.as_str()?.parse().ok()?,
            ttl_ms: said.get("ttl_ms")?.as_u64()?,
        })
    }
}

/// What the ledger made of it.
pub(super) enum Decision {
    /// It is reserved.
    Reserved {
        tenant: String,
        /// The header that tells the client of a top-up.
        receipt: Option<(&'static str, String)>,
        /// What may be spent besides.
        lease: Option<Granted>,
    },
    /// The client gets this.
    Answer(Answer),
}

/// Headers that the ledger may set on an answer of ours. One text is smaller than a list, whose comparisons would be unrolled.
const HEADERS: &str = "access-control-expose-headers cache-control content-security-policy content-type payment-required payment-response \
    retry-after www-authenticate x-payment-intent-id x-payment-required x-payment-response vary";

fn known(header: &Value) -> Option<(&'static str, String)> {
    let (name, value) = (header.get(0)?.as_str()?.to_ascii_lowercase(), header.get(1)?.as_str()?);
    let name = HEADERS.split(' ').find(|known| *known == name)?;
    let is_visible = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_visible.then(|| (name, value.to_owned()))
}

/// Reads an answer; `None`: it says nothing that can be relied on.
pub(super) fn decision(status: u16, body: &[u8]) -> Option<Decision> {
    if status != 200 {
        return None;
    }
    let said: Value = serde_json::from_slice(body).ok()?;
    match said.get("outcome")?.as_str()? {
        "reserved" => Some(Decision::Reserved {
            tenant: printable(said.get("tenant")?.as_str()?)?,
            receipt: said.get("receipt").and_then(known),
            lease: said.get("lease").and_then(Granted::read),
        }),
        "answer" => {
            let status = u16::try_from(said.get("status")?.as_u64()?).ok()?;
            let headers = said.get("headers")?.as_array()?;
            let answer = Answer {
                status,
                headers: headers.iter().filter_map(known).collect(),
                body: said.get("body")?.as_str()?.into(),
            };
            // Nothing below 400 is a refusal.
            (400..600).contains(&status).then_some(Decision::Answer(answer))
        }
        _ => None,
    }
}

/// What may be a header's value.
fn printable(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_read() {
        let body = br#"{"outcome":"reserved","tenant":"ten_1","balance":"7","receipt":["PAYMENT-RESPONSE","e30="]}"#;
        let Some(Decision::Reserved { tenant, receipt, lease }) = decision(200, body) else {
            panic!("not reserved")
        };
        assert_eq!(lease, None);
        assert_eq!((&*tenant, receipt), ("ten_1", Some(("payment-response", "e30=".into()))));
        let body = br#"{"outcome":"reserved","tenant":"ten_1","balance":"7","receipt":null}"#;
        assert!(matches!(decision(200, body), Some(Decision::Reserved { receipt: None, .. })));
    }

    #[test]
    fn an_answer_is_passed_on_with_the_headers_that_are_known() {
        let body = br#"{"outcome":"answer","status":402,"reason":"x","headers":[["Payment-Required","e30="],["set-cookie","a=b"],["vary","a\nb"]],"body":"{}"}"#;
        let Some(Decision::Answer(answer)) = decision(200, body) else {
            panic!("no answer")
        };
        assert_eq!((answer.status, &*answer.body), (402, &b"{}"[..]));
        assert_eq!(answer.headers, [("payment-required", "e30=".to_owned())]);
    }

    #[test]
    fn nothing_else_is_a_decision() {
        for (status, body) in [
            (200, &b""[..]),
            (200, b"{}"),
            (200, br#"{"outcome":"maybe"}"#),
            (200, br#"{"outcome":"reserved"}"#),
            (200, br#"{"outcome":"reserved","tenant":""}"#),
            (200, br#"{"outcome":"reserved","tenant":"a b"}"#),
            (200, br#"{"outcome":"answer","status":200,"headers":[],"body":""}"#),
            (200, br#"{"outcome":"answer","status":999,"headers":[],"body":""}"#),
            (201, br#"{"outcome":"reserved","tenant":"ten_1"}"#),
            (500, br#"{"outcome":"reserved","tenant":"ten_1"}"#),
        ] {
            assert!(decision(status, body).is_none(), "{status} {}", String::from_utf8_lossy(body));
        }
    }
}
