//! `/internal/v1/facilitators/{facilitator}`: what the filter asks instead of the facilitator itself, where a fleet shares its claims.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::{ErrorBody, Failure, json, read};
use super::router::App;
use crate::payments::claims::{Answer, Holder};
use crate::payments::facilitator::Reply;
use crate::payments::topup::now_ms;

/// The header that names who holds the payment.
const HOLDER: &str = "x-x402-intent";

fn index(app: &App, name: &str) -> Result<usize, Failure> {
    let index = name
        .parse::<usize>()
        .ok()
        .filter(|index| app.topups.facilitators().name(*index).is_some());
    index.ok_or_else(|| {
        let message = "no such facilitator: the path has its index in facilitators of ledger.yaml, from 0";
        Failure::new(StatusCode::NOT_FOUND, "no_such_facilitator", message)
    })
}

fn holder(headers: &HeaderMap) -> Result<Holder, Failure> {
    let mut values = headers.get_all(HOLDER).iter();
    let holder = values.next().and_then(|value| Holder::parse(value.to_str().ok()?));
    holder.filter(|_| values.next().is_none()).ok_or_else(|| {
        let message = "X-X402-Intent has to name the request: the filter sends it with replay.claims: shared";
        Failure::invalid("no_holder", message)
    })
}

fn respond(answer: Answer) -> Response<Body> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
}

/// Takes the payment for one request of the fleet, and asks the facilitator about it.
#[utoipa::path(post, path = "/internal/v1/facilitators/{facilitator}/verify", tag = "shared claims", security(("data_path" = [])),
    params(("facilitator" = usize, Path), ("X-X402-Intent" = String, Header)), request_body = Object, responses(
    (status = 200, description = "as the facilitator's; invalidReason ledger_payment_in_use, ledger_payment_pending or nonce_already_used where it cannot be had"),
    (status = 400, body = ErrorBody, description = "no X-X402-Intent, or no payment in the body"),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "no such facilitator"),
    (status = 503, description = "no verdict"),
))]
pub(super) async fn verify(
    State(app): State<App>,
    headers: HeaderMap,
    Path(facilitator): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    let (facilitator, holder) = (index(&app, &facilitator)?, holder(&headers)?);
    Ok(respond(app.claims.verify(facilitator, &holder, body.to_vec()).await?))
}

/// Settles for the request that has the payment, once, however often it asks.
#[utoipa::path(post, path = "/internal/v1/facilitators/{facilitator}/settle", tag = "shared claims", security(("data_path" = [])),
    params(("facilitator" = usize, Path), ("X-X402-Intent" = String, Header)), request_body = Object, responses(
    (status = 200, description = "as the facilitator's"),
    (status = 400, body = ErrorBody, description = "no X-X402-Intent, or no payment in the body"),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "no such facilitator"),
    (status = 503, description = "no outcome: ask again"),
))]
pub(super) async fn settle(
    State(app): State<App>,
    headers: HeaderMap,
    Path(facilitator): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    let (facilitator, holder) = (index(&app, &facilitator)?, holder(&headers)?);
    Ok(respond(app.claims.settle(facilitator, &holder, body.to_vec()).await?))
}

/// What the facilitator supports.
#[utoipa::path(get, path = "/internal/v1/facilitators/{facilitator}/supported", tag = "shared claims", security(("data_path" = [])),
    params(("facilitator" = usize, Path)), responses(
    (status = 200, description = "as the facilitator's"),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "no such facilitator"),
    (status = 502, body = ErrorBody, description = "the facilitator did not answer"),
))]
pub(super) async fn supported(
    State(app): State<App>,
    headers: HeaderMap,
    Path(facilitator): Path<String>,
) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    let facilitator = index(&app, &facilitator)?;
    match app.topups.facilitators().supported(facilitator).await {
        Reply::Answered { status, body } => Ok(respond(Answer { status, body })),
        Reply::NotSent | Reply::Lost => Err(Failure::new(
            StatusCode::BAD_GATEWAY,
            "facilitator_unavailable",
            "the facilitator did not answer",
        )),
    }
}

/// What became of a request that has a payment.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ReportBody {
    /// The request's name.
    intent: String,
    outcome: ReportOutcome,
    /// In the token's smallest unit: what is due so far, where it is `used`.
    #[serde(default)]
    amount: String,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReportOutcome {
    /// Nothing is settled: the payment may be used again.
    Released,
    /// What it pays for has been had.
    Delivered,
    /// Its settlement's outcome is not known, and the request does not wait for it any more.
    Pending,
    /// A metered answer goes on.
    Used,
    /// It has ended, and the request could not settle it.
    Due,
}

/// What became of a request that has a payment. It may be sent as often as one likes.
#[utoipa::path(post, path = "/internal/v1/facilitators/{facilitator}/report", tag = "shared claims", security(("data_path" = [])),
    params(("facilitator" = usize, Path)), request_body = ReportBody, responses(
    (status = 200), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody, description = "the request has no payment, or not any more; or no such facilitator"),
))]
pub(super) async fn report(
    State(app): State<App>,
    headers: HeaderMap,
    Path(facilitator): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    index(&app, &facilitator)?;
    let asked: ReportBody = read(&body)?;
    let (store, now) = (&app.store, now_ms());
    let known = match asked.outcome {
        // A settlement that was given up may yet come: it would pay for nothing that anybody waits for.
        ReportOutcome::Released | ReportOutcome::Pending => store.end_request(&asked.intent, now).await?,
        ReportOutcome::Delivered => store.deliver_intent(&asked.intent).await?,
        ReportOutcome::Used | ReportOutcome::Due => {
            if asked.amount.is_empty() || asked.amount.len() > 78 || !asked.amount.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Failure::invalid("invalid_amount", "amount has to be decimal digits"));
            }
            // What has ended is the sweeper's at once: the payment may run out before a lease does.
            let ends = matches!(asked.outcome, ReportOutcome::Due);
            let lease = if ends { now } else { now.saturating_add(app.lease_ms) };
            store.report_intent(&asked.intent, &asked.amount, lease).await?
        }
    };
    if known {
        return Ok(json(StatusCode::OK, serde_json::json!({})));
    }
    Err(Failure::new(
        StatusCode::NOT_FOUND,
        "no_such_intent",
        "the request has no payment, or not any more",
    ))
}
