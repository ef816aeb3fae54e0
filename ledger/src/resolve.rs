//! Ends by hand what no facilitator tells the end of: an operator has looked at the chain, and says what became of a settlement.

use crate::payments::books::{Books as _, State, TopupReceipt};
use crate::store::{Ended, Intent, Stage, Store, StoreError};

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
    /// A facilitator is being asked.
    #[error("{0} is being settled just now: try again in two minutes")]
    Busy(String),
    /// Its settlement may still go through.
    #[error("the payment of {id} runs out at {until} (Unix seconds), and can be settled until then: look again after that")]
    Early {
        /// Which.
        id: String,
        /// When, in Unix seconds.
        until: i64,
    },
    /// No transaction.
    #[error("{0:?} is no transaction: a hash such as 0x… of 64 hexadecimal digits, or a signature in base58")]
    Transaction(String),
}

/// Ends an open settlement of a claim, or of a top-up (`pi_…`), once; what can be done with the payment from now on, for people.
///
/// # Errors
///
/// [`ResolveError`]: it stays as it is.
pub async fn resolve(store: &Store, id: &str, found: Found<'_>, now_ms: i64) -> Result<&'static str, ResolveError> {
    if let Found::Paid(transaction) = found
        && !is_transaction(transaction)
    {
        return Err(ResolveError::Transaction(transaction.to_owned()));
    }
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
    let id = || intent.claim.clone();
    match intent.stage {
        Stage::Unknown => {}
        Stage::Settling if intent.lease_until <= now_ms => {}
        Stage::Settling => return Err(ResolveError::Busy(id())),
        stage => {
            return Err(ResolveError::NotOpen {
                id: id(),
                state: stage.as_str(),
            });
        }
    }
    let answer = |transaction: &str| {
        let (network, payer) = (&intent.network, &intent.payer);
        serde_json::json!({"success": true, "transaction": transaction, "network": network, "payer": payer}).to_string()
    };
    let done = match found {
        Found::Paid(transaction) => {
            let answer = answer(transaction);
            let ended = Ended::Settled {
                answer: &answer,
                transaction,
                payer: &intent.payer,
            };
            store.resolve_intent(&intent.claim, ended, now_ms).await?
        }
        Found::Failed(why) => {
            late(&intent.claim, intent.expires_at, now_ms)?;
            store.resolve_intent(&intent.claim, Ended::UsedUp(why), now_ms).await?
        }
    };
    // Taken up by a ledger since it was read.
    if !done {
        return Err(ResolveError::Busy(id()));
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
        State::Unknown => {}
        State::Processing if topup.lease_until.is_some_and(|until| until <= now_ms) => {}
        State::Processing => return Err(ResolveError::Busy(id.to_owned())),
        state => {
            return Err(ResolveError::NotOpen {
                id: id.to_owned(),
                state: match state {
                    State::Created => "created",
                    State::Settled => "settled",
                    State::Failed => "failed",
                    State::Processing | State::Unknown => "open",
                },
            });
        }
    }
    match found {
        Found::Paid(transaction) => {
            let receipt = TopupReceipt {
                transaction: transaction.to_owned(),
                // As they are known.
                network: String::new(),
                payer: String::new(),
            };
            // Credits it once, also if a ledger hears of its end at the same time.
            store.settle_topup(id, &receipt, now_ms).await?;
            Ok("paid: it is credited")
        }
        Found::Failed(why) => {
            if let Some(claim) = store.intent_of(id).await? {
                late(id, claim.expires_at, now_ms)?;
            }
            // The payment is used up. Should it have come in all the same, a webhook that names its transaction credits it.
            store.fail_topup(id, why, true, now_ms).await?;
            Ok("failed: nothing is credited, and the payment buys nothing")
        }
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

/// A hash of 32 bytes, or a signature in base58.
fn is_transaction(text: &str) -> bool {
    match text.strip_prefix("0x") {
        Some(hash) => hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => (64..=90).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() && !b"0OIl".contains(&byte)),
    }
}
