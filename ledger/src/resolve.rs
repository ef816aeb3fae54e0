//! Ends by hand what no facilitator tells the end of: an operator has looked at the chain, and says what became of a settlement.

use serde_json::json;
use x402_envoy::x402::Network;

use crate::payments::books::{Books as _, State, TopupReceipt};
use crate::store::{Ended, Intent, Stage, Store, StoreError};

/// For how long a top-up is kept from ledgers while it is ended, in milliseconds.
const LEASE_MS: i64 = 60_000;

/// What was found on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This transaction, by its hash or signature, has paid it.
    Paid(&'a str),
    /// Nothing has paid it, and nothing can any more; why, in words that are kept.
    Failed(&'a str),
}

/// Why it stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Neither a claim nor a top-up.
    #[error("there is no claim and no top-up {0}: `x402-ledger reconcile` and `x402-ledger intents` name them")]
    Missing(String),
    /// Its end is known, or nothing was sent.
    #[error("{id} is {state}: only a settlement whose outcome is not known can be ended by hand")]
    NotOpen {
        /// Which.
        id: String,
        /// What it is.
        state: &'static str,
    },
    /// A facilitator is being asked, or was just now.
    #[error("{id} is being settled just now: try again after {until} (Unix seconds)")]
    Busy {
        /// Which.
        id: String,
        /// When whoever asks has given up at the latest, in Unix seconds.
        until: i64,
    },
    /// Its settlement may still go through.
    #[error("the payment of {id} runs out at {until} (Unix seconds), and can be settled until then: look again after that")]
    Early {
        /// Which.
        id: String,
        /// When, in Unix seconds.
        until: i64,
    },
    /// No transaction of the network.
    #[error(
        "{given:?} is no transaction of {network}: on EVM networks a hash, 0x and 64 hexadecimal digits, on Solana a signature in base58"
    )]
    Transaction {
        /// What was given.
        given: String,
        /// As it is stored.
        network: String,
    },
    /// It has paid something else.
    #[error("transaction {transaction} has settled {by} already")]
    Named {
        /// Which.
        transaction: String,
        /// The claim, or the top-up.
        by: String,
    },
}

/// Ends an open settlement of a claim, or of a top-up (`pi_…`), once; what can be done with the payment from now on, for people.
///
/// # Errors
///
/// [`ResolveError`]: it stays as it is.
pub async fn resolve(store: &Store, id: &str, found: Found<'_>, now_ms: i64) -> Result<&'static str, ResolveError> {
    if id.starts_with("pi_") {
        return resolve_topup(store, id, found, now_ms).await;
    }
    let missing = || ResolveError::Missing(id.to_owned());
    let intent = store.intent(id).await?.ok_or_else(missing)?;
    if intent.is_topups() {
        return resolve_topup(store, &intent.holder, found, now_ms).await;
    }
    resolve_intent(store, &intent, found, now_ms).await
}

async fn resolve_intent(store: &Store, intent: &Intent, found: Found<'_>, now_ms: i64) -> Result<&'static str, ResolveError> {
    let id = &intent.claim;
    match (intent.stage, found) {
        (Stage::Unknown, _) => {}
        (Stage::Settling, _) if intent.lease_until <= now_ms => {}
        (Stage::Settling, _) => return Err(busy(id, intent.lease_until)),
        // What is due of it could not be settled in time: its facilitator is not configured any more, say.
        (Stage::Held, Found::Failed(_)) if intent.expires_at <= now_ms => {}
        (stage, _) => {
            return Err(ResolveError::NotOpen {
                id: id.clone(),
                state: stage.as_str(),
            });
        }
    }
    let done = match found {
        Found::Paid(transaction) => {
            check(store, transaction, &intent.network).await?;
            let (network, payer) = (&intent.network, &intent.payer);
            let answer = json!({"success": true, "transaction": transaction, "network": network, "payer": payer}).to_string();
            let ended = Ended::Settled {
                answer: &answer,
                transaction,
                payer,
            };
            store.resolve_intent(id, ended, now_ms).await?
        }
        Found::Failed(why) => {
            late(id, intent.expires_at, now_ms)?;
            store.resolve_intent(id, Ended::UsedUp(why), now_ms).await?
        }
    };
    if !done {
        // A ledger has taken it up since it was read, and may have ended it.
        let now = store.intent(id).await?.ok_or_else(|| ResolveError::Missing(id.clone()))?;
        return Err(match now.stage {
            Stage::Settling => busy(id, now.lease_until),
            Stage::Unknown => busy(id, now_ms),
            stage => ResolveError::NotOpen {
                id: id.clone(),
                state: stage.as_str(),
            },
        });
    }
    Ok(match found {
        Found::Paid(_) if intent.delivered => "paid, and its answer was delivered",
        Found::Paid(_) => "paid: the same payment sent again is served, and not settled again",
        Found::Failed(_) => "failed: the payment buys nothing",
    })
}

async fn resolve_topup(store: &Store, id: &str, found: Found<'_>, now_ms: i64) -> Result<&'static str, ResolveError> {
    let missing = || ResolveError::Missing(id.to_owned());
    let topup = store.topup(id).await?.ok_or_else(missing)?;
    match topup.state {
        State::Processing | State::Unknown => {}
        state => return Err(not_open(id, state)),
    }
    match found {
        Found::Paid(transaction) => check(store, transaction, topup.network.as_deref().unwrap_or_default()).await?,
        Found::Failed(_) => {
            if let Some(claim) = store.intent_of(id).await? {
                late(id, claim.expires_at, now_ms)?;
            }
        }
    }
    // As a ledger does that settles it: nobody else is at it then.
    if !store.resume_settlement(id, now_ms.saturating_add(LEASE_MS), now_ms).await? {
        let now = store.topup(id).await?.ok_or_else(missing)?;
        return Err(match now.state {
            State::Processing | State::Unknown => busy(id, now.lease_until.unwrap_or(now_ms)),
            state => not_open(id, state),
        });
    }
    let (done, said) = match found {
        Found::Paid(transaction) => {
            let receipt = TopupReceipt {
                transaction: transaction.to_owned(),
                // As they are known.
                network: String::new(),
                payer: String::new(),
            };
            (store.settle_topup(id, &receipt, now_ms).await?, "paid: it is credited")
        }
        Found::Failed(why) => (
            store.fail_topup(id, why, true, now_ms).await?,
            "failed: nothing is credited, and the payment buys nothing",
        ),
    };
    // A webhook may have credited it meanwhile.
    done.then_some(said).ok_or_else(|| not_open(id, State::Settled))
}

/// What is found has to be a transaction, and to have paid nothing else.
async fn check(store: &Store, transaction: &str, network: &str) -> Result<(), ResolveError> {
    if !is_transaction(transaction, network) {
        return Err(ResolveError::Transaction {
            given: transaction.to_owned(),
            network: network.to_owned(),
        });
    }
    match store.is_settled_by(transaction).await? {
        None => Ok(()),
        Some(by) => Err(ResolveError::Named {
            transaction: transaction.to_owned(),
            by,
        }),
    }
}

fn busy(id: &str, until_ms: i64) -> ResolveError {
    ResolveError::Busy {
        id: id.to_owned(),
        until: until_ms.div_euclid(1000),
    }
}

fn not_open(id: &str, state: State) -> ResolveError {
    ResolveError::NotOpen {
        id: id.to_owned(),
        state: match state {
            State::Created => "created",
            State::Settled => "settled",
            State::Failed => "failed",
            State::Processing | State::Unknown => "open",
        },
    }
}

/// What has not run out can still be settled by whoever was asked to.
fn late(id: &str, expires_at: i64, now_ms: i64) -> Result<(), ResolveError> {
    if expires_at > now_ms {
        return Err(ResolveError::Early {
            id: id.to_owned(),
            until: expires_at.div_euclid(1000),
        });
    }
    Ok(())
}

/// A hash of 32 bytes, or on Solana a signature of 64 bytes. None of zeros, which some facilitators put where there is no transaction.
fn is_transaction(text: &str, network: &str) -> bool {
    let network = Network::parse(network).or_else(|_| Network::parse_v1(network));
    if network.is_ok_and(|network| network.is_solana()) {
        // 1 is base58's zero.
        return text.bytes().any(|byte| byte != b'1')
            && (64..=90).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte));
    }
    let hash = text.strip_prefix("0x").unwrap_or_default();
    hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && hash.bytes().any(|byte| byte != b'0')
}
