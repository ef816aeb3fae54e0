//! Paths and what answers them.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Info, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Tokens;
use super::{admin, billing, data_path, facilitate, operations};
use crate::metrics::Metrics;
use crate::payments::claims::Claims;
use crate::payments::topup::Topups;
use crate::store::Store;

/// What answers requests. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The books.
    pub store: Store,
    /// How payments become credits.
    pub topups: Arc<Topups<Store>>,
    /// Which request of the fleet has which payment.
    pub claims: Arc<Claims>,
    /// Who may call.
    pub tokens: Tokens,
    /// What is counted.
    pub metrics: Metrics,
    /// How long a reservation lasts that nothing is heard of, in milliseconds.
    pub reservation_ttl_ms: i64,
    /// For how long requests may begin that are paid from a lease, in milliseconds.
    pub lease_ttl_ms: i64,
    /// How long a request keeps a payment that nothing is heard of, in milliseconds.
    pub lease_ms: i64,
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(data_path::reserve))
        .routes(routes!(data_path::capture))
        .routes(routes!(facilitate::verify))
        .routes(routes!(facilitate::settle))
        .routes(routes!(facilitate::supported))
        .routes(routes!(facilitate::report))
        .routes(routes!(billing::fund))
        .routes(routes!(billing::settle))
        .routes(routes!(billing::receive))
        .routes(routes!(billing::balance))
        .routes(routes!(billing::list))
        .routes(routes!(admin::create_tenant, admin::tenants))
        .routes(routes!(admin::tenant))
        .routes(routes!(admin::create_key, admin::keys))
        .routes(routes!(admin::revoke_key))
        .routes(routes!(admin::adjust))
        .routes(routes!(admin::list))
        .routes(routes!(operations::health))
        .routes(routes!(operations::ready))
        .routes(routes!(operations::metrics))
}

/// A caller that goes away ends nothing that has begun: a transaction that is dropped while it begins stays open in its connection, and
/// takes what comes after it along.
async fn to_the_end(request: Request, next: Next) -> Response {
    let task = tokio::spawn(next.run(request));
    task.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The whole API.
pub fn router(app: App) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .route("/openapi.json", get(operations::description))
        .fallback(operations::nothing)
        .layer(middleware::from_fn(to_the_end))
        .with_state(app)
}

/// What any call of its kind may be answered with, where nothing more is to be said of it.
fn describe_failures(operation: &mut Operation) {
    let is_admin = operation.tags.iter().flatten().any(|tag| tag == "admin");
    let common = [
        (operation.request_body.is_some(), "400", "the body cannot be read"),
        (is_admin, "404", "the admin API is off: it has no token"),
        (operation.security.is_some(), "503", "the database did not answer: try again"),
    ];
    for (status, why) in common.into_iter().filter_map(|(may, status, why)| may.then_some((status, why))) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(why).content("application/json", content).build();
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(response));
    }
}

/// Its description, made from the code.
pub fn openapi() -> OpenApi {
    let (_, mut described) = described().split_for_parts();
    described.info = Info::new("x402-ledger", env!("CARGO_PKG_VERSION"));
    described.info.description = Some("Prepaid credits for x402-envoy: balances, top-ups, reservations.".to_owned());
    for item in described.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            describe_failures(operation);
        }
    }
    let components = described.components.get_or_insert_with(Components::new);
    for name in ["api_key", "data_path", "admin"] {
        components.add_security_scheme(name, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
    described
}
