//! What can be asked of it on the command line.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::{Map, Value};
use x402_envoy::x402::Network;

use crate::api::{Tokens, csv, openapi, quoted, signed_micros};
use crate::payments::facilitator::http_client;
use crate::payments::offers::dollars;
use crate::payments::topup::now_ms;
use crate::reconcile::{Node, reconcile};
use crate::resolve::{Found, ResolveError, resolve};
use crate::serve::{ServeError, serve};
use crate::settings::{self, Settings, SettingsError};
use crate::store::{Adjusted, CopyError, Filter, Intent, Store, StoreError};

/// How many rows of an export are read at a time.
const PAGE: i64 = 1_000;

/// Prepaid credits for x402-envoy.
///
/// Secrets come from the environment, or from files named there with _FILE: X402_LEDGER_TOKEN (Envoy's), X402_LEDGER_KEY (64 hexadecimal
/// digits, encrypts open payments), X402_LEDGER_ADMIN_TOKEN and X402_LEDGER_WEBHOOK_SECRET (each turns its API on), X402_LEDGER_DATABASE_URL.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The configuration.
    #[arg(long, env = "X402_LEDGER_CONFIG", default_value = "ledger.yaml", global = true)]
    config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, until SIGTERM or SIGINT.
    Serve,
    /// Add the whole journal up and compare every balance; fails if one differs.
    Check,
    /// Tenants: who has a balance.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Give credits by hand, or take them (an amount that begins with -).
    Adjust {
        /// ten_…
        tenant: String,
        /// Dollars, such as 10.00 or -2.50.
        #[arg(allow_hyphen_values = true)]
        amount: String,
        /// Yours, unique: the same adjustment said again is done once.
        #[arg(long)]
        reference: String,
        /// Why: it is kept in the journal.
        #[arg(long)]
        reason: String,
    },
    /// The journal as CSV, the latest first.
    Export {
        /// Of this tenant alone.
        #[arg(long)]
        tenant: Option<String>,
        /// Not before this time, in Unix milliseconds.
        #[arg(long)]
        since: Option<i64>,
        /// Before this time, in Unix milliseconds.
        #[arg(long)]
        until: Option<i64>,
    },
    /// Shared claims and their settlements as CSV.
    Intents,
    /// Compare settlements with the chain, and say what differs; fails if something does.
    Reconcile {
        /// A network and its node, such as eip155:8453=http://127.0.0.1:8545; may be given for several.
        #[arg(long, required = true)]
        rpc: Vec<String>,
        /// How many of the latest blocks to look at.
        #[arg(long, default_value_t = 50_000)]
        blocks: u64,
    },
    /// End a settlement whose outcome no facilitator tells, by what the chain says.
    Resolve {
        /// The claim, or the top-up (pi_…), as `reconcile` names it.
        id: String,
        /// The transaction that has paid it.
        #[arg(long, value_name = "TRANSACTION", required_unless_present = "failed", conflicts_with = "failed")]
        paid: Option<String>,
        /// Nothing has paid it, and nothing can any more: why.
        #[arg(long, value_name = "WHY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        failed: Option<String>,
    },
    /// Copy everything from one database into another, empty one, and add the copy up. Either is the configured one if it is not given.
    Copy {
        /// sqlite:<file> or postgres://…; stop the ledgers that serve from it.
        #[arg(long, required_unless_present = "to")]
        from: Option<String>,
        /// sqlite:<file> or postgres://…
        #[arg(long)]
        to: Option<String>,
    },
    /// The API's description, as OpenAPI in JSON.
    Openapi,
    /// Make a value for X402_LEDGER_KEY.
    Keygen,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Make one; prints its id.
    Create {
        /// For people.
        name: String,
    },
    /// All of them: id, available and reserved dollars, name.
    List,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make one; prints it, this once.
    Create {
        /// ten_…
        tenant: String,
        /// For people.
        #[arg(long, default_value = "")]
        label: String,
    },
    /// A tenant's keys: id, state, label.
    List {
        /// ten_…
        tenant: String,
    },
    /// End a key's use at once.
    Revoke {
        /// key_…
        key: String,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// See there.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See there.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// See there.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// See there.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The system gives no threads, no signals, or no output.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// What was asked for is not so; said for people.
    #[error("{0}")]
    Not(String),
}

/// Does what was asked.
///
/// # Errors
///
/// [`CliError`].
pub fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async_run(cli))
}

async fn async_run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Openapi => {
            let text = openapi().to_pretty_json().map_err(|error| CliError::Not(error.to_string()))?;
            return print(&format!("{text}\n"));
        }
        Command::Keygen => {
            let mut key = [0u8; 32];
            getrandom::fill(&mut key).map_err(|_| StoreError::Random)?;
            return print(&format!("{}\n", hex::encode(key)));
        }
        _ => {}
    }
    let url = settings::secret("X402_LEDGER_DATABASE_URL")?;
    // A command that needs the database alone does with its URL alone.
    let document = match settings::read(&cli.config) {
        Err(SettingsError::File { .. }) if url.is_some() && !matches!(cli.command, Command::Serve) => Map::new(),
        read => read?,
    };
    if let Command::Serve = cli.command {
        // Mistakes first: nothing is opened for a configuration that cannot be used.
        let settings = Settings::new(&document)?;
        let cipher = settings::cipher()?;
        let tokens = Tokens::new(
            &settings::required("X402_LEDGER_TOKEN")?,
            settings::secret("X402_LEDGER_ADMIN_TOKEN")?.as_deref(),
            settings::secret("X402_LEDGER_WEBHOOK_SECRET")?.as_deref(),
        );
        let (url, connections) = settings::database(&document, url)?;
        let store = Store::open(&url, connections).await?;
        return Ok(serve(store, settings, cipher, tokens, end()?).await?);
    }
    let (url, connections) = settings::database(&document, url)?;
    if let Command::Copy { from, to } = cli.command {
        return copy(from.as_deref().unwrap_or(&url), to.as_deref().unwrap_or(&url)).await;
    }
    let store = Store::open(&url, connections).await?;
    let done = match cli.command {
        Command::Reconcile { rpc, blocks } => compare(&store, &document, &rpc, blocks).await,
        other => command(other, &store).await,
    };
    store.close().await;
    done
}

/// SIGTERM or SIGINT.
fn end() -> Result<impl Future<Output = ()> + Send + 'static, CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

async fn command(command: Command, store: &Store) -> Result<(), CliError> {
    match command {
        Command::Check => {
            let findings = store.check().await?;
            if findings.wrong.is_empty() {
                print(&format!("{findings}\n"))
            } else {
                Err(CliError::Not(findings.to_string()))
            }
        }
        Command::Tenant(TenantCommand::Create { name }) => {
            let id = store.create_tenant(&name, now_ms()).await?;
            print(&format!("{id}\n"))
        }
        Command::Tenant(TenantCommand::List) => tenants(store).await,
        Command::Key(KeyCommand::Create { tenant, label }) => {
            let made = store.create_key(&tenant, &label, now_ms()).await?;
            let made = made.ok_or_else(|| CliError::Not(format!("there is no tenant {tenant}")))?;
            eprintln!("{} for {tenant}; it is stored hashed, and not shown again", made.id);
            print(&format!("{}\n", made.key))
        }
        Command::Key(KeyCommand::List { tenant }) => {
            for key in store.keys(&tenant).await? {
                let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
                print(&format!("{}\t{state}\t{}\n", key.id, key.label))?;
            }
            Ok(())
        }
        Command::Key(KeyCommand::Revoke { key }) => {
            let revoked = store.revoke_key(&key, now_ms()).await?;
            let none = || CliError::Not(format!("there is no key {key} that can be used"));
            revoked.then_some(()).ok_or_else(none)
        }
        Command::Adjust {
            tenant,
            amount,
            reference,
            reason,
        } => adjust(store, &tenant, &amount, &reference, &reason).await,
        Command::Export { tenant, since, until } => {
            let filter = Filter {
                tenant,
                since_ms: since,
                until_ms: until,
                ..Filter::default()
            };
            export(store, filter).await
        }
        Command::Intents => intents(store).await,
        Command::Resolve { id, paid, failed } => {
            let found = match (&paid, &failed) {
                (Some(transaction), _) => Found::Paid(transaction),
                (None, why) => Found::Failed(why.as_deref().unwrap_or_default()),
            };
            let said = resolve(store, &id, found, now_ms()).await?;
            print(&format!("{id} is {said}\n"))
        }
        // Done elsewhere.
        Command::Serve | Command::Openapi | Command::Keygen | Command::Reconcile { .. } | Command::Copy { .. } => Ok(()),
    }
}

async fn copy(from: &str, to: &str) -> Result<(), CliError> {
    let from = Store::open_existing(from, 1).await?;
    let to = Store::open(to, 1).await?;
    let copied = from.copy_to(&to).await;
    from.close().await;
    to.close().await;
    print(&format!("{}\n", copied?))
}

async fn tenants(store: &Store) -> Result<(), CliError> {
    let mut after = String::new();
    loop {
        let page = store.tenants(&after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for tenant in &page {
            let (available, reserved) = (dollars(tenant.available), dollars(tenant.reserved));
            print(&format!("{}\t{available}\t{reserved}\t{}\n", tenant.id, tenant.name))?;
        }
    }
}

async fn adjust(store: &Store, tenant: &str, amount: &str, reference: &str, reason: &str) -> Result<(), CliError> {
    let amount = signed_micros(amount)
        .ok_or_else(|| CliError::Not("the amount has to be dollars such as 10.00 or -2.50, and not nothing".to_owned()))?;
    match store.adjust(tenant, amount, reference, reason, now_ms()).await? {
        Adjusted::Done { balance } => print(&format!("{} available\n", dollars(balance))),
        Adjusted::NoTenant => Err(CliError::Not(format!("there is no tenant {tenant}"))),
        Adjusted::TooLittle { balance } => Err(CliError::Not(format!("the tenant has {} dollars", dollars(balance)))),
        Adjusted::OtherReference => Err(CliError::Not(format!("another adjustment has the reference {reference}"))),
    }
}

async fn export(store: &Store, mut filter: Filter) -> Result<(), CliError> {
    let mut first = true;
    loop {
        let page = store.transactions(&filter, PAGE).await?;
        if page.is_empty() && !first {
            return Ok(());
        }
        print(&csv(&page, first))?;
        let Some(last) = page.last() else { return Ok(()) };
        (filter.before, first) = (Some(last.seq), false);
    }
}

async fn intents(store: &Store) -> Result<(), CliError> {
    print("claim,state,delivered,network,scheme,payer,amount,transaction,error,attempts,expires_at\r\n")?;
    let mut after = String::new();
    loop {
        let page = store.intents(&after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.claim);
        for intent in &page {
            let Intent {
                claim,
                network,
                scheme,
                amount,
                attempts,
                expires_at,
                ..
            } = intent;
            let (state, delivered) = (intent.stage.as_str(), intent.delivered);
            let [payer, transaction, error] = [&intent.payer, &intent.transaction, &intent.error].map(|text| quoted(text));
            print(&format!(
                "{claim},{state},{delivered},{network},{scheme},{payer},{amount},{transaction},{error},{attempts},{expires_at}\r\n"
            ))?;
        }
    }
}

async fn compare(store: &Store, document: &Map<String, Value>, nodes: &[String], blocks: u64) -> Result<(), CliError> {
    let offers = Settings::new(document)?.offers;
    let cipher = settings::cipher().ok();
    let http = http_client().map_err(|error| CliError::Not(error.to_string()))?;
    let mut differs = Vec::new();
    for given in nodes {
        let wrong = || {
            CliError::Not(format!(
                "--rpc {given}: it has to be a network and a URL such as eip155:8453=http://127.0.0.1:8545"
            ))
        };
        let (network, url) = given.split_once('=').ok_or_else(wrong)?;
        let network = Network::parse(network).map_err(|_| wrong())?;
        let report = reconcile(store, &offers, cipher.as_ref(), &network, &Node::new(url, http.clone()), blocks).await;
        let report = report.map_err(|error| CliError::Not(error.to_string()))?;
        let (known, moved, count) = (report.known, report.moved, report.differs.len());
        print(&format!(
            "{}: {known} payments in the ledger, {moved} transactions on the chain, {count} differences\n",
            network.as_str()
        ))?;
        differs.extend(report.differs);
    }
    if differs.is_empty() {
        return Ok(());
    }
    Err(CliError::Not(differs.join("\n")))
}

fn print(text: &str) -> Result<(), CliError> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
