//! `POST /v1/billing/x402/webhook`: what may be said of an intent from outside, and by whom.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::Sha256;

use crate::payments::books::{Books, TopupReceipt};
use crate::payments::offers::micros;

/// How far a signature's time may be from now, both ways, in seconds.
pub const WINDOW: u64 = 300;
/// How many signatures of a header are looked at.
const MOST: usize = 8;

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not `t=<unix seconds>,v1=<hex>[,v1=<hex>]`.
    #[error("X402-Signature has to be t=<unix seconds>,v1=<hex>")]
    Malformed,
    /// Signed too long ago, or in the future.
    #[error("the signature's time is more than 300 s from now")]
    Time,
    /// Another secret, or another body.
    #[error("no signature of this body")]
    Mismatch,
}

/// What is said of an intent.
///
/// ```json
/// {"id": "evt_…", "type": "payment_intent.succeeded",
///  "data": {"payment_intent_id": "pi_…", "amount": "10.00", "transaction": "0x…", "network": "eip155:8453", "payer": "0x…"}}
/// ```
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// The event's own; a repeated one changes nothing, for crediting happens once per intent.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// To which intent.
    pub data: Data,
}

/// What happened to an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub enum Kind {
    /// It was paid.
    #[serde(rename = "payment_intent.succeeded")]
    Succeeded,
    /// It certainly was not, and will not be.
    #[serde(rename = "payment_intent.failed")]
    Failed,
}

/// An intent and its payment.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub struct Data {
    /// `pi_…`
    pub payment_intent_id: String,
    /// Decimal dollars; has to be the intent's.
    pub amount: String,
    /// Transaction hash or signature.
    #[serde(default)]
    pub transaction: String,
    /// CAIP-2.
    #[serde(default)]
    pub network: String,
    /// The account that paid.
    #[serde(default)]
    pub payer: String,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is so now, whoever said so first.
    Done,
    /// There is no such intent.
    NoIntent,
    /// The intent has another amount.
    OtherAmount,
}

/// Takes an event over whose signature was checked.
///
/// # Errors
///
/// The books': worth a 503, and the same event again.
pub async fn apply<B: Books>(books: &B, event: &Event, now_ms: i64) -> Result<Applied, B::Error> {
    let data = &event.data;
    let Some(topup) = books.topup(&data.payment_intent_id).await? else {
        return Ok(Applied::NoIntent);
    };
    if micros(&data.amount) != Some(topup.amount) {
        return Ok(Applied::OtherAmount);
    }
    match event.kind {
        Kind::Succeeded => {
            let receipt = TopupReceipt {
                transaction: data.transaction.clone(),
                network: data.network.clone(),
                payer: data.payer.clone(),
            };
            books.settle_topup(&topup.id, &receipt, now_ms).await?;
        }
        Kind::Failed => {
            // Its claim is kept: this ledger may be settling it, and the same payment must not be begun again beside that.
            books.fail_topup(&topup.id, "payment_intent.failed", true, now_ms).await?;
        }
    }
    Ok(Applied::Done)
}

/// Checks `X402-Signature`, an HMAC-SHA-256 of `t.body` over the body as it came; several `v1` are for changes of the secret.
///
/// # Errors
///
/// [`SignatureError`]; an empty secret signs nothing.
pub fn check(secret: &[u8], header: &str, body: &[u8], now_seconds: u64) -> Result<(), SignatureError> {
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            // A second time could be the one that is checked, and the first the one that is signed.
            Some(("t", text)) if time.is_none() && text.bytes().all(|byte| byte.is_ascii_digit()) => time = Some(text),
            Some(("t", _)) => return Err(SignatureError::Malformed),
            Some(("v1", text)) => signatures.push(text),
            // Other schemes, of later versions.
            Some(_) => {}
            None => return Err(SignatureError::Malformed),
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let seconds: u64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    if signatures.is_empty() || signatures.len() > MOST {
        return Err(SignatureError::Malformed);
    }
    if seconds.abs_diff(now_seconds) > WINDOW {
        return Err(SignatureError::Time);
    }
    let mac = Hmac::<Sha256>::new_from_slice(secret).ok().filter(|_| !secret.is_empty());
    let mac = mac
        .ok_or(SignatureError::Mismatch)?
        .chain_update(time)
        .chain_update(b".")
        .chain_update(body);
    // In constant time for each.
    let fits = |text: &&str| hex::decode(text).is_ok_and(|signature| mac.clone().verify_slice(&signature).is_ok());
    if signatures.iter().any(fits) {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    /// `printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec`
    const SIGNED: &str = "e7e846cdb96220c3674ade89e534304fc91f6f15064facee1e7a7096f5f57f62";
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn header(signature: &str) -> String {
        format!("t={NOW},v1={signature}")
    }

    #[test]
    fn a_signature_of_another_implementation_is_believed() {
        assert_eq!(check(b"whsec", &header(SIGNED), BODY, NOW), Ok(()));
        let rotated = format!("t={NOW}, v1={}, v1={SIGNED}, v0=x", "00".repeat(32));
        assert_eq!(check(b"whsec", &rotated, BODY, NOW), Ok(()));
    }

    #[test]
    fn the_window_is_closed_both_ways() {
        for (now, expected) in [
            (NOW - 300, Ok(())),
            (NOW + 300, Ok(())),
            (NOW - 301, Err(SignatureError::Time)),
            (NOW + 301, Err(SignatureError::Time)),
        ] {
            assert_eq!(check(b"whsec", &header(SIGNED), BODY, now), expected, "{now}");
        }
    }

    #[test]
    fn anything_else_is_not_believed() {
        let cut = SIGNED.get(..62).unwrap();
        for (secret, header, body) in [
            (&b"other"[..], header(SIGNED), BODY),
            (b"", header(SIGNED), BODY),
            (b"whsec", header(SIGNED), b"{}"),
            (b"whsec", header(cut), BODY),
            (b"whsec", header(""), BODY),
            (b"whsec", format!("t={},v1={SIGNED}", NOW + 1), BODY),
        ] {
            assert_eq!(check(secret, &header, body, NOW), Err(SignatureError::Mismatch), "{header}");
        }
        for header in [
            String::new(),
            format!("v1={SIGNED}"),
            format!("t={NOW}"),
            format!("t=+{NOW},v1={SIGNED}"),
            format!("t={NOW},t={NOW},v1={SIGNED}"),
            format!("t={NOW},v1={SIGNED},x"),
            format!("t={NOW}{}", format!(",v1={SIGNED}").repeat(9)),
        ] {
            assert_eq!(check(b"whsec", &header, BODY, NOW), Err(SignatureError::Malformed), "{header}");
        }
    }
}
