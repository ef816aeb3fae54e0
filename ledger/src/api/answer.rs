//! How answers and errors look.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use x402_envoy::x402::Answer;

use crate::payments::topup::TopupError;
use crate::store::StoreError;

/// An error, as OpenAI's API tells of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// For people: what is wrong, and what to do.
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// For programs.
    code: &'static str,
}

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() {
            "api_error"
        } else {
            "invalid_request_error"
        };
        Self {
            status,
            kind,
            code,
            message: message.into(),
        }
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub(super) fn body(&self) -> String {
        let body = ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind,
                code: self.code,
            },
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], self.body()).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
            _ => None,
        };
        response
    }
}

impl From<QueryRejection> for Failure {
    fn from(error: QueryRejection) -> Self {
        Self::invalid("invalid_query", error.body_text())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the database did not do what was asked");
        let message = "the ledger's database is not available: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "database_unavailable", message)
    }
}

impl From<TopupError> for Failure {
    fn from(error: TopupError) -> Self {
        tracing::error!(%error, "a top-up came to no end");
        let message = "the payment's outcome could not be recorded: send the same payment again, and not a new one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "topup_interrupted", message)
    }
}

/// Reads a body of JSON.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::invalid("invalid_json", format!("the body cannot be read: {error}")))
}

/// 200, or another status, with JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, body: T) -> Response<Body> {
    (status, Json(body)).into_response()
}

/// An answer of the payments' code.
pub(super) fn respond(answer: Answer) -> Response<Body> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.append(name, value);
        }
    }
    response
}
