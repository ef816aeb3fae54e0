//! `/internal/v1`: what the filter asks for each request with an API key. See docs/LEDGER.md.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x402_envoy::x402::{Answer, Hints, Refusal, Resource, decode};

use super::answer::{ErrorBody, Failure, json, read};
use super::router::App;
use crate::payments::challenge::{self, Asked};
use crate::payments::offers::{Priced, dollars};
use crate::payments::topup::{Intent, Outcome, Paying, now_ms};
use crate::store::{Captured, Limits, NewReservation, Reserved};

/// What is asked to be reserved.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ReserveBody {
    /// Chosen by the caller: 32 hexadecimal digits.
    #[schema(example = "9f0c4c1e0f5b4f7a8f0e6f3c2d1b0a99")]
    id: String,
    /// SHA-256 of the API key: 64 hexadecimal digits.
    key: String,
    /// The most that the request may cost, in micro-dollars.
    #[schema(example = "2500")]
    amount: String,
    /// The filter's name of the route.
    #[serde(default)]
    route: String,
    /// What a top-up is made for: the request's URL.
    resource: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    mime_type: String,
    /// Whether the client is a page of another origin.
    #[serde(default)]
    origin: bool,
    /// Whether it is a browser.
    #[serde(default)]
    browser: bool,
    /// `limits.account` of the filter's configuration.
    #[serde(default)]
    limits: Option<LimitsBody>,
    /// Names and values of the headers that pay.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// What is worth leasing besides: a part of the balance that requests with this key may spend without asking.
    #[serde(default)]
    lease: Option<WantedLease>,
}

/// A lease that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct WantedLease {
    /// 32 hexadecimal digits that nobody uses twice, and not the reservation's.
    id: String,
    /// In micro-dollars.
    amount: String,
}

/// What an account may in a window of time.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct LimitsBody {
    #[serde(default)]
    requests: Option<u32>,
    /// In milliseconds.
    window_ms: u32,
    /// In micro-dollars.
    #[serde(default)]
    spend: Option<String>,
}

/// What became of a reservation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Decision {
    /// The request may be served.
    Reserved {
        tenant: String,
        /// What is available now, in micro-dollars.
        balance: String,
        /// The header that tells the client of its top-up, and its value.
        receipt: Option<(String, String)>,
        /// What may be spent besides; captured like a reservation, by the sum.
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseBody>,
    },
    /// The client gets this answer.
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
}

/// A part of a balance that may be spent without asking.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LeaseBody {
    /// In micro-dollars.
    amount: String,
    /// For how long requests may begin that are paid from it, in milliseconds.
    ttl_ms: u64,
}

impl Decision {
    fn of(answer: Answer, receipt: Option<(&'static str, String)>) -> Self {
        let headers = answer.headers.into_iter().chain(receipt);
        Self::Answer {
            status: answer.status,
            headers: headers.map(|(name, value)| (name.to_owned(), value)).collect(),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        }
    }

    fn failure(failure: &Failure, headers: &[(&str, String)], receipt: Option<(&'static str, String)>) -> Self {
        let json = [("content-type", "application/json".to_owned())];
        let all = json.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self::Answer {
            status: failure.status.as_u16(),
            headers: all.chain(receipt.map(|(name, value)| (name.to_owned(), value))).collect(),
            body: failure.body(),
        }
    }
}

/// Holds a request's maximum, after crediting whatever payment came with it.
#[utoipa::path(post, path = "/internal/v1/reserve", tag = "data path", request_body = ReserveBody, security(("data_path" = [])), responses(
    (status = 200, body = Decision),
    (status = 400, body = ErrorBody, description = "the filter's mistake: nothing was reserved"),
    (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody, description = "the database did not answer"),
))]
pub(super) async fn reserve(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    let asked: ReserveBody = read(&body)?;
    let decision = decide(&app, &asked).await?;
    let outcome = match &decision {
        Decision::Reserved { .. } => "reserved",
        Decision::Answer { status: 401, .. } => "unknown_key",
        Decision::Answer { status: 402, .. } => "payment_required",
        Decision::Answer { status: 429, .. } => "limited",
        Decision::Answer { .. } => "refused",
    };
    app.metrics.reservation(outcome);
    tracing::debug!(id = asked.id, route = asked.route, outcome, "reserve");
    Ok(json(StatusCode::OK, decision))
}

async fn decide(app: &App, asked: &ReserveBody) -> Result<Decision, Failure> {
    let amount = micro_dollars("amount", &asked.amount)?;
    let limits = asked.limits.as_ref().map(limits).transpose()?;
    let leased = asked.lease.as_ref().map(|lease| &lease.id);
    let is_name = |id: &String| (16..=64).contains(&id.len()) && is_hex(id);
    if !is_name(&asked.id) || !leased.is_none_or(is_name) || leased == Some(&asked.id) || asked.key.len() != 64 || !is_hex(&asked.key) {
        return Err(Failure::invalid(
            "invalid_request",
            "id has to be 32 hexadecimal digits, lease.id others, and key the SHA-256 of the API key, 64",
        ));
    }
    let Some(tenant) = app.store.tenant_of(&asked.key).await? else {
        let unknown = Failure::unauthorized("Incorrect API key provided.");
        return Ok(Decision::failure(&unknown, &[("www-authenticate", "Bearer".to_owned())], None));
    };
    let receipt = match paid(app, asked, &tenant).await? {
        Ok(receipt) => receipt,
        Err(answer) => return Ok(Decision::of(answer, None)),
    };
    let now = now_ms();
    let new = NewReservation {
        id: &asked.id,
        tenant: &tenant,
        amount,
        route: &asked.route,
        limits,
        expires_at: now.saturating_add(app.reservation_ttl_ms),
    };
    Ok(match app.store.reserve(&new, now).await? {
        Reserved::Held { balance } => {
            let lease = lease(app, asked, &tenant, balance, now).await?;
            Decision::Reserved {
                tenant,
                balance: balance.to_string(),
                receipt: receipt.map(|(name, value)| (name.to_owned(), value)),
                lease,
            }
        }
        Reserved::Insufficient { balance } => Decision::of(ask(app, asked, amount, balance), receipt),
        Reserved::Limited { again_in_ms } => {
            let seconds = u64::try_from(again_in_ms).unwrap_or(0).div_ceil(1000).max(1);
            let message = format!("this account has reached its limit of requests or spending: try again in {seconds} s");
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "account_limit_exceeded", message);
            Decision::failure(&failure, &[("retry-after", seconds.to_string())], receipt)
        }
        Reserved::TooLate => {
            let failure = Failure::new(
                StatusCode::CONFLICT,
                "reservation_ended",
                "this reservation has ended, or its id was used before",
            );
            Decision::failure(&failure, &[], receipt)
        }
    })
}

/// Grants a lease where one is wanted and there is plenty: a quarter of what is left at most, so that others have theirs. None where each
/// request counts.
async fn lease(app: &App, asked: &ReserveBody, tenant: &str, balance: i64, now: i64) -> Result<Option<LeaseBody>, Failure> {
    let Some(wanted) = asked.lease.as_ref().filter(|_| asked.limits.is_none()) else {
        return Ok(None);
    };
    let amount = micro_dollars("lease.amount", &wanted.amount)?;
    if amount == 0 || balance.saturating_div(4) < amount {
        return Ok(None);
    }
    let new = NewReservation {
        id: &wanted.id,
        tenant,
        amount,
        route: "lease",
        limits: None,
        expires_at: now.saturating_add(app.lease_ttl_ms).saturating_add(app.reservation_ttl_ms),
    };
    let held = matches!(app.store.reserve(&new, now).await?, Reserved::Held { .. });
    Ok(held.then(|| LeaseBody {
        amount: amount.to_string(),
        ttl_ms: app.lease_ttl_ms.unsigned_abs(),
    }))
}

/// Credits the payment that came along, if one did; gives back its receipt, or the answer to one that is not good.
async fn paid(app: &App, asked: &ReserveBody, tenant: &str) -> Result<Result<Option<(&'static str, String)>, Answer>, Failure> {
    let headers = asked.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let payment = match decode(headers) {
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(payment)) => payment,
        Err(error) => return Ok(Err(refuse(app, asked, error.refusal, None, Some(&error.detail)))),
    };
    let offers = app.topups.offers().all();
    let paying = Paying {
        tenant,
        payment: &payment,
        offers: &offers,
        resource: resource(asked),
        intent: Intent::New,
    };
    Ok(match app.topups.pay(&paying).await? {
        Outcome::Credited { receipt, .. } => Ok(Some(receipt)),
        Outcome::Refused { refusal, reason, detail } => {
            let detail = Some(&*detail).filter(|detail| !detail.is_empty());
            Err(refuse(app, asked, refusal, reason.as_deref(), detail))
        }
        Outcome::InUse => Err(refuse(app, asked, Refusal::PaymentInUse, None, None)),
        Outcome::Pending => Err(refuse(app, asked, Refusal::SettlementPending, None, None)),
    })
}

fn resource(asked: &ReserveBody) -> Resource<'_> {
    Resource {
        url: &asked.resource,
        description: &asked.description,
        mime_type: &asked.mime_type,
    }
}

fn refuse(app: &App, asked: &ReserveBody, refusal: Refusal, reason: Option<&str>, detail: Option<&str>) -> Answer {
    challenged(app, asked, refusal, reason, detail, &app.topups.offers().all())
}

/// Asks for a top-up. Tiers that would not be enough for this request are left out, unless none is.
fn ask(app: &App, asked: &ReserveBody, amount: i64, balance: i64) -> Answer {
    let all = app.topups.offers().all();
    let enough: Vec<Priced> = all
        .iter()
        .filter(|priced| priced.amount.saturating_add(balance) >= amount)
        .cloned()
        .collect();
    let detail = format!(
        "this account has {} dollars left and the request may cost up to {}: send it again with a payment for one of the amounts offered",
        dollars(balance),
        dollars(amount)
    );
    let offers = if enough.is_empty() { &all } else { &enough };
    challenged(app, asked, Refusal::PaymentRequired, None, Some(&detail), offers)
}

fn challenged(app: &App, asked: &ReserveBody, refusal: Refusal, reason: Option<&str>, detail: Option<&str>, offers: &[Priced]) -> Answer {
    let asks = Asked {
        refusal,
        reason,
        detail,
        resource: resource(asked),
        offers,
        hints: Hints {
            origin: asked.origin,
            browser: asked.browser,
            api_key: true,
        },
    };
    challenge::answer(&asks, app.topups.offers().config.challenge, &app.topups.facilitators().table())
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn micro_dollars(name: &str, text: &str) -> Result<i64, Failure> {
    let amount = text
        .parse::<i64>()
        .ok()
        .filter(|amount| *amount >= 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
    amount.ok_or_else(|| Failure::invalid("invalid_amount", format!("{name} has to be micro-dollars in decimal digits")))
}

fn limits(body: &LimitsBody) -> Result<Limits, Failure> {
    Ok(Limits {
        requests: body.requests.map(i64::from),
        window_ms: i64::from(body.window_ms),
        spend: body
            .spend
            .as_deref()
            .map(|spend| micro_dollars("limits.spend", spend))
            .transpose()?,
    })
}

/// What a request cost.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CaptureBody {
    /// The reservation's.
    id: String,
    /// In micro-dollars; 0 gives everything back.
    #[schema(example = "1730")]
    amount: String,
    /// SHA-256 of the API key, where the request was served though the ledger could not be asked: it is charged though nothing is held.
    #[serde(default)]
    key: Option<String>,
}

/// What was charged.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CapturedBody {
    /// In micro-dollars, by this call or an earlier one.
    captured: String,
}

/// Charges what a request cost, and gives the rest back. It may be sent as often as one likes.
#[utoipa::path(post, path = "/internal/v1/capture", tag = "data path", request_body = CaptureBody, security(("data_path" = [])), responses(
    (status = 200, body = CapturedBody),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody, description = "there is no such reservation"),
    (status = 409, body = ErrorBody, description = "it ended otherwise"),
    (status = 503, body = ErrorBody, description = "the database did not answer: send it again"),
))]
pub(super) async fn capture(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    app.tokens.data_path(&headers)?;
    let asked: CaptureBody = read(&body)?;
    let amount = micro_dollars("amount", &asked.amount)?;
    let mut captured = app.store.capture(&asked.id, amount, now_ms()).await?;
    if let (Captured::Unknown, Some(key)) = (captured, &asked.key)
        && let Some(tenant) = app.store.tenant_once_of(key).await?
    {
        captured = app.store.charge(&asked.id, &tenant, amount, now_ms()).await?;
        if let Captured::Charged(charged) = captured
            && charged < amount
        {
            app.metrics.capture("short");
            tracing::warn!(
                id = asked.id,
                tenant,
                amount,
                charged,
                "a request was served that its tenant could not pay in full"
            );
        }
    }
    match captured {
        Captured::Charged(captured) => {
            app.metrics.capture(if amount == 0 { "released" } else { "captured" });
            let captured = captured.to_string();
            Ok(json(StatusCode::OK, CapturedBody { captured }))
        }
        Captured::Unknown => Err(Failure::new(
            StatusCode::NOT_FOUND,
            "no_such_reservation",
            "there is no such reservation",
        )),
        Captured::Otherwise => {
            tracing::warn!(id = asked.id, amount, "a capture of a reservation that ended otherwise");
            Err(Failure::new(
                StatusCode::CONFLICT,
                "reservation_ended",
                "this reservation ended otherwise",
            ))
        }
    }
}
