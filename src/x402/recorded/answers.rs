//! Challenges and other refusals, as their readers see them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn the_body_lists_only_what_v1_clients_read_with_base_first() {
    let mut offers = all();
    offers.push(offer("eip155:31337", Scheme::Exact, Transfer::Eip3009, 1000));
    let payables: Vec<_> = offers.iter().map(payable).collect();
    let answer = challenge(Refusal::PaymentRequired, &payables).answer();
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap();
    let listed: Vec<_> = body["accepts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (&item["scheme"], &item["network"]))
        .collect();
    assert_eq!(
        listed,
        [(&json!("exact"), &json!("base")), (&json!("exact"), &json!("base-sepolia"))]
    );
    assert_eq!(
        (&body["x402Version"], &body["error"], &body["code"]),
        (&json!(1), &json!("Payment required"), &json!("402"))
    );
    let told = from_base64(header(&answer, "payment-required").unwrap());
    assert_eq!(told["accepts"].as_array().unwrap().len(), 5, "all but the Permit");
    assert_eq!(header(&answer, "x-payment-amount"), Some("0.001"));
    assert_eq!(header(&answer, "x-payment-network"), Some("base-sepolia"));
    assert_eq!(header(&answer, "cache-control"), Some("no-store"));
    assert_eq!(header(&answer, "access-control-expose-headers"), None);

    let permit: Vec<_> = payables
        .iter()
        .filter(|payable| payable.v2().is_none() || payable.offer.scheme == Scheme::Upto)
        .copied()
        .collect();
    let body = serde_json::from_slice::<Value>(&challenge(Refusal::PaymentRequired, &permit).answer().body).unwrap();
    assert_eq!(body["accepts"][0]["extra"]["primaryType"], "Permit");
    assert_eq!(body["accepts"][0]["payTo"], FACILITATOR);
    assert_eq!(body["accepts"][0]["extra"]["recipientAddress"], SELLER);
}

#[test]
fn answers_fit_their_readers() {
    let offers = [offer("eip155:8453", Scheme::Exact, Transfer::Eip3009, 10_000)];
    let payables: Vec<_> = offers.iter().map(payable).collect();
    let mut page = challenge(Refusal::PaymentRequired, &payables);
    page.resource.description = "<script>alert(1)</script>";
    page.hints = Hints {
        browser: Hints::is_browser(b"text/html,*/*", b"Mozilla/5.0"),
        origin: true,
        api_key: false,
    };
    let answer = page.answer();
    let html = String::from_utf8(answer.body.clone()).unwrap();
    assert!(html.contains("0.01 USDC") && html.contains(SELLER) && html.contains("&lt;script&gt;") && !html.contains("<script"));
    assert!(
        header(&answer, "access-control-expose-headers")
            .unwrap()
            .contains("PAYMENT-REQUIRED")
    );

    let mut openai = challenge(Refusal::PaymentRequired, &payables);
    openai.style = BodyStyle::OpenAi;
    openai.hints.api_key = true;
    let body = serde_json::from_slice::<Value>(&openai.answer().body).unwrap();
    assert_eq!(body["error"]["code"], "insufficient_credits");
    openai.hints.api_key = false;
    assert_eq!(serde_json::from_slice::<Value>(&openai.answer().body).unwrap()["x402Version"], 1);

    for (refusal, status) in [
        (Refusal::InvalidPayload, 400),
        (Refusal::PaymentInUse, 409),
        (Refusal::FacilitatorUnavailable, 503),
    ] {
        let mut other = challenge(refusal, &payables);
        other.detail = Some("see https://rpc.example/key\r\nX: y");
        let answer = other.answer();
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer, "payment-required"), None);
        assert_eq!(header(&answer, "retry-after").is_some(), status == 503);
        let body = serde_json::from_slice::<Value>(&answer.body).unwrap();
        assert_eq!(body["message"], "see (url) X: y");
        assert!(body.get("accepts").is_none());
    }
}

#[test]
fn the_header_stays_within_its_budget() {
    let offers: Vec<_> = (0..40).map(|n| offer("eip155:8453", Scheme::Exact, Transfer::Eip3009, n)).collect();
    let payables: Vec<_> = offers.iter().map(payable).collect();
    let mut challenge = challenge(Refusal::PaymentRequired, &payables);
    let long = "d".repeat(8000);
    challenge.resource.description = &long;
    let value = challenge.payment_required().unwrap();
    assert!(value.len() <= HEADER_BUDGET);
    assert!(from_base64(&value)["accepts"].as_array().unwrap().len() > 5);
    let url = format!("https://a.b/{long}");
    challenge.resource.url = &url;
    let value = challenge.payment_required().unwrap();
    assert!(value.len() <= HEADER_BUDGET && from_base64(&value).get("resource").is_none());
}

proptest! {
    #[test]
    fn no_header_breaks_a_line(reason in any::<String>(), detail in any::<String>(), url in any::<String>()) {
        let offers = all();
        let payables: Vec<_> = offers.iter().map(payable).collect();
        let mut challenge = challenge(Refusal::FacilitatorRefused, &payables);
        challenge.reason = Some(&reason);
        challenge.detail = Some(&detail);
        challenge.resource.url = &url;
        for (_, value) in challenge.answer().headers {
            prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        }
    }
}
