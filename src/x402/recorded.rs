//! Tests against recorded traffic of the official servers, clients and facilitators, and against mutations of it.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::facilitator::{Settle, Speaks, Verify, parse_settle, parse_verify, verify_or_settle_body};
use super::*;
use crate::evm::Address;
use crate::pricing::{Asset, Atomic, Eip712Domain, Offer, PayTo, Scheme, Transfer};

#[derive(Deserialize)]
struct Recorded {
    case: String,
    header: String,
    value: String,
    decoded: Value,
    receipt: Option<String>,
    verify: Option<Value>,
    verified: Option<String>,
    settle: Option<Value>,
    settled: Option<Value>,
}

#[derive(Deserialize)]
struct Challenged {
    case: String,
    status: u16,
    header: Option<Value>,
    body: Option<Value>,
}

fn payments() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../../tests/wire/payments.json")).unwrap()
}

fn challenges() -> Vec<Challenged> {
    serde_json::from_str(include_str!("../../tests/wire/challenges.json")).unwrap()
}

const SELLER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
const FACILITATOR: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const BOTH: Speaks = Speaks { v1: true, v2: true };

/// The offers of the servers that were recorded.
pub(super) fn offer(network: &str, scheme: Scheme, transfer: Transfer, amount: u128) -> Offer {
    let (address, name) = match network {
        "eip155:8453" => ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
        _ => ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    };
    Offer {
        scheme,
        asset: Asset {
            symbol: "USDC".into(),
            network: Network::parse(network).unwrap(),
            address: address.into(),
            evm_address: address.parse().ok(),
            decimals: 6,
            currency: "usd".into(),
            eip712: Some(Eip712Domain {
                name: name.into(),
                version: "2".into(),
            }),
        },
        transfer,
        pay_to: PayTo::Evm(SELLER.parse().unwrap()),
        max_timeout_seconds: 300,
        amount: Atomic(amount),
        domain_separator: [0; 32],
        facilitators: vec![0],
    }
}

fn spender() -> Address {
    FACILITATOR.parse().unwrap()
}

fn all() -> Vec<Offer> {
    vec![
        offer("eip155:84532", Scheme::Exact, Transfer::Eip3009, 1000),
        offer("eip155:84532", Scheme::Exact, Transfer::Permit2, 1000),
        offer("eip155:84532", Scheme::Upto, Transfer::Permit2, 100_000),
        offer("eip155:8453", Scheme::Exact, Transfer::Eip3009, 1000),
        offer("eip155:8453", Scheme::Upto, Transfer::Permit { spender: spender() }, 100_000),
    ]
}

fn payable(offer: &Offer) -> Payable<'_> {
    let facts = Facts {
        facilitator_address: Some(FACILITATOR),
        ..Facts::default()
    };
    Payable { offer, facts }
}

fn resource(url: &str) -> Resource<'_> {
    Resource {
        url,
        description: "Fake chat completion",
        mime_type: "application/json",
    }
}

fn challenge<'a>(refusal: Refusal, offers: &'a [Payable<'a>]) -> Challenge<'a> {
    Challenge {
        refusal,
        reason: None,
        detail: None,
        resource: resource("http://127.0.0.1:4121/exact"),
        offers,
        extensions: None,
        v1: true,
        plain_headers: true,
        style: BodyStyle::X402,
        hints: Hints::default(),
        retry_after: None,
    }
}

fn read(header: &str, value: &[u8]) -> Result<Option<Payment>, PaymentError> {
    decode([(header.as_bytes(), value)])
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

fn from_base64(text: &str) -> Value {
    json::parse(&dialect::base64(text).unwrap()).unwrap()
}

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
        find_offer(&payment, &offers).unwrap_or_else(|refusal| panic!("{}: {refusal:?}", recorded.case));
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
        let offer = offers[find_offer(&payment, &offers).unwrap()];
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
            assert_eq!(json::parse(&body).unwrap(), expected, "{}", recorded.case);
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
            let equal = |payable: &&Payable<'_>| matches(&wanted, payable).is_ok();
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
            .filter(|payable| matches(&whole["accepts"][0], payable).is_ok())
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
fn the_body_lists_only_what_v1_clients_read_with_base_first() {
    let mut offers = all();
    offers.push(offer("eip155:31337", Scheme::Exact, Transfer::Eip3009, 1000));
    let payables: Vec<_> = offers.iter().map(payable).collect();
    let answer = challenge(Refusal::PaymentRequired, &payables).answer();
    let body = json::parse(&answer.body).unwrap();
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
    let body = json::parse(&challenge(Refusal::PaymentRequired, &permit).answer().body).unwrap();
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
        browser: Hints::is_browser("text/html,*/*", "Mozilla/5.0"),
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
    let body = json::parse(&openai.answer().body).unwrap();
    assert_eq!(body["error"]["code"], "insufficient_credits");
    openai.hints.api_key = false;
    assert_eq!(json::parse(&openai.answer().body).unwrap()["x402Version"], 1);

    for (refusal, status) in [
        (Refusal::InvalidPayload, 400),
        (Refusal::PaymentInUse, 409),
        (Refusal::FacilitatorUnavailable, 503),
        (Refusal::OverLimit, 429),
    ] {
        let mut other = challenge(refusal, &payables);
        other.detail = Some("see https://rpc.example/key\r\nX: y");
        let answer = other.answer();
        assert_eq!(answer.status, status);
        assert_eq!(header(&answer, "payment-required"), None);
        assert_eq!(header(&answer, "retry-after").is_some(), matches!(status, 429 | 503));
        let body = json::parse(&answer.body).unwrap();
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

#[test]
fn a_v1_payment_is_converted_for_a_facilitator_of_v2() {
    let offers = all();
    let recorded = payments().into_iter().find(|recorded| recorded.case == "v1-fetch.chat").unwrap();
    let payment = read(&recorded.header, recorded.value.as_bytes()).unwrap().unwrap();
    let speaks = Speaks { v1: false, v2: true };
    let body = verify_or_settle_body(&payment, &payable(&offers[0]), &resource("http://x/"), Atomic(1000), speaks).unwrap();
    let body = json::parse(&body).unwrap();
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

fn plain<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let signature = "0x56fd30d395f77efad396a4813bbb280aa21007e31423c2000dc5a38c02255eab4fc5201198e21c2b00b5344d40a117a84f48337d9e587cc7c3a310a885d6b84f1b";
    let mut headers = vec![
        ("x-payment-signature", signature),
        ("x-payment-payer", "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc"),
        ("x-payment-nonce", "42"),
        ("x-payment-valid-before", "1795223591"),
    ];
    headers.extend(more);
    headers
}

fn read_all(headers: &[(&str, &str)]) -> Result<Option<Payment>, PaymentError> {
    decode(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

#[test]
fn plain_headers_become_a_v2_payment() {
    let offers = [offer("eip155:8453", Scheme::Exact, Transfer::Eip3009, 10_000)];
    let payables: Vec<_> = offers.iter().map(payable).collect();
    let terms = [
        ("x-payment-amount", "0.010"),
        ("x-payment-asset", "usdc"),
        ("x-payment-network", "base"),
    ];
    let payment = read_all(&plain(&terms)).unwrap().unwrap();
    assert_eq!(find_offer(&payment, &payables), Ok(0));
    let body = verify_or_settle_body(&payment, &payables[0], &resource("http://x/"), Atomic(10_000), BOTH).unwrap();
    let body = json::parse(&body).unwrap();
    let signed = &body["paymentPayload"]["payload"]["authorization"];
    assert_eq!(signed["nonce"], format!("0x{}2a", "0".repeat(62)));
    assert_eq!(
        (&signed["to"], &signed["value"], &signed["validAfter"]),
        (&json!(SELLER), &json!("10000"), &json!("0"))
    );
    // What was built is a payment that we would take ourselves.
    let again = base64_encode(&serde_json::to_vec(&body["paymentPayload"]).unwrap());
    let again = read("payment-signature", again.as_bytes()).unwrap().unwrap();
    assert_eq!(find_offer(&again, &payables), Ok(0));

    for (header, refusal) in [
        (("x-payment-amount", "0.02"), Refusal::ValueMismatch),
        (("x-payment-amount", "0.0100001"), Refusal::ValueMismatch),
        (("x-payment-asset", "DAI"), Refusal::InvalidAsset),
        (("x-payment-network", "polygon"), Refusal::InvalidNetwork),
    ] {
        let payment = read_all(&plain(&[header])).unwrap().unwrap();
        assert_eq!(find_offer(&payment, &payables), Err(refusal));
    }
    for missing in ["payer", "nonce", "valid-before"] {
        let headers: Vec<_> = plain(&[]).into_iter().filter(|(name, _)| !name.ends_with(missing)).collect();
        let error = read_all(&headers).unwrap_err();
        assert_eq!(error.refusal, Refusal::InvalidPayload);
        assert!(
            error.detail.to_lowercase().contains(missing) && error.detail.contains("such as"),
            "{error}"
        );
    }
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let recorded = payments().into_iter().find(|recorded| recorded.case == "ts-fetch.exact").unwrap();
    let (name, value) = (recorded.header.as_str(), recorded.value.as_str());
    let long = "A".repeat(MAX_PAYMENT_HEADER + 1);
    let edited = |change: fn(&mut Value)| {
        let mut json = payments()
            .into_iter()
            .find(|recorded| recorded.case == "ts-fetch.exact")
            .unwrap()
            .decoded;
        change(&mut json);
        base64_encode(&serde_json::to_vec(&json).unwrap())
    };
    let cases: Vec<(Vec<(&str, String)>, Refusal, &str)> = vec![
        (
            vec![(name, value.into()), (name, value.into())],
            Refusal::InvalidPayload,
            "more than once",
        ),
        (
            vec![(name, value.into()), ("x-payment", value.into())],
            Refusal::InvalidPayload,
            "more than one",
        ),
        (
            vec![(name, value.into()), ("x-payment-signature", "0x00".into())],
            Refusal::InvalidPayload,
            "more than one",
        ),
        (vec![(name, long)], Refusal::InvalidPayload, "16384"),
        (vec![(name, "\u{e9}".into())], Refusal::InvalidPayload, "ASCII"),
        (vec![(name, "{}".into())], Refusal::InvalidPayload, "base64"),
        (vec![("x-payment", value.into())], Refusal::InvalidPayload, "PAYMENT-SIGNATURE"),
        (
            vec![(name, edited(|json| json["x402Version"] = json!(3)))],
            Refusal::InvalidVersion,
            "x402Version",
        ),
        (
            vec![(name, edited(|json| json["x402Version"] = json!("2")))],
            Refusal::InvalidVersion,
            "x402Version",
        ),
        (
            vec![(name, edited(|json| json["payload"]["authorization"]["value"] = json!(1000)))],
            Refusal::InvalidPayload,
            "payload.authorization.value must be",
        ),
        (
            vec![(name, edited(|json| json["payload"]["authorization"]["Nonce"] = json!("0x")))],
            Refusal::InvalidPayload,
            "case",
        ),
        (
            vec![(name, edited(|json| json["accepted"]["network"] = json!("nowhere")))],
            Refusal::InvalidNetwork,
            "accepted.network",
        ),
        (
            vec![(name, edited(|json| json["payload"]["signature"] = json!("0x")))],
            Refusal::InvalidPayload,
            "signature",
        ),
    ];
    for (headers, refusal, says) in cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let error = read_all(&headers).unwrap_err();
        assert_eq!(error.refusal, refusal, "{error}");
        assert!(error.detail.contains(says), "{error}");
        assert!(error.detail.len() <= 200 && error.detail.is_ascii());
    }
    assert!(read_all(&[("payment-signature", " "), ("accept", "*/*")]).unwrap().is_none());
}

#[test]
fn what_was_accepted_must_be_the_offer() {
    let offers = all();
    let accepted = serde_json::to_value(payable(&offers[0]).v2()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut accepted = accepted.clone();
        change(&mut accepted);
        matches(&accepted, &payable(&offers[0]))
    };
    assert_eq!(with(&|a| a["payTo"] = json!(SELLER.to_lowercase())), Ok(()));
    assert_eq!(with(&|a| a["extra"]["more"] = json!(1)), Ok(()));
    assert_eq!(with(&|a| a["amount"] = json!("999")), Err(Refusal::NoMatchingRequirements));
    assert_eq!(
        with(&|a| a["extra"]["name"] = json!("USD Coin")),
        Err(Refusal::NoMatchingRequirements)
    );
    assert_eq!(with(&|a| a["more"] = json!(1)), Err(Refusal::NoMatchingRequirements));
    assert_eq!(with(&|a| a["scheme"] = json!("upto")), Err(Refusal::UnsupportedScheme));
    assert_eq!(with(&|a| a["network"] = json!("eip155:1")), Err(Refusal::InvalidNetwork));
    assert_eq!(with(&|a| a["asset"] = json!(SELLER)), Err(Refusal::InvalidAsset));
    let permit2 = |a: &mut Value| a["extra"]["assetTransferMethod"] = json!("permit2");
    assert_eq!(with(&permit2), Err(Refusal::TransferMethodNotOffered));
}

proptest! {
    #[test]
    fn no_bytes_panic(name in "payment-signature|x-payment|x-payment-(signature|payer|nonce|amount)", value in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&name, &value);
        let encoded = base64_encode(&value);
        let _ = read(&name, encoded.as_bytes());
    }

    #[test]
    fn no_mutated_payment_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let recorded = payments();
        let recorded = which.get(&recorded);
        let mut text = serde_json::to_vec(&recorded.decoded).unwrap();
        *at.get_mut(&mut text) = byte;
        let _ = read(&recorded.header, base64_encode(&text).as_bytes());
        let _ = read("x-payment", &text);
        text.truncate(cut.index(text.len()));
        if let Err(error) = read(&recorded.header, base64_encode(&text).as_bytes()) {
            prop_assert!(error.detail.len() <= 200);
        }
    }

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
