//! Calls to facilitators: `/verify`, `/settle` and `/supported`, directly over HTTP.
//!
//! Knows transport and nothing of meaning: answers are read by the filter's own code.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Client, Method, RequestBuilder};
use x402_envoy::config::{Config, Facilitator};
use x402_envoy::pricing::Offer;
use x402_envoy::replay::{MemoryStore, UnixSeconds};
use x402_envoy::supported::{self, Ready, Table};
use x402_envoy::x402::facilitator::{MAX_ANSWER, Speaks, Supported};

/// How often it is looked whether `/supported` is due, which `supported` decides.
const LOOK: Duration = Duration::from_secs(5);

/// The clients could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client: {0}")]
pub struct ClientError(#[from] reqwest::Error);

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An answer, whatever it says.
    Answered {
        /// HTTP status.
        status: u16,
        /// At most [`MAX_ANSWER`] bytes and a chunk.
        body: Vec<u8>,
    },
    /// No connection was made: the facilitator has certainly done nothing.
    NotSent,
    /// The request may have arrived.
    Lost,
}

/// The configured facilitators, and what they say of themselves.
pub struct Facilitators {
    http: Client,
    config: Arc<Config>,
    said: MemoryStore,
    table: RwLock<Table>,
}

impl Facilitators {
    /// Nobody is called yet.
    ///
    /// # Errors
    ///
    /// [`ClientError`] where TLS cannot be set up.
    pub fn new(config: Arc<Config>) -> Result<Self, ClientError> {
        Ok(Self {
            http: http_client()?,
            config,
            said: MemoryStore::new(),
            table: RwLock::new(Table::default()),
        })
    }

    /// What facilitators have said of themselves.
    pub fn table(&self) -> Table {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which versions a facilitator speaks for an offer; both while it is not known.
    pub fn speaks(&self, ready: &Ready, offer: &Offer) -> Speaks {
        let speaks = self.table().known(ready.facilitator).map(|said| said.speaks(offer));
        let known = speaks.filter(|speaks| speaks.v1 || speaks.v2);
        known.unwrap_or(Speaks { v1: true, v2: true })
    }

    /// The URL that names a facilitator over restarts and changes of the configuration's order.
    pub fn name(&self, index: usize) -> Option<String> {
        self.config.facilitators.get(index).map(url)
    }

    /// The facilitator of this name, if it is still configured.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.config.facilitators.iter().position(|facilitator| url(facilitator) == name)
    }

    /// `POST /verify`.
    pub async fn verify(&self, index: usize, body: Vec<u8>) -> Reply {
        let timeout = |facilitator: &Facilitator| facilitator.verify_timeout_ms;
        self.call(index, Method::POST, "/verify", Some(body), timeout).await
    }

    /// `POST /settle`: the one call that moves money.
    pub async fn settle(&self, index: usize, body: Vec<u8>) -> Reply {
        let timeout = |facilitator: &Facilitator| facilitator.settle_timeout_ms;
        self.call(index, Method::POST, "/settle", Some(body), timeout).await
    }

    /// `GET /supported`.
    pub async fn supported(&self, index: usize) -> Reply {
        let timeout = |facilitator: &Facilitator| facilitator.verify_timeout_ms;
        self.call(index, Method::GET, "/supported", None, timeout).await
    }

    /// How long `/settle` of a facilitator may take, in milliseconds.
    pub fn settle_timeout_ms(&self, index: usize) -> i64 {
        self.config
            .facilitators
            .get(index)
            .map_or(60_000, |facilitator| facilitator.settle_timeout_ms.into())
    }

    /// Asks every facilitator whose `/supported` is due, and takes over what is known.
    pub async fn refresh(&self, now: UnixSeconds) {
        for index in 0..self.config.facilitators.len() {
            if !supported::take_turn(&self.said, &self.config, index, now) {
                continue;
            }
            let timeout = |facilitator: &Facilitator| facilitator.verify_timeout_ms;
            let answer = match self.call(index, Method::GET, "/supported", None, timeout).await {
                Reply::Answered { status: 200..300, body } => Supported::parse(&body).ok(),
                _ => None,
            };
            if answer.is_none() {
                tracing::warn!(facilitator = index, "no answer to /supported");
            }
            supported::share(&self.said, &self.config, index, answer, now);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.refresh(&self.said, &self.config);
    }

    /// Keeps what is known fresh, for ever.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            self.refresh(UnixSeconds(now_seconds())).await;
        }
    }

    async fn call(
        &self,
        index: usize,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        timeout_ms: impl Fn(&Facilitator) -> u32,
    ) -> Reply {
        let Some(facilitator) = self.config.facilitators.get(index) else {
            return Reply::NotSent;
        };
        let mut request = self.http.request(method, format!("{}{path}", url(facilitator)));
        for (name, value) in &facilitator.headers {
            request = request.header(&**name, value.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        // Over the whole answer: one that trickles in is no answer.
        let limit = Duration::from_millis(u64::from(timeout_ms(facilitator)));
        tokio::time::timeout(limit, answer(request)).await.unwrap_or(Reply::Lost)
    }
}

/// A client that follows no redirect: it would hand a payment to somebody who was not configured.
pub(crate) fn http_client() -> Result<Client, ClientError> {
    // Another one may be installed already, by whoever embeds this: it is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?)
}

async fn answer(request: RequestBuilder) -> Reply {
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() || error.is_builder() => return Reply::NotSent,
        Err(_) => return Reply::Lost,
    };
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Reply::Answered { status, body },
            Err(_) => return Reply::Lost,
        }
        if body.len() > MAX_ANSWER {
            return Reply::Answered { status, body };
        }
    }
}

fn url(facilitator: &Facilitator) -> String {
    format!("{}://{}{}", facilitator.scheme, facilitator.authority, facilitator.path_prefix)
}

/// The time in Unix seconds.
pub fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
