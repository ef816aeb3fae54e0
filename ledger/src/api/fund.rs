//! `POST /v1/billing/x402/fund`: an intent to buy any amount within the bounds, and its payment.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use x402_envoy::x402::{Answer, Hints, Refusal, Resource, decode, resource_url};

use crate::payments::books::{Books, NewTopup, Source, State, Topup};
use crate::payments::challenge::{self, Asked};
use crate::payments::offers::{LEAST, dollars, micros};
use crate::payments::topup::{Intent, Outcome, Paying, TopupError, Topups, new_id, now_ms};

/// Where intents are paid.
pub const PATH: &str = "/v1/billing/x402/fund";
/// How long an intent may be paid, in milliseconds.
const LIFETIME_MS: i64 = 3_600_000;

/// What a tenant asks for.
#[derive(Clone, Debug)]
pub struct Funding<'a> {
    /// From the API key, never from the body.
    pub tenant: &'a str,
    /// Decimal dollars, such as `10.00`.
    pub amount: &'a str,
    /// The intent that is paid, where the client names it.
    pub intent: Option<&'a str>,
    /// The request's headers, names in lower case.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The request's scheme and authority, for resources where the configuration has no `public_url`.
    pub origin: (&'a str, &'a str),
}

/// Makes an intent and asks for its payment, or takes the payment that came along.
///
/// # Errors
///
/// [`TopupError`]: worth a 503, and the same request again.
pub async fn fund<B: Books>(topups: &Arc<Topups<B>>, funding: &Funding<'_>) -> Result<Answer, TopupError> {
    let offers = micros(funding.amount).and_then(|amount| topups.offers().of(amount));
    let priced = offers.as_deref().and_then(|offers| offers.first()).map(|priced| priced.amount);
    let (Some(offers), Some(amount)) = (offers, priced) else {
        let (least, most) = (dollars(LEAST), dollars(topups.offers().max_topup));
        let message = format!("amount has to be a decimal number of dollars from {least} to {most}, such as \"10.00\"");
        return Ok(error(400, "invalid_request_error", "invalid_amount", &message));
    };
    let (scheme, authority) = funding.origin;
    let url = resource_url(topups.offers().config.public_url.as_deref(), scheme, authority, PATH);
    let resource = Resource {
        url: &url,
        description: "Prepaid credits",
        mime_type: "application/json",
    };
    let named = match funding.intent {
        Some(id) => match topups.books().topup(id).await.map_err(|error| TopupError::Books(Box::new(error)))? {
            Some(topup) if topup.tenant == funding.tenant => Some(topup),
            _ => return Ok(error(404, "invalid_request_error", "no_such_intent", "no such payment intent")),
        },
        None => None,
    };
    match &named {
        Some(topup) if topup.amount != amount => {
            return Ok(error(
                400,
                "invalid_request_error",
                "invalid_amount",
                "the payment intent has another amount",
            ));
        }
        // A second payment would buy the same twice.
        Some(topup) if topup.state == State::Settled => return Ok(settled(topup, None)),
        _ => {}
    }
    let asks = |refusal, reason, detail| Asked {
        refusal,
        reason,
        detail,
        resource,
        offers: &offers,
        hints: Hints::default(),
    };
    let open = named
        .as_ref()
        .filter(|topup| topup.state == State::Created)
        .map(|topup| topup.id.as_str());
    match decode(funding.headers.iter().copied()) {
        Ok(None) => {
            let id = match open {
                Some(id) => id.to_owned(),
                None => create(topups, funding.tenant, amount, &url).await?,
            };
            Ok(challenged(topups, &asks(Refusal::PaymentRequired, None, None), Some(&id), amount))
        }
        Err(error) => Ok(challenged(topups, &asks(error.refusal, None, Some(&error.detail)), open, amount)),
        Ok(Some(payment)) => {
            let paying = Paying {
                tenant: funding.tenant,
                payment: &payment,
                offers: &offers,
                resource,
                intent: match &named {
                    None => Intent::Open,
                    Some(topup) if topup.state == State::Failed => Intent::New,
                    Some(topup) => Intent::Named(&topup.id),
                },
            };
            Ok(match topups.pay(&paying).await? {
                Outcome::Credited { topup, receipt } => settled(&topup, Some(receipt)),
                Outcome::Refused { refusal, reason, detail } => {
                    let detail = Some(&*detail).filter(|detail| !detail.is_empty());
                    challenged(topups, &asks(refusal, reason.as_deref(), detail), open, amount)
                }
                Outcome::InUse => challenged(topups, &asks(Refusal::PaymentInUse, None, None), open, amount),
                Outcome::Pending => challenged(topups, &asks(Refusal::SettlementPending, None, None), open, amount),
            })
        }
    }
}

async fn create<B: Books>(topups: &Arc<Topups<B>>, tenant: &str, amount: i64, resource: &str) -> Result<String, TopupError> {
    let now = now_ms();
    let topup = NewTopup {
        id: new_id()?,
        tenant: tenant.to_owned(),
        amount,
        source: Source::Fund,
        resource: resource.to_owned(),
        expires_at: now.saturating_add(LIFETIME_MS),
    };
    let created = topups.books().create_topup(&topup, now).await;
    created.map_err(|error| TopupError::Books(Box::new(error)))?;
    Ok(topup.id)
}

fn challenged<B: Books>(topups: &Arc<Topups<B>>, asked: &Asked<'_>, intent: Option<&str>, amount: i64) -> Answer {
    let mut answer = challenge::answer(asked, topups.offers().config.challenge, &topups.facilitators().table());
    let body = serde_json::from_slice::<Map<String, Value>>(&answer.body);
    if let (Some(id), Ok(mut body)) = (intent, body) {
        body.insert("payment_intent_id".to_owned(), json!(id));
        body.insert("amount".to_owned(), json!(dollars(amount)));
        answer.body = Value::Object(body).to_string().into_bytes();
        answer.headers.push(("x-payment-intent-id", id.to_owned()));
    }
    answer
}

/// The caller adds `balance`.
fn settled(topup: &Topup, receipt: Option<(&'static str, String)>) -> Answer {
    let body = json!({
        "payment_intent_id": topup.id, "status": "settled", "amount": dollars(topup.amount),
        "transaction": topup.transaction, "network": topup.network,
    });
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(receipt);
    Answer {
        status: 200,
        headers,
        body: body.to_string().into_bytes(),
    }
}

fn error(status: u16, kind: &str, code: &str, message: &str) -> Answer {
    Answer {
        status,
        headers: vec![("content-type", "application/json".to_owned())],
        body: json!({"error": {"message": message, "type": kind, "code": code}})
            .to_string()
            .into_bytes(),
    }
}
