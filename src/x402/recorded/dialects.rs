//! Payments that fit and payments that do not, in all dialects.

use proptest::prelude::*;
use serde_json::json;

use super::super::facilitator::verify_or_settle_body;
use super::*;

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
    assert_eq!(first_fit(&payment, &payables), Ok(0));
    let body = verify_or_settle_body(&payment, &payables[0], &resource("http://x/"), Atomic(10_000), BOTH).unwrap();
    let body = serde_json::from_slice::<Value>(&body).unwrap();
    let signed = &body["paymentPayload"]["payload"]["authorization"];
    assert_eq!(signed["nonce"], format!("0x{}2a", "0".repeat(62)));
    assert_eq!(
        (&signed["to"], &signed["value"], &signed["validAfter"]),
        (&json!(SELLER), &json!("10000"), &json!("0"))
    );
    // What was built is a payment that we would take ourselves.
    let again = base64_encode(&serde_json::to_vec(&body["paymentPayload"]).unwrap());
    let again = read("payment-signature", again.as_bytes()).unwrap().unwrap();
    assert_eq!(first_fit(&again, &payables), Ok(0));

    for (header, refusal) in [
        (("x-payment-amount", "0.02"), Refusal::ValueMismatch),
        (("x-payment-amount", "0.0100001"), Refusal::ValueMismatch),
        (("x-payment-asset", "DAI"), Refusal::InvalidAsset),
        (("x-payment-network", "polygon"), Refusal::InvalidNetwork),
    ] {
        let payment = read_all(&plain(&[header])).unwrap().unwrap();
        assert_eq!(first_fit(&payment, &payables), Err(refusal));
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
    type Case<'a> = (Vec<(&'a str, String)>, Refusal, &'a str);
    let cases: Vec<Case<'_>> = vec![
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
        matches(&borrowed(&accepted), &payable(&offers[0]))
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
}
