//! `/admin/v1`: tenants, keys and adjustments, with a token of its own.

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{ErrorBody, Failure, json, read};
use super::router::App;
use super::transactions;
use crate::payments::offers::{dollars, micros};
use crate::payments::topup::now_ms;
use crate::store::{Adjusted, Key, Tenant};

fn no_tenant() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "no_such_tenant", "no such tenant")
}

/// A tenant to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewTenant {
    /// For people.
    name: String,
}

/// A tenant and what it has.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantBody {
    #[schema(example = "ten_0123456789abcdef")]
    id: String,
    name: String,
    /// In dollars.
    available: String,
    /// In dollars.
    reserved: String,
    /// In Unix milliseconds.
    created_at: i64,
}

impl From<Tenant> for TenantBody {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            available: dollars(tenant.available),
            reserved: dollars(tenant.reserved),
            created_at: tenant.created_at,
        }
    }
}

/// Makes a tenant, who has nothing yet.
#[utoipa::path(post, path = "/admin/v1/tenants", tag = "admin", request_body = NewTenant, security(("admin" = [])), responses(
    (status = 201, body = TenantBody),
    (status = 401, body = ErrorBody),
))]
pub(super) async fn create_tenant(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let asked: NewTenant = read(&body)?;
    let id = app.store.create_tenant(&asked.name, now_ms()).await?;
    let tenant = app.store.tenant(&id).await?.ok_or_else(no_tenant)?;
    Ok(json(StatusCode::CREATED, TenantBody::from(tenant)))
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// The last id of the page before.
    #[serde(default)]
    after: String,
}

/// Up to 100 tenants, by id.
#[utoipa::path(get, path = "/admin/v1/tenants", tag = "admin", params(After), security(("admin" = [])), responses(
    (status = 200, body = Vec<TenantBody>),
    (status = 401, body = ErrorBody),
))]
pub(super) async fn tenants(State(app): State<App>, headers: HeaderMap, Query(query): Query<After>) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let tenants = app.store.tenants(&query.after, 100).await?;
    Ok(json(StatusCode::OK, tenants.into_iter().map(TenantBody::from).collect::<Vec<_>>()))
}

/// A tenant.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}", tag = "admin", params(("tenant" = String, Path)), security(("admin" = [])), responses(
    (status = 200, body = TenantBody),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn tenant(State(app): State<App>, headers: HeaderMap, Path(id): Path<String>) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let tenant = app.store.tenant(&id).await?.ok_or_else(no_tenant)?;
    Ok(json(StatusCode::OK, TenantBody::from(tenant)))
}

/// A key to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewKeyBody {
    /// For people.
    #[serde(default)]
    label: String,
}

/// A key, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeKey {
    #[schema(example = "key_0123456789abcdef")]
    id: String,
    key: String,
}

/// Makes an API key. It is stored as its SHA-256, and never shown again.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/keys", tag = "admin", params(("tenant" = String, Path)), request_body = NewKeyBody,
    security(("admin" = [])), responses((status = 201, body = MadeKey), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn create_key(
    State(app): State<App>,
    headers: HeaderMap,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let asked: NewKeyBody = if body.is_empty() {
        NewKeyBody { label: String::new() }
    } else {
        read(&body)?
    };
    let made = app.store.create_key(&tenant, &asked.label, now_ms()).await?.ok_or_else(no_tenant)?;
    Ok(json(
        StatusCode::CREATED,
        MadeKey {
            id: made.id,
            key: made.key,
        },
    ))
}

/// A key, without itself.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyBody {
    id: String,
    label: String,
    /// In Unix milliseconds.
    created_at: i64,
    /// In Unix milliseconds.
    revoked_at: Option<i64>,
}

impl From<Key> for KeyBody {
    fn from(key: Key) -> Self {
        Self {
            id: key.id,
            label: key.label,
            created_at: key.created_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// A tenant's keys, the oldest first.
#[utoipa::path(get, path = "/admin/v1/tenants/{tenant}/keys", tag = "admin", params(("tenant" = String, Path)), security(("admin" = [])),
    responses((status = 200, body = Vec<KeyBody>), (status = 401, body = ErrorBody)))]
pub(super) async fn keys(State(app): State<App>, headers: HeaderMap, Path(tenant): Path<String>) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let keys = app.store.keys(&tenant).await?;
    Ok(json(StatusCode::OK, keys.into_iter().map(KeyBody::from).collect::<Vec<_>>()))
}

/// Ends a key's use at once.
#[utoipa::path(delete, path = "/admin/v1/keys/{key}", tag = "admin", params(("key" = String, Path, description = "its id")), security(("admin" = [])),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody, description = "no such key that can be used")))]
pub(super) async fn revoke_key(State(app): State<App>, headers: HeaderMap, Path(key): Path<String>) -> Result<StatusCode, Failure> {
    app.tokens.admin(&headers)?;
    if app.store.revoke_key(&key, now_ms()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Failure::new(StatusCode::NOT_FOUND, "no_such_key", "no such key that can be used"))
    }
}

/// An adjustment by hand.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct AdjustBody {
    /// Dollars: given, or taken where it begins with `-`.
    #[schema(example = "-2.50")]
    amount: String,
    /// Yours, unique: the same adjustment said again is done once.
    reference: String,
    /// Why; it is kept in the journal and shown to the tenant.
    reason: String,
}

/// What is available then.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AdjustedBody {
    /// In dollars.
    available: String,
}

/// Gives or takes credits by hand.
#[utoipa::path(post, path = "/admin/v1/tenants/{tenant}/adjustments", tag = "admin", params(("tenant" = String, Path)), request_body = AdjustBody,
    security(("admin" = [])), responses(
    (status = 200, body = AdjustedBody),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody, description = "the tenant has less, or another adjustment has this reference"),
))]
pub(super) async fn adjust(
    State(app): State<App>,
    headers: HeaderMap,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let asked: AdjustBody = read(&body)?;
    let amount = signed_micros(&asked.amount)
        .ok_or_else(|| Failure::invalid("invalid_amount", "amount has to be dollars such as 10.00 or -2.50, and not nothing"))?;
    if asked.reference.is_empty() || asked.reference.len() > 128 || asked.reason.is_empty() || asked.reason.len() > 512 {
        let message = "reference has to have 1 to 128 bytes, and reason 1 to 512";
        return Err(Failure::invalid("invalid_request", message));
    }
    let adjusted = app.store.adjust(&tenant, amount, &asked.reference, &asked.reason, now_ms()).await?;
    match adjusted {
        Adjusted::Done { balance } => {
            tracing::info!(tenant, amount, reference = asked.reference, "adjusted");
            let available = dollars(balance);
            Ok(json(StatusCode::OK, AdjustedBody { available }))
        }
        Adjusted::NoTenant => Err(no_tenant()),
        Adjusted::TooLittle { balance } => {
            let message = format!("the tenant has {} dollars", dollars(balance));
            Err(Failure::new(StatusCode::CONFLICT, "insufficient_credits", message))
        }
        Adjusted::OtherReference => {
            let message = "another adjustment has this reference";
            Err(Failure::new(StatusCode::CONFLICT, "other_adjustment", message))
        }
    }
}

/// Micro-dollars of `10.00` or `-2.50`.
pub(crate) fn signed_micros(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(rest) => micros(rest).map(i64::saturating_neg),
        None => micros(text),
    }
}

/// The whole journal, the latest first.
#[utoipa::path(get, path = "/admin/v1/transactions", tag = "admin", params(transactions::Query, TenantQuery), security(("admin" = [])), responses(
    (status = 200, body = transactions::Page),
    (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<transactions::Query>, QueryRejection>,
    of: Result<Query<TenantQuery>, QueryRejection>,
) -> Result<Response<Body>, Failure> {
    app.tokens.admin(&headers)?;
    let (Query(query), Query(of)) = (query?, of?);
    transactions::page(&app.store, of.tenant, query).await
}

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TenantQuery {
    /// Of this tenant alone.
    tenant: Option<String>,
}
