//! Answers to requests that are not served: above all the 402, one answer for every client.
//!
//! Source: x402 v2 and v1, HTTP transports; PROTOCOL "The 402, one answer for every client" for what published clients read.

mod body;
mod page;

use serde::Serialize;

use super::{Payable, Refusal, RequirementV2, Resource, base64_encode, clean};
use crate::pricing::{Offer, Scheme, Transfer};

/// The longest `PAYMENT-REQUIRED` that is sent, in bytes: clients have 8 to 16 KB for all headers, and echo much of it.
pub const HEADER_BUDGET: usize = 4096;

/// What the body of a challenge looks like to a caller with an API key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyStyle {
    /// `{x402Version: 1, error, code, message, accepts}`
    #[default]
    X402,
    /// `{error: {message, type, code}}` for callers with an API key, who know nothing of x402; as above for the others.
    OpenAi,
}

/// What a request tells of its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// It has an `Origin` header: scripts on a page need to be let see the headers.
    pub origin: bool,
    /// See [`Hints::is_browser`].
    pub browser: bool,
    /// It has an API key that is not a dummy one.
    pub api_key: bool,
}

impl Hints {
    /// Whether a person sits before this client: `Accept` has `text/html` and `User-Agent` has `Mozilla`.
    pub fn is_browser(accept: &[u8], user_agent: &[u8]) -> bool {
        let has = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|part| part == word);
        has(accept, b"text/html") && has(user_agent, b"Mozilla")
    }
}

/// A refusal and all that its answer may show.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// Why the request is not served.
    pub refusal: Refusal,
    /// `error` in place of the refusal's own reason: a facilitator's. Cleaned here.
    pub reason: Option<&'a str>,
    /// `message` in place of the refusal's own. Cleaned here.
    pub detail: Option<&'a str>,
    /// What is to be paid for.
    pub resource: Resource<'a>,
    /// The offers, in order of preference; those that are not ready are left out.
    pub offers: &'a [Payable<'a>],
    /// `extensions` of the v2 challenge, if any are advertised.
    pub extensions: Option<&'a serde_json::Value>,
    /// Whether the body lists v1 requirements.
    pub v1: bool,
    /// Whether the plain headers are sent.
    pub plain_headers: bool,
    /// What the body looks like.
    pub style: BodyStyle,
    /// What is known of the client.
    pub hints: Hints,
    /// Seconds for `Retry-After` with 429 and 503; 1 if not given.
    pub retry_after: Option<u32>,
}

/// A local reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case; values are printable ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// The body; its type is among the headers.
    pub body: Vec<u8>,
}

impl Answer {
    /// Says after how many seconds it is worth asking again, where it asks for that at all.
    pub fn retry_after(&mut self, seconds: u64) {
        let header = self.headers.iter_mut().find(|(name, _)| *name == "retry-after");
        if let Some((_, value)) = header {
            *value = seconds.max(1).to_string();
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRequired<'a> {
    x402_version: u8,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceInfo<'a>>,
    accepts: &'a [RequirementV2<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    extensions: Option<&'a serde_json::Value>,
}

#[derive(Serialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
struct ResourceInfo<'a> {
    url: &'a str,
    description: &'a str,
    mime_type: &'a str,
}

impl<'a> Challenge<'a> {
    /// The answer: status, headers and body.
    pub fn answer(&self) -> Answer {
        let row = self.refusal.row();
        let said = Said {
            error: self.reason.map_or_else(|| row.reason.to_owned(), clean),
            code: row.code,
            message: self.detail.map_or_else(|| row.message.to_owned(), clean),
        };
        let fresh = matches!(row.status, 402 | 412);
        let mut headers = vec![("cache-control", "no-store".to_owned())];
        if fresh {
            if let Some(value) = self.payment_required_for(&said.error) {
                headers.push(("payment-required", value));
            }
            if self.plain_headers {
                headers.extend(self.plain());
            }
        }
        if self.hints.origin {
            let exposed = "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE".to_owned();
            headers.push(("access-control-expose-headers", exposed));
        }
        if matches!(row.status, 429 | 503) {
            headers.push(("retry-after", self.retry_after.unwrap_or(1).to_string()));
        }
        let body = if fresh && self.hints.browser {
            headers.push(("content-type", "text/html; charset=utf-8".to_owned()));
            headers.push((
                "content-security-policy",
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'".to_owned(),
            ));
            page::page(self, &said).into_bytes()
        } else {
            headers.push(("content-type", "application/json".to_owned()));
            body::body(self, &said, fresh)
        };
        Answer {
            status: row.status,
            headers,
            body,
        }
    }

    /// The value of `PAYMENT-REQUIRED` for a request without payment, to be measured: warn above half of [`HEADER_BUDGET`].
    pub fn payment_required(&self) -> Option<String> {
        self.payment_required_for(Refusal::PaymentRequired.row().reason)
    }

    /// `None` if no offer can be told to v2 clients. What does not fit into the budget is left out: first the description, then
    /// offers from the end, at last the resource (a client that was told none may pay without one).
    fn payment_required_for(&self, error: &str) -> Option<String> {
        let accepts: Vec<_> = self.ready().filter_map(|payable| payable.v2()).collect();
        let whole = ResourceInfo {
            url: self.resource.url,
            description: self.resource.description,
            mime_type: self.resource.mime_type,
        };
        let bare = ResourceInfo { description: "", ..whole };
        let encode = |resource, accepts| {
            let text = serde_json::to_vec(&PaymentRequired {
                x402_version: 2,
                error,
                resource,
                accepts,
                extensions: self.extensions,
            });
            base64_encode(&text.unwrap_or_default())
        };
        let mut rest = accepts.as_slice();
        let mut value = encode(Some(whole), rest);
        while value.len() > HEADER_BUDGET {
            value = encode(Some(bare), rest);
            match rest.split_last() {
                Some((_, fewer)) if !fewer.is_empty() => rest = fewer,
                _ => break,
            }
        }
        if value.len() > HEADER_BUDGET {
            value = encode(None, rest);
        }
        (!accepts.is_empty()).then_some(value)
    }

    /// The first offer that plain headers can pay, spelled out.
    fn plain(&self) -> Vec<(&'static str, String)> {
        let Some(payable) = self.ready().find(|payable| is_eip3009(payable.offer)) else {
            return Vec::new();
        };
        let asset = &payable.offer.asset;
        vec![
            ("x-payment-required", "true".to_owned()),
            ("x-payment-amount", decimal(payable.offer)),
            ("x-payment-asset", clean(&asset.symbol)),
            ("x-payment-network", asset.network.v1_name().to_owned()),
            ("x-payment-recipient", payable.seller().to_owned()),
        ]
    }

    fn ready(&self) -> impl Iterator<Item = &'a Payable<'a>> {
        self.offers.iter().filter(|payable| payable.ready())
    }
}

/// What is said of a refusal, clean.
struct Said {
    error: String,
    code: &'static str,
    message: String,
}

fn is_eip3009(offer: &Offer) -> bool {
    offer.scheme == Scheme::Exact && offer.transfer == Transfer::Eip3009
}

/// 10000 with 6 decimals is `0.01`.
fn decimal(offer: &Offer) -> String {
    let decimals = usize::from(offer.asset.decimals);
    let digits = format!("{:0>width$}", offer.amount.0, width = decimals.saturating_add(1));
    let (whole, fraction) = digits
        .split_at_checked(digits.len().saturating_sub(decimals))
        .unwrap_or((&digits, ""));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}
