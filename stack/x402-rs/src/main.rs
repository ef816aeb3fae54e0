//! The x402-rs facilitator as an HTTP server: /verify, /settle, /supported; `exact` with EIP-3009 and Permit2, `upto`, and x402
//! version 1.
//!
//! ```sh
//! cargo run --manifest-path stack/x402-rs/Cargo.toml -- [--port 4026] [--chain 84532=http://127.0.0.1:8545] [--key 0x…] [--receipt-timeout 30]
//! ```
//!
//! Prints one line of JSON when it is ready, and runs until SIGTERM or SIGINT. It is built with its own lock file into its own target
//! directory, and only where real answers are recorded: it takes minutes.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use serde_json::{Value, json};
use x402_chain_eip155::chain::config::Eip155ChainConfig;
use x402_chain_eip155::chain::{Eip155ChainProvider, Eip155ChainReference};
use x402_chain_eip155::{V1Eip155Exact, V2Eip155Exact, V2Eip155Upto};
use x402_facilitator_local::util::SigDown;
use x402_facilitator_local::{FacilitatorLocal, handlers};
use x402_types::chain::{ChainId, ChainRegistry, FromConfig};
use x402_types::scheme::{
    SchemeBlueprints, SchemeConfig, SchemeRegistry, X402SchemeFacilitator, X402SchemeFacilitatorBuilder, X402SchemeId,
};

/// Anvil's account 9; known to everybody, worth nothing.
const KEY: &str = "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6";

const SCHEMES: [&str; 3] = ["v1-eip155-exact", "v2-eip155-exact", "v2-eip155-upto"];

type Chain = Arc<Eip155ChainProvider>;

/// A scheme as a registry of one kind of chains takes it.
struct Scheme<T>(T);

impl<T: X402SchemeId> X402SchemeId for Scheme<T> {
    fn x402_version(&self) -> u8 {
        self.0.x402_version()
    }

    fn namespace(&self) -> &str {
        self.0.namespace()
    }

    fn scheme(&self) -> &str {
        self.0.scheme()
    }
}

impl<T: X402SchemeFacilitatorBuilder<Chain>> X402SchemeFacilitatorBuilder<&Chain> for Scheme<T> {
    fn build(&self, chain: &Chain, config: Option<Value>) -> Result<Box<dyn X402SchemeFacilitator>, Box<dyn Error>> {
        self.0.build(Arc::clone(chain), config)
    }
}

struct Options {
    port: u16,
    chain: String,
    key: String,
    receipt_timeout: u64,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            port: 4026,
            chain: "84532=http://127.0.0.1:8545".to_owned(),
            key: KEY.to_owned(),
            receipt_timeout: 30,
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--port" => options.port = value.parse()?,
                "--chain" => options.chain = value,
                "--key" => options.key = value,
                "--receipt-timeout" => options.receipt_timeout = value.parse()?,
                _ => return Err(format!("{name}: no such option").into()),
            }
        }
        Ok(options)
    }
}

/// All schemes on one chain.
async fn facilitator(options: &Options) -> Result<FacilitatorLocal<SchemeRegistry>, Box<dyn Error>> {
    let (id, rpc) = options.chain.split_once('=').ok_or("--chain: expected id=url")?;
    let config = Eip155ChainConfig {
        chain_reference: Eip155ChainReference::new(id.parse()?),
        inner: serde_json::from_value(json!({
            "signers": [options.key],
            "rpc": [{"http": rpc}],
            "receipt_timeout_secs": options.receipt_timeout,
        }))?,
    };
    let provider = Arc::new(Eip155ChainProvider::from_config(&config).await?);
    let chains = ChainRegistry::new(HashMap::from([(ChainId::new("eip155", id), provider)]));
    let blueprints = SchemeBlueprints::new()
        .and_register(Scheme(V1Eip155Exact))
        .and_register(Scheme(V2Eip155Exact))
        .and_register(Scheme(V2Eip155Upto));
    let schemes: Value = SCHEMES.iter().map(|scheme| json!({"id": scheme, "chains": "eip155:*"})).collect();
    let schemes: Vec<SchemeConfig> = serde_json::from_value(schemes)?;
    Ok(FacilitatorLocal::new(SchemeRegistry::build(chains, blueprints, &schemes)))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::read(std::env::args().skip(1))?;
    let state = Arc::new(facilitator(&options).await?);
    let app = handlers::routes().with_state(state);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", options.port)).await?;
    let (address, pid) = (listener.local_addr()?, std::process::id());
    println!(r#"{{"ready": true, "url": "http://{address}", "pid": {pid}}}"#);
    let end = SigDown::try_new()?.cancellation_token();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { end.cancelled().await })
        .await?;
    Ok(())
}
