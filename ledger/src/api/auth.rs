//! Who may call what.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::answer::Failure;
use super::router::App;
use crate::store::hash;

/// The secrets of callers that are no tenants. Kept hashed: comparing takes as long for every guess, and nothing prints them.
#[derive(Clone)]
pub struct Tokens {
    data_path: [u8; 32],
    admin: Option<[u8; 32]>,
    pub(super) webhook: Option<Arc<[u8]>>,
}

impl Tokens {
    /// `data_path` is Envoy's; without `admin` there is no admin API, without `webhook` no webhook.
    pub fn new(data_path: &str, admin: Option<&str>, webhook: Option<&str>) -> Self {
        Self {
            data_path: Sha256::digest(data_path).into(),
            admin: admin.map(|token| Sha256::digest(token).into()),
            webhook: webhook.map(|secret| secret.as_bytes().into()),
        }
    }

    pub(super) fn data_path(&self, headers: &HeaderMap) -> Result<(), Failure> {
        same(&self.data_path, headers)
            .ok_or_else(|| Failure::unauthorized("Authorization has to be the Bearer token of the data path (X402_LEDGER_TOKEN)"))
    }

    pub(super) fn admin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let disabled = || {
            Failure::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "the admin API is off: it has no token (X402_LEDGER_ADMIN_TOKEN)",
            )
        };
        same(self.admin.as_ref().ok_or_else(disabled)?, headers)
            .ok_or_else(|| Failure::unauthorized("Authorization has to be the Bearer token of the admin API (X402_LEDGER_ADMIN_TOKEN)"))
    }
}

fn same(expected: &[u8; 32], headers: &HeaderMap) -> Option<()> {
    let given: [u8; 32] = Sha256::digest(bearer(headers)?).into();
    bool::from(given.ct_eq(expected)).then_some(())
}

/// The token of `Authorization: Bearer`, if there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whose API key came with a request: in `Authorization: Bearer`, or in `X-Api-Key`.
pub(super) async fn tenant(app: &App, headers: &HeaderMap) -> Result<String, Failure> {
    let key = bearer(headers).or_else(|| headers.get("x-api-key")?.to_str().ok());
    let unknown = || Failure::unauthorized("Incorrect API key provided: send yours as Authorization: Bearer <key>");
    let hash = hash(key.ok_or_else(unknown)?);
    app.store.tenant_of(&hash).await?.ok_or_else(unknown)
}
