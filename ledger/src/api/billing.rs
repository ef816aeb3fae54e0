//! `/v1/billing`: what tenants ask for themselves, and the webhook. The tenant is the API key's, whatever a body says.

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{ErrorBody, Failure, json, read, respond};
use super::fund::{self, Funding};
use super::router::App;
use super::webhook::{self, Applied, Event};
use super::{auth, transactions};
use crate::payments::books::{Books as _, State as Is, Topup};
use crate::payments::offers::dollars;
use crate::payments::topup::now_ms;

/// What is to be bought.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct FundBody {
    /// Dollars, as a text or a number.
    #[schema(value_type = String, example = "10.00")]
    amount: serde_json::Value,
    /// The intent that is paid, as the answer to the first request named it; may be left out.
    #[serde(default)]
    payment_intent_id: Option<String>,
}

/// Asks for a payment of any amount within the bounds, and takes it: send the same request again, with the payment's header.
#[utoipa::path(post, path = "/v1/billing/x402/fund", tag = "billing", request_body = FundBody, security(("api_key" = [])), responses(
    (status = 200, body = Intent, description = "credited"),
    (status = 402, description = "PAYMENT-REQUIRED, and in the body x402Version, accepts, payment_intent_id and amount"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "no such intent of this tenant"),
    (status = 409, description = "another request is settling this payment, or has it"),
    (status = 503, body = ErrorBody, description = "the payment may have been settled: send the same one again"),
))]
pub(super) async fn fund(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    let tenant = auth::tenant(&app, &headers).await?;
    let asked: FundBody = read(&body)?;
    let amount = match &asked.amount {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let pairs: Vec<(&[u8], &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    let funding = Funding {
        tenant: &tenant,
        amount: &amount,
        intent: asked.payment_intent_id.as_deref(),
        headers: &pairs,
        origin: (text("x-forwarded-proto").unwrap_or("http"), text("host").unwrap_or("localhost")),
    };
    Ok(respond(fund::fund(&app.topups, &funding).await?))
}

/// An intent.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SettleBody {
    payment_intent_id: String,
}

/// Where an intent is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Intent {
    payment_intent_id: String,
    /// `requires_payment`, `processing`, `settled` or `failed`.
    status: &'static str,
    /// In dollars.
    amount: String,
    /// What is available, in dollars.
    balance: String,
    transaction: Option<String>,
    network: Option<String>,
    error: Option<String>,
}

/// Where an intent is; one whose outcome was not known is taken up at once. Ask as often as you like.
#[utoipa::path(post, path = "/v1/billing/x402/settle", tag = "billing", request_body = SettleBody, security(("api_key" = [])), responses(
    (status = 200, body = Intent),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "no such intent of this tenant"),
))]
pub(super) async fn settle(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    let tenant = auth::tenant(&app, &headers).await?;
    let asked: SettleBody = read(&body)?;
    let topup = mine(&app, &asked.payment_intent_id, &tenant).await?;
    let topup = if topup.state == Is::Unknown {
        // The client that waits for it is as good as the sweeper.
        app.topups.resume(topup).await?;
        mine(&app, &asked.payment_intent_id, &tenant).await?
    } else {
        topup
    };
    let status = match topup.state {
        Is::Created => "requires_payment",
        Is::Processing | Is::Unknown => "processing",
        Is::Settled => "settled",
        Is::Failed => "failed",
    };
    let intent = Intent {
        payment_intent_id: topup.id,
        status,
        amount: dollars(topup.amount),
        balance: balance_of(&app, &tenant).await?.available,
        transaction: topup.transaction,
        network: topup.network,
        error: topup.error,
    };
    Ok(json(StatusCode::OK, intent))
}

async fn mine(app: &App, id: &str, tenant: &str) -> Result<Topup, Failure> {
    let topup = app.store.topup(id).await?.filter(|topup| topup.tenant == tenant);
    topup.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "no_such_intent", "no such payment intent"))
}

/// What a tenant has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Balance {
    tenant: String,
    /// What can be spent, in dollars.
    #[schema(example = "9.998270")]
    available: String,
    /// What is held for requests under way, in dollars.
    reserved: String,
    currency: &'static str,
}

async fn balance_of(app: &App, tenant: &str) -> Result<Balance, Failure> {
    let found = app.store.tenant(tenant).await?;
    let found = found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "no_such_tenant", "no such tenant"))?;
    Ok(Balance {
        tenant: found.id,
        available: dollars(found.available),
        reserved: dollars(found.reserved),
        currency: "usd",
    })
}

/// What is left.
#[utoipa::path(get, path = "/v1/billing/balance", tag = "billing", security(("api_key" = [])), responses(
    (status = 200, body = Balance),
    (status = 401, body = ErrorBody),
))]
pub(super) async fn balance(State(app): State<App>, headers: HeaderMap) -> Result<Response<Body>, Failure> {
    let tenant = auth::tenant(&app, &headers).await?;
    Ok(json(StatusCode::OK, balance_of(&app, &tenant).await?))
}

/// What has come in and gone out, the latest first.
#[utoipa::path(get, path = "/v1/billing/transactions", tag = "billing", params(transactions::Query), security(("api_key" = [])), responses(
    (status = 200, body = transactions::Page, description = "JSON; with format=csv, CSV, and the next page's before in X-Next"),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<transactions::Query>, QueryRejection>,
) -> Result<Response<Body>, Failure> {
    let tenant = auth::tenant(&app, &headers).await?;
    let Query(query) = query?;
    transactions::page(&app.store, Some(tenant), query).await
}

/// What became of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Received {
    received: bool,
}

/// Takes an event of an intent over, signed in `X402-Signature: t=<unix seconds>,v1=<HMAC-SHA-256 of "t.body" in hexadecimal>`.
#[utoipa::path(post, path = "/v1/billing/x402/webhook", tag = "billing", request_body = Event, responses(
    (status = 200, body = Received, description = "it is so now, whoever said so first"),
    (status = 400, body = ErrorBody, description = "not signed, signed too long ago, or not to be read"),
    (status = 404, body = ErrorBody, description = "no such intent, or no secret is configured"),
    (status = 409, body = ErrorBody, description = "the intent has another amount"),
    (status = 503, body = ErrorBody, description = "the database did not answer: send it again"),
))]
pub(super) async fn receive(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    let off = || {
        Failure::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "webhooks are off: there is no secret (X402_LEDGER_WEBHOOK_SECRET)",
        )
    };
    let secret = app.tokens.webhook.as_deref().ok_or_else(off)?;
    let mut signatures = headers.get_all("x402-signature").iter();
    let (header, second) = (signatures.next().and_then(|value| value.to_str().ok()), signatures.next());
    let now = now_ms();
    let seconds = u64::try_from(now).unwrap_or(0).div_euclid(1000);
    webhook::check(secret, header.filter(|_| second.is_none()).unwrap_or_default(), &body, seconds)
        .map_err(|error| Failure::invalid("invalid_signature", error.to_string()))?;
    let event: Event = read(&body)?;
    match webhook::apply(&app.store, &event, now).await? {
        Applied::Done => {
            tracing::info!(event = event.id, intent = event.data.payment_intent_id, kind = ?event.kind, "webhook");
            Ok(json(StatusCode::OK, Received { received: true }))
        }
        Applied::NoIntent => Err(Failure::new(StatusCode::NOT_FOUND, "no_such_intent", "no such payment intent")),
        Applied::OtherAmount => Err(Failure::new(
            StatusCode::CONFLICT,
            "other_amount",
            "the payment intent has another amount",
        )),
    }
}
