//! Challenges that ask for a top-up.

use serde_json::{Value, json};
use x402_envoy::config::ChallengeStyle;
use x402_envoy::pricing::Offer;
use x402_envoy::supported::{Ready, Table};
use x402_envoy::x402::{Answer, BodyStyle, Challenge, Hints, Payable, Refusal, Resource};

use super::offers::Priced;

/// What the answer to a request that cannot be served is made of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Why.
    pub refusal: Refusal,
    /// A facilitator's reason in place of the refusal's own.
    pub reason: Option<&'a str>,
    /// What is wrong with this payment, in place of the refusal's own words.
    pub detail: Option<&'a str>,
    /// What is to be paid for: the request's own URL, or the funding intent's.
    pub resource: Resource<'a>,
    /// The offers, the default tier's first.
    pub offers: &'a [Priced],
    /// What is known of the client.
    pub hints: Hints,
}

/// The answer: a 402 with `PAYMENT-REQUIRED` over the offers that are ready and fit into its budget, or what else the refusal's row says.
///
/// ```json
/// {"error": {"message": "…", "type": "billing_error", "code": "insufficient_credits"}, "x402Version": 1, "accepts": []}
/// ```
pub fn answer(asked: &Asked<'_>, style: ChallengeStyle, table: &Table) -> Answer {
    let ready: Vec<(&Offer, Ready)> = asked
        .offers
        .iter()
        .filter_map(|priced| Some((&priced.offer, table.ready(&priced.offer)?)))
        .collect();
    let offers: Vec<Payable<'_>> = ready
        .iter()
        .map(|(offer, ready)| Payable {
            offer,
            facts: ready.facts(),
        })
        .collect();
    let challenge = Challenge {
        refusal: asked.refusal,
        reason: asked.reason,
        detail: asked.detail,
        resource: asked.resource,
        offers: &offers,
        extensions: None,
        v1: style.v1,
        plain_headers: style.plain_headers,
        style: BodyStyle::X402,
        hints: asked.hints,
        retry_after: None,
    };
    let mut answer = challenge.answer();
    if let Ok(Value::Object(mut body)) = serde_json::from_slice::<Value>(&answer.body) {
        let row = asked.refusal.row();
        let (kind, code) = match (asked.refusal, row.status) {
            (Refusal::PaymentRequired, _) => ("billing_error", json!("insufficient_credits")),
            (_, 402 | 412) => ("billing_error", body.get("error").cloned().unwrap_or_default()),
            _ => ("payment_error", body.get("error").cloned().unwrap_or_default()),
        };
        let message = body.get("message").cloned().unwrap_or_default();
        // Clients of OpenAI's API read an object here; x402 v1 clients read `accepts` alone.
        body.insert("error".to_owned(), json!({"message": message, "type": kind, "code": code}));
        body.remove("message");
        body.remove("code");
        answer.body = Value::Object(body).to_string().into_bytes();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::super::offers::Offers;
    use super::*;
    use base64::Engine as _;

    fn offers(accept: &Value) -> Offers {
        let document = json!({
            "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"}, "accept": accept,
            "facilitators": [{"url": "http://127.0.0.1:4022"}],
        });
        let tiers = ["$1", "$5", "$10", "$20"].map(str::to_owned);
        Offers::new(document.as_object().unwrap(), &tiers, "$100").unwrap()
    }

    fn asked<'a>(refusal: Refusal, offers: &'a [Priced]) -> Asked<'a> {
        let resource = Resource {
            url: "https://api.example.com/v1/chat/completions",
            description: "chat",
            mime_type: "application/json",
        };
        Asked {
            refusal,
            reason: None,
            detail: None,
            resource,
            offers,
            hints: Hints::default(),
        }
    }

    #[test]
    fn all_tiers_are_offered_the_default_first() {
        let offers = offers(&json!([{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}]));
        let all = offers.all();
        let answer = answer(&asked(Refusal::PaymentRequired, &all), offers.config.challenge, &Table::default());
        assert_eq!(answer.status, 402);
        let header = &answer.headers.iter().find(|(name, _)| *name == "payment-required").unwrap().1;
        let required: Value = serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header).unwrap()).unwrap();
        let amounts: Vec<_> = required["accepts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|offer| offer["amount"].as_str().unwrap())
            .collect();
        assert_eq!(amounts, ["1000000", "5000000", "10000000", "20000000"]);
        assert_eq!(required["resource"]["url"], "https://api.example.com/v1/chat/completions");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (&body["error"]["type"], &body["error"]["code"]),
            (&json!("billing_error"), &json!("insufficient_credits"))
        );
        assert_eq!((&body["x402Version"], body["accepts"].as_array().unwrap().len()), (&json!(1), 4));
        assert_eq!(body["accepts"][0]["maxAmountRequired"], "1000000");
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let networks = ["eip155:8453", "eip155:84532", "eip155:1", "eip155:137", "eip155:42161"];
        let accept = networks.map(|network| json!({"scheme": "exact", "network": network, "asset": "USDC"}));
        let offers = offers(&json!(accept));
        let all = offers.all();
        let answer = answer(&asked(Refusal::PaymentRequired, &all), offers.config.challenge, &Table::default());
        let header = &answer.headers.iter().find(|(name, _)| *name == "payment-required").unwrap().1;
        assert!(header.len() <= x402_envoy::x402::HEADER_BUDGET, "{}", header.len());
        let required: Value = serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header).unwrap()).unwrap();
        let accepts = required["accepts"].as_array().unwrap();
        assert!(accepts.len() < 20 && accepts.len() >= 5);
        assert!(accepts.iter().take(5).all(|offer| offer["amount"] == "1000000"));
    }

    #[test]
    fn what_is_no_fresh_challenge_offers_nothing() {
        let offers = offers(&json!([{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}]));
        let all = offers.all();
        let answer = answer(&asked(Refusal::SettlementPending, &all), offers.config.challenge, &Table::default());
        assert_eq!(answer.status, 503);
        assert!(answer.headers.iter().any(|(name, _)| *name == "retry-after"));
        assert!(!answer.headers.iter().any(|(name, _)| *name == "payment-required"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body.get("accepts"), None);
    }
}
