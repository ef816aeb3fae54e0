//! For whoever runs it: health, and the description of this API.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse as _;

use super::answer::{ErrorBody, Failure, json};
use super::router::{self, App};

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200)))]
pub(super) async fn health() -> StatusCode {
    StatusCode::OK
}

/// The database answers.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses((status = 200), (status = 503, body = ErrorBody)))]
pub(super) async fn ready(State(app): State<App>) -> Result<StatusCode, Failure> {
    app.store.ping().await?;
    Ok(StatusCode::OK)
}

/// What is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text"),
    (status = 503, body = ErrorBody),
))]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response<Body>, Failure> {
    let text = app.metrics.text(&app.store.standing().await?).unwrap_or_default();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// This API, as OpenAPI.
pub(super) async fn description() -> Json<utoipa::openapi::OpenApi> {
    Json(router::openapi())
}

/// What is not there.
pub(super) async fn nothing() -> Response<Body> {
    json(
        StatusCode::NOT_FOUND,
        serde_json::json!({"error": {"message": "there is nothing here", "type": "invalid_request_error", "code": "not_found"}}),
    )
}
