//! What `/verify` answered.

use super::answers::{identifier, object, text};
use super::reasons::{Meaning, classify, is_failure_of_facilitator, told};
use crate::json::Json;
use crate::x402::{Refusal, clean};

/// What `/verify` said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verify {
    /// The payment can be settled.
    Valid {
        /// The account that pays, if the facilitator named it.
        payer: Option<String>,
    },
    /// The payment is at fault.
    Refused {
        /// The facilitator's `invalidReason`, cleaned: `error` in the answer to the client.
        reason: String,
        /// Status, code and metric for it.
        refusal: Refusal,
    },
    /// No verdict: the facilitator is at fault, and the payment is not.
    Unusable {
        /// For the log, cleaned.
        why: String,
    },
}

/// Reads the answer to `/verify`: the body first, whatever the status, for some facilitators refuse with 4xx or 500 and the same JSON.
///
/// ```json
/// {"isValid": false, "invalidReason": "invalid_exact_evm_insufficient_balance", "invalidMessage": "…", "payer": "0x9965…"}
/// ```
pub fn parse_verify(status: u16, body: &[u8]) -> Verify {
    let Some(fields) = object(body) else {
        return Verify::Unusable {
            why: format!("status {status} without a verdict"),
        };
    };
    let reason = text(&fields, "invalidReason");
    // `invalidReasonDetails` is x402-rs's name for it.
    let message = [text(&fields, "invalidMessage"), text(&fields, "invalidReasonDetails")].join(" ");
    match fields.get("isValid").and_then(Json::truth) {
        Some(true) if (200..300).contains(&status) => Verify::Valid {
            payer: identifier(&fields, "payer"),
        },
        Some(false) if !reason.is_empty() && !is_failure_of_facilitator(reason, &message) => {
            let refusal = match classify(reason, &message) {
                Some(Meaning::Fault(refusal)) => refusal,
                Some(Meaning::NonceUsed) => Refusal::NonceAlreadyUsed,
                Some(Meaning::Transaction | Meaning::NoVerdict) | None => Refusal::FacilitatorRefused,
            };
            Verify::Refused {
                reason: told(reason, refusal),
                refusal,
            }
        }
        _ => Verify::Unusable {
            why: clean(&format!("status {status} {reason} {message}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_ANSWER;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_refusal_is_read_whatever_the_status() {
        let body = br#"{"isValid":false,"invalidReason":"insufficient_funds","payer":"0x1"}"#;
        for status in [200, 400, 412, 500] {
            let expected = Verify::Refused {
                reason: "insufficient_funds".to_owned(),
                refusal: Refusal::InsufficientFunds,
            };
            assert_eq!(parse_verify(status, body), expected);
        }
        assert_eq!(
            parse_verify(200, br#"{"isValid":true,"payer":"0x1"}"#),
            Verify::Valid {
                payer: Some("0x1".to_owned())
            }
        );
    }

    #[test]
    fn what_is_no_verdict_is_not_the_payments_fault() {
        for (status, body) in [
            (500, r#"{"error":"x"}"#),
            (502, "<html>"),
            (200, ""),
            (200, "{}"),
            (200, r#"{"isValid":"false"}"#),
            (500, r#"{"isValid":true}"#),
            (200, r#"{"isValid":false}"#),
            (200, r#"{"isValid":false,"invalidReason":"unexpected_verify_error"}"#),
            (200, r#"{"isValid":false,"invalidReason":"unexpected_error"}"#),
            (
                200,
                r#"{"isValid":false,"invalidReason":"transaction_simulation_failed","invalidMessage":"HTTP request failed. URL: http://1.2.3.4"}"#,
            ),
            (429, r#"{"message":"too many requests"}"#),
        ] {
            assert!(matches!(parse_verify(status, body.as_bytes()), Verify::Unusable { .. }), "{body}");
        }
        let simulated = br#"{"isValid":false,"invalidReason":"transaction_simulation_failed","invalidMessage":"reverted"}"#;
        assert!(matches!(parse_verify(200, simulated), Verify::Refused { .. }));
        let long = format!(r#"{{"isValid":true,"x":"{}"}}"#, "x".repeat(MAX_ANSWER));
        assert!(matches!(parse_verify(200, long.as_bytes()), Verify::Unusable { .. }));
    }

    #[test]
    fn what_the_chain_refuses_is_the_payments_fault() {
        let said = |details: &str| {
            let body = format!(
                r#"{{"isValid":false,"invalidReason":"unexpected_error","invalidReasonDetails":"Onchain error: {details}","payer":""}}"#
            );
            parse_verify(500, body.as_bytes())
        };
        for (details, expected) in [
            (
                "execution reverted: FiatTokenV2: authorization is used or canceled",
                Refusal::NonceAlreadyUsed,
            ),
            ("execution reverted: custom error 0x756688fe", Refusal::NonceAlreadyUsed),
            (
                "execution reverted: Blacklistable: account is blacklisted",
                Refusal::FacilitatorRefused,
            ),
        ] {
            let Verify::Refused { refusal, .. } = said(details) else {
                panic!("{details}")
            };
            assert_eq!(refusal, expected, "{details}");
        }
        assert!(matches!(
            said("error sending request for url (http://1.2.3.4/)"),
            Verify::Unusable { .. }
        ));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 0_u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_verify(status, &body);
        }
    }
}
