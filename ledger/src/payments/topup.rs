//! Top-ups: from a payment to a credit, exactly once, whatever breaks in between.
//!
//! The intent is durable before `/settle` leaves, so that a crash at any point leaves either nothing, or a top-up whose settlement is
//! sent again to the same facilitator until its outcome is certain.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x402_envoy::precheck::{Approved, Claiming, Terms, pre_check};
use x402_envoy::pricing::Offer;
use x402_envoy::replay::{SHARED_SECRET, UnixSeconds};
use x402_envoy::x402::facilitator::{Settle, Verify, parse_settle, parse_verify, verify_or_settle_body};
use x402_envoy::x402::{Dialect, Network, Payable, Payment, Receipt, Refusal, Resource};

use super::books::{Begin, Begun, Books, NewTopup, Source, State, Topup, TopupReceipt};
use super::cipher::{Cipher, CipherError};
use super::facilitator::{Facilitators, Reply, now_seconds};
use super::inference::{Inference, never_less};
use super::offers::{Offers, Priced};
use crate::metrics::Metrics;
use crate::store::StoreError;

/// For how long a payment that has expired is recognised, in seconds: it may have been settled.
const GRACE: u64 = 86_400;
/// How long a request waits for another one that is settling the same payment, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// How much longer than its call a settlement's lease lasts, in milliseconds.
const LEASE_MARGIN_MS: i64 = 30_000;
/// When an unknown settlement is first sent again, and the longest time from one attempt to the next, in milliseconds.
const FIRST_RETRY_MS: i64 = 1_000;
const LONGEST_RETRY_MS: i64 = 3_600_000;
/// How often a change of the books is tried: an outcome that is not written down has to be asked for again.
const WRITES: u32 = 5;

/// Why a top-up came to no end at all: nothing is known to have been paid.
#[derive(Debug, thiserror::Error)]
pub enum TopupError {
    /// The books could not be read or written.
    #[error("the ledger's database: {0}")]
    Books(Box<dyn std::error::Error + Send + Sync>),
    /// The payload could not be sealed.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settlement's task ended before its work.
    #[error("the settlement was interrupted")]
    Interrupted,
}

fn books<E: std::error::Error + Send + Sync + 'static>(error: E) -> TopupError {
    TopupError::Books(Box::new(error))
}

/// A payment and what it is meant for.
#[derive(Clone, Debug)]
pub struct Paying<'a> {
    /// Whom it is credited to; from the API key.
    pub tenant: &'a str,
    /// The payment.
    pub payment: &'a Payment,
    /// What it may take.
    pub offers: &'a [Priced],
    /// What it is made for.
    pub resource: Resource<'a>,
    /// What it pays for.
    pub intent: Intent<'a>,
}

/// The funding intent that a payment pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent<'a> {
    /// One is made.
    New,
    /// This one, which is `created`: named by the client, who must not pay it twice.
    Named(&'a str),
    /// The newest open one of this amount, as the client did not say which; if there is none, one is made.
    Open,
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is credited, by this request or an earlier one.
    Credited {
        /// The top-up.
        topup: Box<Topup>,
        /// The receipt's header, name in lower case, and its value.
        receipt: (&'static str, String),
    },
    /// It is at fault, or somebody else's; nothing was credited.
    Refused {
        /// Status, code and words.
        refusal: Refusal,
        /// The facilitator's reason, if it is the one who refused.
        reason: Option<String>,
        /// What was found; never a signature.
        detail: String,
    },
    /// Another request is settling it: [`Refusal::PaymentInUse`].
    InUse,
    /// The money may have moved: [`Refusal::SettlementPending`]. Never a reason to ask for another payment.
    Pending,
}

impl Outcome {
    /// In one word, for counting.
    fn name(&self) -> &'static str {
        match self {
            Self::Credited { .. } => "credited",
            Self::Refused { .. } => "refused",
            Self::InUse => "in_use",
            Self::Pending => "pending",
        }
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Refused {
            refusal,
            reason: None,
            detail: String::new(),
        }
    }
}

/// What has to be remembered to send a settlement again.
#[derive(Serialize, Deserialize)]
struct Sending {
    facilitator: String,
    network: String,
    currency: String,
    /// Millionths of a token.
    millionths: u64,
    /// See [`Topups::identity`].
    identity: String,
}

/// The state machine.
pub struct Topups<B> {
    store: B,
    offers: Offers,
    facilitators: Arc<Facilitators>,
    cipher: Cipher,
    secret: [u8; 16],
    inference: Inference,
    metrics: Metrics,
}

impl<B: Books> Topups<B> {
    /// `secret` is the database's: payments are told apart by what is hashed with it.
    pub fn new(store: B, offers: Offers, facilitators: Arc<Facilitators>, cipher: Cipher, secret: [u8; 16], metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            inference: Inference::new(&offers.config, secret),
            store,
            offers,
            facilitators,
            cipher,
            secret,
            metrics,
        })
    }

    /// What can be bought.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Who settles.
    pub fn facilitators(&self) -> &Facilitators {
        &self.facilitators
    }

    /// The books.
    pub fn books(&self) -> &B {
        &self.store
    }

    /// Credits a payment once, and says so as often as it is sent.
    ///
    /// # Errors
    ///
    /// [`TopupError`]: worth a 503, and the same payment again.
    pub async fn pay(self: &Arc<Self>, paying: &Paying<'_>) -> Result<Outcome, TopupError> {
        let outcome = self.take(paying).await;
        self.metrics.topup(outcome.as_ref().map_or("interrupted", Outcome::name));
        outcome
    }

    async fn take(self: &Arc<Self>, paying: &Paying<'_>) -> Result<Outcome, TopupError> {
        let now = UnixSeconds(now_seconds());
        let offers: Vec<Offer> = paying.offers.iter().map(|priced| priced.offer.clone()).collect();
        let table = self.facilitators.table();
        let terms = |secret| Terms {
            offers: &offers,
            supported: &table,
            bounds: &self.offers.config.pre_check,
            resource: paying.resource.url,
            secret,
            payers: None,
            now,
            grace: GRACE,
        };
        // As a fleet hashes its claims: the same payment without a key is known by the same name.
        let mut approved = match pre_check(paying.payment, &terms(&SHARED_SECRET)) {
            Ok(approved) => approved,
            Err(refused) => {
                return Ok(Outcome::Refused {
                    refusal: refused.refusal,
                    reason: None,
                    detail: refused.detail,
                });
            }
        };
        let claim = hex::encode(approved.claim.as_bytes());
        // As it was hashed before: a database may hold top-ups of that time.
        let before = pre_check(paying.payment, &terms(&self.secret)).map(|approved| hex::encode(approved.claim.as_bytes()));
        for claim in [Some(&claim), before.as_ref().ok()].into_iter().flatten() {
            if let Some(topup) = self.claimed(claim, &approved, paying.payment).await? {
                return self.again(topup, paying).await;
            }
        }
        let skew = self.offers.config.pre_check.clock_skew;
        if approved.expiry.0.saturating_sub(skew) <= now.0.saturating_add(skew) {
            return Ok(Outcome::refused(Refusal::ValidBefore));
        }
        let Some(priced) = paying.offers.get(approved.offer) else {
            return Ok(Outcome::refused(Refusal::NoMatchingRequirements));
        };
        if let Some(refused) = self.verify(&mut approved, &priced.offer, paying).await {
            // What was paid for already is refused there as used, or as too much for the balance.
            return match self.claimed(&claim, &approved, paying.payment).await? {
                Some(topup) => self.again(topup, paying).await,
                None => Ok(refused),
            };
        }
        self.begin(&approved, priced, claim, paying).await
    }

    /// The top-up that has a payment's claim, for whoever holds the payment: its payer's signature was recovered, or it is that very payment.
    /// A made-up signature of a smart wallet must not tell of another's payments; it is verified first.
    async fn claimed(&self, claim: &str, approved: &Approved, payment: &Payment) -> Result<Option<Topup>, TopupError> {
        let topup = self.store.topup_by_claim(claim).await.map_err(books)?;
        Ok(topup.filter(|topup| {
            let sending = topup
                .requirements
                .as_deref()
                .and_then(|text| serde_json::from_str::<Sending>(text).ok());
            approved.claiming == Claiming::AtOnce || sending.is_some_and(|sending| sending.identity == self.identity(payment))
        }))
    }

    /// What tells a payment from another one of its nonce, hashed: it holds a signature.
    fn identity(&self, payment: &Payment) -> String {
        hex::encode(Sha256::new().chain_update(self.secret).chain_update(payment.signed()).finalize())
    }

    /// `None`: a facilitator found it good, and `approved.ready` names it.
    async fn verify(&self, approved: &mut Approved, offer: &Offer, paying: &Paying<'_>) -> Option<Outcome> {
        let table = self.facilitators.table();
        loop {
            let Some(body) = self.body(approved, offer, paying) else {
                return Some(Outcome::refused(Refusal::TransferMethodNotOffered));
            };
            let why = match self.facilitators.verify(approved.ready.facilitator, body).await {
                Reply::Answered { status, body } => match parse_verify(status, &body) {
                    Verify::Valid { payer } => {
                        if let (true, Some(payer)) = (approved.payer.is_empty(), payer) {
                            approved.payer = payer;
                        }
                        return None;
                    }
                    Verify::Refused { reason, refusal } => {
                        return Some(Outcome::Refused {
                            refusal,
                            reason: Some(reason),
                            detail: String::new(),
                        });
                    }
                    Verify::Unusable { why } => why,
                },
                Reply::NotSent => "it cannot be reached".to_owned(),
                Reply::Lost => "it did not answer".to_owned(),
            };
            tracing::warn!(facilitator = approved.ready.facilitator, why, "no verdict of /verify");
            match table.next(offer, &approved.ready) {
                Some(ready) => approved.ready = ready,
                None => return Some(Outcome::refused(Refusal::FacilitatorUnavailable)),
            }
        }
    }

    fn body(&self, approved: &Approved, offer: &Offer, paying: &Paying<'_>) -> Option<Vec<u8>> {
        let payable = Payable {
            offer,
            facts: approved.ready.facts(),
        };
        let speaks = self.facilitators.speaks(&approved.ready, offer);
        verify_or_settle_body(paying.payment, &payable, &paying.resource, offer.amount, speaks).ok()
    }

    /// Writes down what is about to be settled, and settles it.
    async fn begin(
        self: &Arc<Self>,
        approved: &Approved,
        priced: &Priced,
        claim: String,
        paying: &Paying<'_>,
    ) -> Result<Outcome, TopupError> {
        let offer = &priced.offer;
        let facilitator = self.facilitators.name(approved.ready.facilitator);
        let (Some(body), Some(facilitator)) = (self.body(approved, offer, paying), facilitator) else {
            return Ok(Outcome::refused(Refusal::TransferMethodNotOffered));
        };
        let id = self.intent(approved, priced.amount, paying).await?;
        let sending = Sending {
            facilitator,
            network: offer.asset.network.as_str().to_owned(),
            currency: offer.asset.currency.to_string(),
            millionths: never_less(offer.amount, offer.asset.decimals),
            identity: self.identity(paying.payment),
        };
        let begin = Begin {
            payload: self.cipher.seal(&id, &body)?,
            requirements: serde_json::to_string(&sending).unwrap_or_default(),
            network: sending.network.clone(),
            payer: approved.payer.clone(),
            lease_until: self.lease(approved.ready.facilitator),
            expires_at: milliseconds(approved.expiry),
            claim,
        };
        match self.store.begin_settlement(&id, &begin, now_ms()).await.map_err(books)? {
            Begun::Yes => {}
            Begun::Held => return Ok(Outcome::InUse),
            Begun::Spent => return Ok(Outcome::refused(Refusal::NonceAlreadyUsed)),
            // Somebody was faster, with this payment or with this intent.
            Begun::Not => {
                return match (self.store.topup_by_claim(&begin.claim).await.map_err(books)?, paying.intent) {
                    (Some(topup), _) => self.again(topup, paying).await,
                    (None, Intent::Open) => {
                        let own = Paying {
                            intent: Intent::New,
                            ..*paying
                        };
                        Box::pin(self.begin(approved, priced, begin.claim, &own)).await
                    }
                    (None, Intent::New | Intent::Named(_)) => Ok(Outcome::InUse),
                };
            }
        }
        let settled = self.clone().spawn(id.clone(), sending, body, None).await?;
        self.told(&id, settled, paying.payment.dialect).await
    }

    /// The id of what is paid.
    async fn intent(&self, approved: &Approved, amount: i64, paying: &Paying<'_>) -> Result<String, TopupError> {
        let now = now_ms();
        let open = match paying.intent {
            Intent::Named(id) => Some(id.to_owned()),
            Intent::Open => self.store.open_topup(paying.tenant, amount, now).await.map_err(books)?,
            Intent::New => None,
        };
        if let Some(id) = open {
            return Ok(id);
        }
        let topup = NewTopup {
            id: new_id()?,
            tenant: paying.tenant.to_owned(),
            amount,
            source: Source::Request,
            resource: paying.resource.url.to_owned(),
            expires_at: milliseconds(approved.expiry),
        };
        self.store.create_topup(&topup, now).await.map_err(books)?;
        Ok(topup.id)
    }

    /// The same payment, or another one with its nonce, once more.
    async fn again(self: &Arc<Self>, mut topup: Topup, paying: &Paying<'_>) -> Result<Outcome, TopupError> {
        if topup.tenant != paying.tenant {
            return Ok(Outcome::refused(Refusal::NonceAlreadyUsed));
        }
        let patience = tokio::time::Instant::now().checked_add(PATIENCE);
        loop {
            let lapsed = topup.lease_until.is_none_or(|until| until <= now_ms());
            match topup.state {
                State::Settled | State::Failed => return self.told(&topup.id, None, paying.payment.dialect).await,
                State::Processing if !lapsed => {}
                State::Unknown | State::Processing => {
                    let id = topup.id.clone();
                    let settled = self.resume(topup).await?;
                    return self.told(&id, settled, paying.payment.dialect).await;
                }
                State::Created => return Ok(Outcome::InUse),
            }
            if patience.is_none_or(|until| tokio::time::Instant::now() >= until) {
                return Ok(Outcome::InUse);
            }
            tokio::time::sleep(LOOK).await;
            let id = topup.id;
            topup = match self.store.topup(&id).await.map_err(books)? {
                Some(topup) => topup,
                None => return Ok(Outcome::InUse),
            };
        }
    }

    /// What the books say of a top-up, to its payer.
    async fn told(&self, id: &str, refused: Option<(Refusal, String)>, dialect: Dialect) -> Result<Outcome, TopupError> {
        let Some(topup) = self.store.topup(id).await.map_err(books)? else {
            return Ok(Outcome::Pending);
        };
        Ok(match (topup.state, refused) {
            (State::Settled, _) => {
                let network = Network::parse(topup.network.as_deref().unwrap_or_default()).ok();
                let Some(network) = network else { return Ok(Outcome::Pending) };
                let receipt = Receipt {
                    network: &network,
                    payer: topup.payer.as_deref().filter(|payer| !payer.is_empty()),
                    transaction: topup.transaction.as_deref().unwrap_or_default(),
                    amount: None,
                    error: None,
                };
                let receipt = receipt.header(dialect);
                Outcome::Credited {
                    topup: Box::new(topup),
                    receipt,
                }
            }
            (State::Failed, Some((refusal, reason))) => Outcome::Refused {
                refusal,
                reason: Some(reason).filter(|reason| !reason.is_empty()),
                detail: String::new(),
            },
            // Its claim is kept: the nonce is somebody else's work, or a transaction of it has failed.
            (State::Failed, None) => Outcome::refused(Refusal::NonceAlreadyUsed),
            (State::Created | State::Processing | State::Unknown, _) => Outcome::Pending,
        })
    }

    /// Takes an unknown settlement up, or one whose settler is gone. `None`: settled, or not known yet, or not ours to settle now.
    ///
    /// # Errors
    ///
    /// [`TopupError`] where the books or the payload cannot be read: it stays as it is.
    pub async fn resume(self: &Arc<Self>, topup: Topup) -> Result<Option<(Refusal, String)>, TopupError> {
        let sending: Option<Sending> = topup.requirements.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let (Some(sending), Some(sealed)) = (sending, topup.payload.as_deref()) else {
            return Ok(None);
        };
        let lease = self.facilitators.by_name(&sending.facilitator).map(|index| self.lease(index));
        let lease = lease.unwrap_or_else(|| now_ms().saturating_add(LEASE_MARGIN_MS));
        if !self.store.resume_settlement(&topup.id, lease, now_ms()).await.map_err(books)? {
            return Ok(None);
        }
        let doubt = Doubt {
            attempts: topup.attempts,
            payer: topup.payer.clone().unwrap_or_default(),
        };
        match self.cipher.open(&topup.id, sealed) {
            Ok(body) => self.clone().spawn(topup.id, sending, body, Some(doubt)).await,
            Err(error) => {
                // With the right key it can be taken up again.
                let next = now_ms().saturating_add(LONGEST_RETRY_MS);
                self.store.unknown_topup(&topup.id, next, now_ms()).await.map_err(books)?;
                Err(error.into())
            }
        }
    }

    /// A task of its own: a client that leaves ends its request, never a settlement.
    async fn spawn(
        self: Arc<Self>,
        id: String,
        sending: Sending,
        body: Vec<u8>,
        doubt: Option<Doubt>,
    ) -> Result<Option<(Refusal, String)>, TopupError> {
        let task = tokio::spawn(async move { self.settle(&id, &sending, body, doubt).await });
        task.await.map_err(|_| TopupError::Interrupted)?
    }

    /// The one call that moves money, and what its end means. Source: DESIGN §5.
    async fn settle(
        &self,
        id: &str,
        sending: &Sending,
        body: Vec<u8>,
        doubt: Option<Doubt>,
    ) -> Result<Option<(Refusal, String)>, TopupError> {
        let unknown = |why: &str| Settle::Unknown {
            why: why.to_owned(),
            transaction: None,
        };
        let network = Network::parse(&sending.network).ok();
        // Never another one: it would settle what this one may have settled.
        let reply = match self.facilitators.by_name(&sending.facilitator) {
            Some(index) => Some(self.facilitators.settle(index, body).await),
            None => None,
        };
        let outcome = match (reply, network) {
            (Some(Reply::Answered { status, body }), Some(network)) => parse_settle(status, &body, &network, false),
            (Some(Reply::NotSent), _) if doubt.is_none() => return self.failed(id, Refusal::FacilitatorUnavailable, "", false).await,
            (Some(Reply::NotSent), _) => unknown("it cannot be reached"),
            (Some(Reply::Lost), _) => unknown("it did not answer"),
            (Some(Reply::Answered { .. }), None) => unknown("its network is not known"),
            (None, _) => unknown("it is not configured any more"),
        };
        match (outcome, doubt) {
            (Settle::Settled(settled), _) => {
                self.credited(id, sending, settled.transaction, settled.payer).await?;
                Ok(None)
            }
            // What was sent before may have gone through: then the balance is gone because it was.
            (Settle::Refused { reason, .. }, Some(doubt)) => self.unknown(id, &reason, doubt.attempts).await,
            (
                Settle::Refused {
                    reason,
                    refusal,
                    transaction,
                },
                None,
            ) => {
                // A transaction that failed will fail again, and the facilitator has paid for it.
                self.failed(id, refusal, &reason, transaction.is_some()).await
            }
            (Settle::NonceUsed { reason, .. }, Some(doubt))
                if !self.inference.infers(&sending.currency, sending.millionths, &doubt.payer) =>
            {
                self.unknown(id, &reason, doubt.attempts).await
            }
            (Settle::NonceUsed { .. }, Some(_)) => {
                tracing::warn!(id, "taken for settled: its nonce is used after an attempt without an answer");
                self.credited(id, sending, String::new(), None).await?;
                Ok(None)
            }
            // Our first attempt, answered: somebody else has spent it.
            (Settle::NonceUsed { reason, .. }, None) => self.failed(id, Refusal::NonceAlreadyUsed, &reason, true).await,
            (Settle::Unknown { why, .. }, doubt) => self.unknown(id, &why, doubt.map_or(0, |doubt| doubt.attempts)).await,
        }
    }

    async fn credited(&self, id: &str, sending: &Sending, transaction: String, payer: Option<String>) -> Result<(), TopupError> {
        let payer = match payer {
            Some(payer) => payer,
            None => {
                let topup = self.store.topup(id).await.map_err(books)?;
                topup.and_then(|topup| topup.payer).unwrap_or_default()
            }
        };
        let receipt = TopupReceipt {
            transaction,
            network: sending.network.clone(),
            payer,
        };
        let mut tries = 0;
        loop {
            match self.store.settle_topup(id, &receipt, now_ms()).await {
                Ok(is_new) => {
                    if is_new {
                        let Sending { network, .. } = sending;
                        tracing::info!(id, network, transaction = receipt.transaction, "topped up");
                    }
                    return Ok(());
                }
                Err(error) if tries >= WRITES => return Err(books(error)),
                Err(_) => tries = tries.saturating_add(1),
            }
            tokio::time::sleep(LOOK.saturating_mul(tries)).await;
        }
    }

    async fn failed(&self, id: &str, refusal: Refusal, reason: &str, used_up: bool) -> Result<Option<(Refusal, String)>, TopupError> {
        let error = if reason.is_empty() { refusal.row().reason } else { reason };
        self.store.fail_topup(id, error, used_up, now_ms()).await.map_err(books)?;
        Ok(Some((refusal, reason.to_owned())))
    }

    async fn unknown(&self, id: &str, why: &str, attempts: i64) -> Result<Option<(Refusal, String)>, TopupError> {
        tracing::warn!(id, why, attempts, "a settlement's outcome is not known");
        let next = now_ms().saturating_add(back_off(attempts));
        self.store.unknown_topup(id, next, now_ms()).await.map_err(books)?;
        Ok(None)
    }

    fn lease(&self, facilitator: usize) -> i64 {
        let timeout = self.facilitators.settle_timeout_ms(facilitator);
        now_ms().saturating_add(timeout).saturating_add(LEASE_MARGIN_MS)
    }
}

fn milliseconds(at: UnixSeconds) -> i64 {
    i64::try_from(at.0.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// That a settlement was sent before, and how often.
struct Doubt {
    attempts: i64,
    payer: String,
}

/// How long an unknown settlement waits for its next attempt, in milliseconds: a second, twice as long each time, at most an hour.
pub(super) fn back_off(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts.max(0)).unwrap_or(u32::MAX).min(20);
    FIRST_RETRY_MS
        .saturating_mul(1i64.checked_shl(doublings).unwrap_or(i64::MAX))
        .min(LONGEST_RETRY_MS)
}

/// An id for a top-up: `pi_` and 32 hexadecimal digits.
///
/// # Errors
///
/// [`CipherError::Random`].
pub fn new_id() -> Result<String, CipherError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| CipherError::Random)?;
    Ok(format!("pi_{}", hex::encode(bytes)))
}

/// The time in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_grow_apart_up_to_an_hour() {
        assert_eq!(
            [0, 1, 2, 11, 12, 63, i64::MAX].map(back_off),
            [1_000, 2_000, 4_000, 2_048_000, 3_600_000, 3_600_000, 3_600_000]
        );
    }
}
