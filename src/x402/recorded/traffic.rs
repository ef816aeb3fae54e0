//! What was recorded: every payment, challenge, call to a facilitator and receipt.

use serde_json::json;

use super::super::facilitator::{Settle, Speaks, Verify, parse_settle, parse_verify, verify_or_settle_body};
use super::*;

#[test]
fn every_recorded_payment_is_read_and_finds_its_offer() {
    let offers = all();
    let offers: Vec<_> = offers.iter().map(payable).collect();
    for recorded in payments() {
        let payment = read(&recorded.header, recorded.value.as_bytes()).unwrap().unwrap();
        let dialect = match (recorded.header.as_str(), recorded.value.starts_with('{')) {
            ("payment-signature", _) => Dialect::V2,
            (_, true) => Dialect::LibertAi,
            (_, false) => Dialect::V1,
        };
        assert_eq!(payment.dialect, dialect, "{}", recorded.case);
        first_fit(&payment, &offers).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", recorded.case));
        // Read again without padding and in the URL alphabet.
        let url = recorded.value.trim_end_matches('=').replace('+', "-").replace('/', "_");
        if dialect != Dialect::LibertAi {
            assert!(
                read(&recorded.header, url.as_bytes()).unwrap().unwrap() == payment,
                "{}",
                recorded.case
            );
        }
    }
}

#[test]
fn facilitators_are_sent_what_official_servers_send() {
    let offers = all();
    let offers: Vec<_> = offers.iter().map(payable).collect();
    let mut seen = 0;
    for recorded in payments() {
        let payment = read(&recorded.header, recorded.value.as_bytes()).unwrap().unwrap();
        let offer = offers[first_fit(&payment, &offers).unwrap()];
        for sent in [&recorded.verify, &recorded.settle].into_iter().flatten() {
            let requirements = &sent["paymentRequirements"];
            let url = requirements["resource"].as_str().unwrap_or_default();
            let text = |key: &str| requirements[key].as_str().unwrap_or_default();
            let resource = Resource {
                url,
                description: text("description"),
                mime_type: text("mimeType"),
            };
            let amount = requirements
                .get("amount")
                .or_else(|| requirements.get("maxAmountRequired"))
                .unwrap();
            let amount = Atomic(amount.as_str().unwrap().parse().unwrap());
            let body = verify_or_settle_body(&payment, &offer, &resource, amount, BOTH).unwrap();
            let mut expected = sent.clone();
            // Left out here: v1 clients refuse it as null, and nobody reads it.
            expected["paymentRequirements"].as_object_mut().unwrap().remove("outputSchema");
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected, "{}", recorded.case);
            seen += 1;
        }
        if let Some(verified) = &recorded.verified {
            let expected_valid = verified.contains("\"isValid\":true");
            match parse_verify(200, verified.as_bytes()) {
                Verify::Valid { payer } => assert!(expected_valid && payer.is_some()),
                Verify::Refused { refusal, .. } => assert!(!expected_valid && refusal != Refusal::FacilitatorRefused),
                Verify::Unusable { why } => panic!("{why}"),
            }
        }
        if let (Some(answer), Some(receipt)) = (&recorded.settled, &recorded.receipt) {
            let network = &offer.offer.asset.network;
            let Settle::Settled(settled) = parse_settle(200, &serde_json::to_vec(answer).unwrap(), network, false) else {
                panic!("{}", recorded.case);
            };
            let (_, value) = Receipt {
                network,
                payer: settled.payer.as_deref(),
                transaction: &settled.transaction,
                amount: settled.amount.as_deref(),
                error: None,
            }
            .header(payment.dialect);
            assert_eq!(from_base64(&value), from_base64(receipt), "{}", recorded.case);
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn challenges_equal_the_recorded_ones() {
    let offers = all();
    let offers: Vec<_> = offers.iter().map(payable).collect();
    let mut seen = 0;
    for recorded in challenges() {
        let v2 = recorded
            .header
            .iter()
            .flat_map(|header| header["accepts"].as_array().cloned().unwrap_or_default());
        for wanted in v2.filter(|requirement| requirement.get("amount").is_some()) {
            let equal = |payable: &&Payable<'_>| matches(&borrowed(&wanted), payable).is_ok();
            let ours = offers.iter().find(equal).unwrap_or_else(|| panic!("{}", recorded.case));
            assert_eq!(serde_json::to_value(ours.v2()).unwrap(), wanted, "{}", recorded.case);
            seen += 1;
        }
        let v1 = recorded
            .body
            .iter()
            .flat_map(|body| body["accepts"].as_array().cloned().unwrap_or_default());
        for mut wanted in v1 {
            wanted.as_object_mut().unwrap().remove("outputSchema");
            let network = Network::parse_v1(wanted["network"].as_str().unwrap()).unwrap();
            wanted["network"] = json!(network.v1_name());
            let url = wanted["resource"].as_str().unwrap().to_owned();
            let description = wanted["description"].as_str().unwrap().to_owned();
            let resource = Resource {
                description: &description,
                ..resource(&url)
            };
            let equal = |payable: &&Payable<'_>| serde_json::to_value(payable.v1(&resource)).unwrap() == wanted;
            assert!(offers.iter().any(|payable| equal(&payable)), "{} {wanted}", recorded.case);
            seen += 1;
        }
        let whole = recorded.header.filter(|header| header.get("resource").is_some());
        let Some(whole) = whole.filter(|header| header["accepts"].as_array().unwrap().len() == 1) else {
            continue;
        };
        let refusal = if recorded.status == 412 {
            Refusal::Permit2AllowanceRequired
        } else {
            Refusal::PaymentRequired
        };
        let ours: Vec<_> = offers
            .iter()
            .filter(|payable| matches(&borrowed(&whole["accepts"][0]), payable).is_ok())
            .copied()
            .collect();
        let mut challenge = challenge(refusal, &ours);
        let (url, description, mime_type) = (
            &whole["resource"]["url"],
            &whole["resource"]["description"],
            &whole["resource"]["mimeType"],
        );
        challenge.resource = Resource {
            url: url.as_str().unwrap(),
            description: description.as_str().unwrap(),
            mime_type: mime_type.as_str().unwrap(),
        };
        challenge.reason = whole["error"].as_str();
        let answer = challenge.answer();
        assert_eq!(answer.status, recorded.status);
        assert_eq!(
            from_base64(header(&answer, "payment-required").unwrap()),
            whole,
            "{}",
            recorded.case
        );
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn a_v1_payment_is_converted_for_a_facilitator_of_v2() {
    let offers = all();
    let recorded = payments().into_iter().find(|recorded| recorded.case == "v1-fetch.chat").unwrap();
    let payment = read(&recorded.header, recorded.value.as_bytes()).unwrap().unwrap();
    let speaks = Speaks { v1: false, v2: true };
    let body = verify_or_settle_body(&payment, &payable(&offers[0]), &resource("http://x/"), Atomic(1000), speaks).unwrap();
    let body = serde_json::from_slice::<Value>(&body).unwrap();
    assert_eq!(body["x402Version"], 2);
    assert_eq!(body["paymentPayload"]["accepted"], body["paymentRequirements"]);
    assert_eq!(body["paymentPayload"]["payload"], recorded.decoded["payload"]);
    assert!(body["paymentPayload"].get("scheme").is_none());
}

#[test]
fn unknown_fields_reach_the_facilitator_as_they_came() {
    let offers = all();
    let recorded = payments().into_iter().find(|recorded| recorded.case == "ts-fetch.exact").unwrap();
    let text = String::from_utf8(dialect::base64(&recorded.value).unwrap()).unwrap();
    let text = text.replacen('{', "{\"zeta\": [1.50, {\"b\":1,\"a\":2}],", 1);
    let payment = read("payment-signature", base64_encode(text.as_bytes()).as_bytes())
        .unwrap()
        .unwrap();
    let body = verify_or_settle_body(&payment, &payable(&offers[0]), &resource("http://x/"), Atomic(1000), BOTH).unwrap();
    assert!(String::from_utf8(body).unwrap().contains(&text));
}
