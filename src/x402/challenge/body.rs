//! The JSON bodies of refusals: v1 requirements for v1 clients, and errors for everybody.

use serde::Serialize;

use super::{BodyStyle, Challenge, Said, is_eip3009};
use crate::pricing::{Scheme, Transfer};
use crate::sorting;
use crate::x402::{Payable, RequirementV1};

/// Base, which clients that read one requirement alone are made for.
const BASE: &str = "eip155:8453";

/// ```json
/// {"x402Version": 1, "error": "Payment required", "code": "402", "message": "pay with one of the offers …", "accepts": []}
/// ```
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct X402<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    x402_version: Option<u8>,
    error: &'a str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepts: Option<Vec<RequirementV1<'a>>>,
}

/// ```json
/// {"error": {"message": "…", "type": "billing_error", "code": "insufficient_credits"}}
/// ```
#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
}

/// The body; `fresh` says whether offers go with it.
pub(super) fn body(challenge: &Challenge<'_>, said: &Said, fresh: bool) -> Vec<u8> {
    let openai = challenge.style == BodyStyle::OpenAi && challenge.hints.api_key;
    let text = if openai {
        let (r#type, code) = if fresh {
            ("billing_error", "insufficient_credits")
        } else {
            ("payment_error", said.error.as_str())
        };
        let message = &said.message;
        serde_json::to_vec(&OpenAi {
            error: OpenAiError { message, r#type, code },
        })
    } else {
        let listed = fresh && challenge.v1;
        serde_json::to_vec(&X402 {
            x402_version: listed.then_some(1),
            error: &said.error,
            code: said.code,
            message: &said.message,
            accepts: listed.then(|| accepts(challenge)),
        })
    };
    text.unwrap_or_default()
}

/// What published v1 clients can read, Base first; where there is none of that, LibertAI's Permit offers.
///
/// One item that a v1 client cannot read makes it throw the whole list away, so the two are never mixed.
fn accepts<'a>(challenge: &Challenge<'a>) -> Vec<RequirementV1<'a>> {
    let mut listed: Vec<&Payable<'_>> = challenge.ready().filter(|payable| readable(payable)).collect();
    if listed.is_empty() {
        listed = challenge
            .ready()
            .filter(|payable| matches!(payable.offer.transfer, Transfer::Permit { .. }))
            .collect();
    }
    let is_other = |payable: &&Payable<'_>| payable.offer.asset.network.as_str() != BASE;
    sorting::sort(&mut listed, |one, other| !is_other(one) && is_other(other));
    listed.iter().map(|payable| payable.v1(&challenge.resource)).collect()
}

fn readable(payable: &Payable<'_>) -> bool {
    let offer = payable.offer;
    let exact = is_eip3009(offer) || (offer.scheme == Scheme::Exact && offer.transfer == Transfer::Solana);
    exact && offer.asset.network.known_to_v1_clients()
}
