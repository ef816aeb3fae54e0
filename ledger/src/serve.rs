//! The service: what listens, and what goes on beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use x402_envoy::replay::UnixSeconds;

use crate::api::{App, Tokens, router};
use crate::metrics::Metrics;
use crate::payments::cipher::Cipher;
use crate::payments::claims::Claims;
use crate::payments::facilitator::{ClientError, Facilitators, now_seconds};
use crate::payments::sweeper;
use crate::payments::topup::{Topups, now_ms};
use crate::settings::Settings;
use crate::store::{Store, StoreError};

/// How often what has lapsed is given up.
const PERIOD: Duration = Duration::from_secs(1);
/// How often it is looked for what is to be forgotten.
const FORGETTING: Duration = Duration::from_secs(600);
/// How many settlements are taken up in a round.
const BATCH: i64 = 32;
/// How long requests may take after the end was asked for.
const GRACE: Duration = Duration::from_secs(30);

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot listen.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// It cannot go on.
    #[error("the server: {0}")]
    Server(#[from] std::io::Error),
}

/// Serves until `end`, and then what has begun.
///
/// # Errors
///
/// [`ServeError`].
pub async fn serve(
    store: Store,
    settings: Settings,
    cipher: Cipher,
    tokens: Tokens,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let facilitators = Arc::new(Facilitators::new(Arc::new(settings.offers.config.clone()))?);
    let secret = store.secret().await?;
    let metrics = Metrics::default();
    let claims = Claims::new(
        store.clone(),
        facilitators.clone(),
        &settings.offers.config,
        (cipher.clone(), secret),
        metrics.clone(),
        settings.lease_ms,
    );
    let topups = Topups::new(
        store.clone(),
        settings.offers,
        facilitators.clone(),
        cipher,
        secret,
        metrics.clone(),
    );
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| ServeError::Listen(settings.listen, error))?;
    // What is offered depends on it; a facilitator that does not answer is not waited for twice.
    facilitators.refresh(UnixSeconds(now_seconds())).await;
    let app = App {
        store: store.clone(),
        topups: topups.clone(),
        claims: claims.clone(),
        tokens,
        metrics: metrics.clone(),
        reservation_ttl_ms: settings.reservation_ttl_ms,
        lease_ttl_ms: settings.lease_ttl_ms,
        lease_ms: settings.lease_ms,
    };
    let beside = [
        tokio::spawn(facilitators.keep_fresh()),
        tokio::spawn(sweeper::run(topups)),
        tokio::spawn(settle_due(claims)),
        tokio::spawn(give_up(store.clone(), metrics)),
        tokio::spawn(forget(store.clone(), settings.retention_ms)),
    ];
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (asked, mut ending) = tokio::sync::watch::channel(false);
    let graceful = async move {
        end.await;
        tracing::info!("ending: what has begun is served");
        let _ = asked.send(true);
    };
    let serving = axum::serve(listener, router(app)).with_graceful_shutdown(graceful);
    let too_long = async move {
        let _ = ending.wait_for(|asked| *asked).await;
        tokio::time::sleep(GRACE).await;
    };
    // Connections of Envoy's pool stay open without a request; they are not waited for without an end.
    tokio::select! {
        served = serving => served?,
        () = too_long => tracing::warn!("requests were still under way"),
    }
    for task in beside {
        task.abort();
    }
    store.close().await;
    Ok(())
}

/// Settles, for ever, what requests of a fleet have left.
async fn settle_due(claims: Arc<Claims>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = claims.sweep(BATCH).await {
            tracing::error!(%error, "shared claims could not be swept");
        }
    }
}

/// Forgets, for ever, what has ended so long ago.
async fn forget(store: Store, retention_ms: i64) {
    let mut ticks = tokio::time::interval(FORGETTING);
    loop {
        ticks.tick().await;
        match store.forget(now_ms().saturating_sub(retention_ms)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "what has ended long ago was forgotten"),
            Err(error) => tracing::error!(%error, "what has ended could not be forgotten"),
        }
        if let Err(error) = store.forget_ended(now_ms()).await {
            tracing::error!(%error, "requests that have ended could not be forgotten");
        }
    }
}

/// Gives up, for ever, reservations that nothing is heard of and intents that were never paid.
async fn give_up(store: Store, metrics: Metrics) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.lapse(now_ms()).await {
            Ok(0) => {}
            Ok(lapsed) => {
                metrics.lapsed(u64::try_from(lapsed).unwrap_or(0));
                tracing::warn!(lapsed, "reservations that nothing was heard of in time were given back");
            }
            Err(error) => tracing::error!(%error, "reservations could not be given up"),
        }
        if let Err(error) = store.expire_topups(now_ms()).await {
            tracing::error!(%error, "intents that were never paid could not be closed");
        }
    }
}
