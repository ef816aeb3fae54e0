//! Claims of a fleet: the ledger stands before a facilitator, and lets one request at a time have a payment.
//!
//! Envoy calls `/verify` and `/settle` here, with the name of the request that holds the payment. What is about to be settled is durable
//! before the facilitator hears of it, so that a crash at any point leaves a claim that is released, or a settlement that is sent again to
//! the same facilitator until its outcome is certain. Answers are passed on as they came, for whoever asks reads them best.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x402_envoy::config::Config;
use x402_envoy::x402::Network;
use x402_envoy::x402::facilitator::{Settle, Settled, Verify, parse_settle, parse_verify};

use super::cipher::Cipher;
use super::facilitator::{Facilitators, Reply};
use super::inference::Inference;
use super::topup::{TopupError, back_off, now_ms};
use crate::metrics::Metrics;
use crate::store::{Ended, Intent, NewIntent, Stage, Store};

/// How much longer than its call a settlement's lease lasts, in milliseconds.
const LEASE_MARGIN_MS: i64 = 30_000;
/// How often a change of the database is tried, and the time from one try to the next.
const WRITES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// When it is looked again at what nothing can be done for, in milliseconds.
const LATER_MS: i64 = 3_600_000;

/// What stands for the transaction of a settlement that was inferred.
const INFERRED: &str = "inferred";

/// What Envoy says of the request that holds a payment, in `X-X402-Intent`.
///
/// ```text
/// 9f0c…32 hexadecimal digits;claim=…32 hexadecimal digits;until=1790000000[;delivered|;late]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The request's name.
    pub id: String,
    /// What can be spent once.
    pub claim: String,
    /// When the payment runs out, in Unix seconds.
    pub until: i64,
    /// Whether what it pays for has been had.
    pub delivered: bool,
    /// The payment has run out: it can be had for what it has paid for already, and for nothing else.
    pub late: bool,
}

impl Holder {
    /// Reads the header.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut parts = text.split(';');
        let id = parts.next().filter(|id| is_hex(id))?.to_owned();
        let claim = parts.next()?.strip_prefix("claim=").filter(|claim| is_hex(claim))?.to_owned();
        let until = parts
            .next()?
            .strip_prefix("until=")?
            .parse::<i64>()
            .ok()
            .filter(|until| *until >= 0)?;
        let (delivered, late) = match parts.next() {
            None => (false, false),
            Some("delivered") => (true, false),
            Some("late") => (false, true),
            Some(_) => return None,
        };
        parts.next().is_none().then_some(Self {
            id,
            claim,
            until,
            delivered,
            late,
        })
    }
}

/// What Envoy gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, as facilitators write it.
    pub body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into_bytes(),
        }
    }

    /// The caller's mistake.
    fn unreadable() -> Self {
        Self::json(
            400,
            &json!({"error": "the body has to have paymentPayload and paymentRequirements"}),
        )
    }

    /// No verdict and no outcome.
    fn none(why: &str) -> Self {
        Self::json(503, &json!({"error": why}))
    }
}

/// Why a payment cannot be had, by the reasons that the filter knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    InUse,
    Pending,
    Spent,
    Expired,
}

impl Taken {
    fn reason(self) -> &'static str {
        match self {
            Self::InUse => "ledger_payment_in_use",
            Self::Pending => "ledger_payment_pending",
            Self::Spent => "nonce_already_used",
            Self::Expired => "invalid_exact_evm_payload_authorization_valid_before",
        }
    }
}

/// The state machine.
pub struct Claims {
    store: Store,
    facilitators: Arc<Facilitators>,
    cipher: Cipher,
    metrics: Metrics,
    /// How long a request that nothing is heard of keeps its payment, in milliseconds.
    lease_ms: i64,
    inference: Inference,
}

/// What a body says of the payment.
struct Facts {
    network: String,
    scheme: String,
    payer: String,
    amount: String,
    asset: String,
    /// What was signed, hashed.
    identity: String,
}

impl Facts {
    fn of(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let required = body.get("paymentRequirements")?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let payload = body.get("paymentPayload")?.get("payload");
        let signed = payload.and_then(|payload| payload.get("authorization").or_else(|| payload.get("permit2Authorization")));
        let what = payload.map(ToString::to_string).unwrap_or_default();
        Some(Self {
            identity: hex::encode(Sha256::digest(what)),
            network: text(required.get("network")),
            asset: text(required.get("asset")),
            scheme: text(required.get("scheme")),
            payer: text(signed.and_then(|signed| signed.get("from"))),
            amount: text(required.get("amount").or_else(|| required.get("maxAmountRequired"))),
        })
    }
}

impl Claims {
    /// See the module.
    pub fn new(
        store: Store,
        facilitators: Arc<Facilitators>,
        config: &Config,
        (cipher, secret): (Cipher, [u8; 16]),
        metrics: Metrics,
        lease_ms: i64,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            facilitators,
            cipher,
            metrics,
            lease_ms,
            inference: Inference::new(config, secret),
        })
    }

    fn lease(&self) -> i64 {
        now_ms().saturating_add(self.lease_ms)
    }

    /// Takes the claim, and asks the facilitator.
    ///
    /// # Errors
    ///
    /// [`TopupError`]: nobody was asked.
    pub async fn verify(self: &Arc<Self>, facilitator: usize, holder: &Holder, body: Vec<u8>) -> Result<Answer, TopupError> {
        let refused = |taken: Taken| Answer::json(200, &json!({"isValid": false, "invalidReason": taken.reason()}));
        let Some(facts) = Facts::of(&body) else {
            return Ok(Answer::unreadable());
        };
        match self.hold(facilitator, holder, &facts, &body).await? {
            Ok(()) => {}
            Err(Taken::Pending) => {
                // Whoever asks is as good as the sweeper, and waits for it.
                if let Some(intent) = self.store.intent(&holder.claim).await? {
                    self.resume(intent).await?;
                }
                match self.taken(holder, &facts).await? {
                    // Paid, by a request that is gone: this one may have what it paid for.
                    Ok(intent) if intent.stage == Stage::Settled => {
                        self.metrics.claim("taken_over");
                        return Ok(Answer::json(200, &json!({"isValid": true, "payer": intent.payer})));
                    }
                    Ok(_) => {
                        // Nor does this one wait for it: whoever comes next may find it settled.
                        self.store.leave_intent(&holder.id).await?;
                        return Ok(refused(Taken::Pending));
                    }
                    Err(taken) => {
                        self.metrics.claim(taken.reason());
                        return Ok(refused(taken));
                    }
                }
            }
            Err(taken) => {
                self.metrics.claim(taken.reason());
                return Ok(refused(taken));
            }
        }
        let (status, answer) = match self.facilitators.verify(facilitator, body).await {
            Reply::Answered { status, body } => (status, body),
            Reply::NotSent => return Ok(Answer::none("the facilitator cannot be reached")),
            Reply::Lost => return Ok(Answer::none("the facilitator did not answer")),
        };
        match parse_verify(status, &answer) {
            Verify::Valid { .. } => self.metrics.claim("held"),
            Verify::Refused { .. } => {
                self.metrics.claim("refused");
                self.store.release_intent(&holder.id, now_ms()).await?;
            }
            // Another one may be asked in the name of the same request.
            Verify::Unusable { .. } => self.metrics.claim("no_verdict"),
        }
        Ok(Answer { status, body: answer })
    }

    async fn hold(&self, facilitator: usize, holder: &Holder, facts: &Facts, body: &[u8]) -> Result<Result<(), Taken>, TopupError> {
        let payload = self.cipher.seal(&holder.claim, body)?;
        let new = NewIntent {
            claim: &holder.claim,
            holder: &holder.id,
            facilitator: &self.facilitators.name(facilitator).unwrap_or_default(),
            identity: &facts.identity,
            network: &facts.network,
            scheme: &facts.scheme,
            payer: &facts.payer,
            amount: &facts.amount,
            payload: &payload,
            lease_until: self.lease(),
            expires_at: holder.until.saturating_mul(1000),
        };
        if self.store.hold_intent(&new, now_ms()).await? {
            // Its last word may have come before: nobody would be there to give back what it holds.
            if self.store.has_ended(&holder.id).await? {
                self.store.release_intent(&holder.id, now_ms()).await?;
                return Ok(Err(Taken::InUse));
            }
            return Ok(Ok(()));
        }
        Ok(match self.taken(holder, facts).await? {
            Ok(intent) if intent.stage == Stage::Held => Ok(()),
            // It is this request's, and its settlement has begun.
            Ok(_) => Err(Taken::Pending),
            Err(taken) => Err(taken),
        })
    }

    /// The claim, if it is this request's, also by taking it over from one that is gone; or why it cannot be had.
    async fn taken(&self, holder: &Holder, facts: &Facts) -> Result<Result<Intent, Taken>, TopupError> {
        let (lease, by) = (self.lease(), (&*holder.id, &*facts.identity));
        let took = self.store.take_over_intent(&holder.claim, by, lease, now_ms()).await?;
        if took && self.store.has_ended(&holder.id).await? {
            self.store.leave_intent(&holder.id).await?;
            return Ok(Err(Taken::InUse));
        }
        let Some(intent) = self.store.intent(&holder.claim).await? else {
            return Ok(Err(Taken::InUse));
        };
        if intent.holder == holder.id && matches!(intent.stage, Stage::Held | Stage::Unknown | Stage::Settled) {
            return Ok(Ok(intent));
        }
        Ok(Err(match intent.stage {
            Stage::Settling if intent.holder == holder.id => Taken::Pending,
            Stage::Held | Stage::Settling | Stage::Released => Taken::InUse,
            Stage::Unknown => Taken::Pending,
            // Its holder may still be delivering. Not what another payment, which spends the same, has paid for.
            Stage::Settled if !intent.delivered && intent.identity == facts.identity => Taken::InUse,
            Stage::Settled | Stage::Failed => Taken::Spent,
        }))
    }

    /// Why a payment that has run out is good for nothing: its settlement was not sent. It takes no claim.
    async fn too_late(&self, holder: &Holder) -> Result<Option<Taken>, TopupError> {
        Ok(match self.store.intent(&holder.claim).await? {
            Some(intent) if intent.stage == Stage::Held && intent.lease_until > now_ms() => Some(Taken::InUse),
            None => Some(Taken::Expired),
            Some(intent) => matches!(intent.stage, Stage::Held | Stage::Released).then_some(Taken::Expired),
        })
    }

    /// Settles for the request that holds the claim, once; the receipt is given back as often as that request asks.
    ///
    /// # Errors
    ///
    /// [`TopupError`]: nothing was sent.
    pub async fn settle(self: &Arc<Self>, facilitator: usize, holder: &Holder, body: Vec<u8>) -> Result<Answer, TopupError> {
        let Some(facts) = Facts::of(&body) else {
            return Ok(Answer::unreadable());
        };
        let refused = |taken: Taken| {
            let body = json!({"success": false, "errorReason": taken.reason(), "transaction": "", "network": facts.network});
            Answer::json(200, &body)
        };
        if holder.late {
            if let Some(taken) = self.too_late(holder).await? {
                return Ok(refused(taken));
            }
        } else if let Err(taken @ (Taken::InUse | Taken::Spent)) = self.hold(facilitator, holder, &facts, &body).await? {
            // Where nothing is verified first, it was not held yet.
            return Ok(refused(taken));
        }
        let intent = match self.taken(holder, &facts).await? {
            Ok(intent) => intent,
            Err(Taken::Pending) => return Ok(Answer::none("the payment is being settled")),
            Err(taken) => return Ok(refused(taken)),
        };
        if intent.stage == Stage::Settled {
            self.metrics.claim("settled_again");
            return Ok(Answer {
                status: 200,
                body: intent.answer.into_bytes(),
            });
        }
        // What was sent before is sent again, whatever the amount is now: it may have been settled.
        let (sealed, amount, is_first) = if intent.attempts == 0 {
            (self.cipher.seal(&holder.claim, &body)?, facts.amount.clone(), true)
        } else {
            (intent.payload.clone(), intent.amount.clone(), false)
        };
        let sent = if is_first {
            body.clone()
        } else {
            self.cipher.open(&intent.claim, &sealed)?
        };
        // Never another one than the one that may have settled it.
        let facilitator = if is_first {
            Some(facilitator)
        } else {
            self.facilitators.by_name(&intent.facilitator)
        };
        let Some(facilitator) = facilitator else {
            return Ok(Answer::none("the facilitator is not configured any more"));
        };
        let lease = self.settle_lease(facilitator);
        let begun = self
            .store
            .begin_intent(
                &holder.claim,
                &holder.id,
                (&sealed, &amount),
                holder.delivered,
                (intent.attempts, lease),
            )
            .await?;
        if !begun {
            return Ok(Answer::none("the payment is being settled"));
        }
        let attempts = intent.attempts;
        // It is the request's for as long as an answer may take.
        let lease_ms = self.lease_ms;
        self.clone()
            .spawn(holder.claim.clone(), facilitator, sent, attempts, lease_ms)
            .await
    }

    fn settle_lease(&self, facilitator: usize) -> i64 {
        let timeout = self.facilitators.settle_timeout_ms(facilitator);
        now_ms().saturating_add(timeout).saturating_add(LEASE_MARGIN_MS)
    }

    /// A task of its own: an Envoy that is gone ends its request, never a settlement.
    async fn spawn(
        self: Arc<Self>,
        claim: String,
        facilitator: usize,
        body: Vec<u8>,
        attempts: i64,
        lease_ms: i64,
    ) -> Result<Answer, TopupError> {
        let task = tokio::spawn(async move { self.send(&claim, facilitator, body, attempts, lease_ms).await });
        task.await.map_err(|_| TopupError::Interrupted)?
    }

    /// The one call that moves money, and what its end means. Source: DESIGN §5.
    /// `lease_ms`: for how long whoever asked keeps it then.
    async fn send(&self, claim: &str, facilitator: usize, body: Vec<u8>, attempts: i64, lease_ms: i64) -> Result<Answer, TopupError> {
        let lease = || now_ms().saturating_add(lease_ms);
        let facts = Facts::of(&body);
        let network = facts
            .as_ref()
            .and_then(|facts| Network::parse(&facts.network).or_else(|_| Network::parse_v1(&facts.network)).ok());
        let reply = self.facilitators.settle(facilitator, body).await;
        let unknown = |why: &str| Settle::Unknown {
            why: why.to_owned(),
            transaction: None,
        };
        let (outcome, answer) = match (reply, network) {
            (Reply::Answered { status, body }, Some(network)) => match (parse_settle(status, &body, &network, false), facts) {
                (Settle::NonceUsed { .. }, Some(facts))
                    if attempts > 0 && self.inference.infers_of(&network, &facts.asset, &facts.amount, &facts.payer) =>
                {
                    tracing::warn!(claim, "taken for settled: its nonce is used after an attempt without an answer");
                    inferred(&facts)
                }
                (outcome, _) => (outcome, Answer { status, body }),
            },
            (Reply::Answered { .. }, None) => (unknown("its network is not known"), Answer::none("the network is not known")),
            (Reply::NotSent, _) if attempts == 0 => {
                let delivered = self.store.intent(claim).await?.is_some_and(|intent| intent.delivered);
                let next = now_ms().saturating_add(back_off(attempts));
                let ended = if delivered {
                    Ended::Unknown("it cannot be reached", next)
                } else {
                    Ended::NotSent
                };
                self.end(claim, attempts, ended, lease()).await?;
                return Ok(Answer::none("the facilitator cannot be reached"));
            }
            (Reply::NotSent, _) => (unknown("it cannot be reached"), Answer::none("the facilitator cannot be reached")),
            (Reply::Lost, _) => (unknown("it did not answer"), Answer::none("the facilitator did not answer")),
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let next = now_ms().saturating_add(back_off(attempts));
        let (ended, word) = match &outcome {
            Settle::Settled(settled) => (
                Ended::Settled {
                    answer: &text,
                    transaction: &settled.transaction,
                    payer: settled.payer.as_deref().unwrap_or_default(),
                },
                "settled",
            ),
            // What was sent before may have gone through: then the balance is gone because it was.
            Settle::Refused { reason, .. } | Settle::NonceUsed { reason, .. } if attempts > 0 => (Ended::Unknown(reason, next), "unknown"),
            Settle::Refused {
                reason, transaction: None, ..
            } if !self.store.intent(claim).await?.is_some_and(|intent| intent.delivered) => (Ended::Refused(reason), "refused"),
            // What it pays for has been had, so that it buys nothing else.
            // A transaction that failed will fail again; a nonce that is used is somebody else's work.
            Settle::Refused { reason, .. } | Settle::NonceUsed { reason, .. } => (Ended::UsedUp(reason), "refused"),
            Settle::Unknown { why, .. } => (Ended::Unknown(why, next), "unknown"),
        };
        if let Ended::Unknown(why, _) = ended {
            tracing::warn!(claim, why, attempts, "a settlement's outcome is not known");
        }
        if !self.end(claim, attempts, ended, lease()).await? {
            // It took longer than its lease, and somebody else has taken it up, who may have the answer too. That it is paid is worth knowing.
            if let Ended::Settled { transaction, .. } = ended {
                let recorded = self
                    .store
                    .settle_late_intent(claim, attempts.saturating_add(1), ended, now_ms())
                    .await?;
                tracing::warn!(claim, transaction, recorded, "a settlement has ended after its lease");
                if recorded {
                    self.metrics.settlement(word);
                }
            }
            return Ok(Answer::none("the settlement was taken up by another one"));
        }
        self.metrics.settlement(word);
        Ok(match (&outcome, ended) {
            // Certain of this attempt alone. Whoever asks may not know of another one, and must not be told to pay again.
            (Settle::Refused { .. } | Settle::NonceUsed { .. }, Ended::Unknown(..)) => {
                Answer::none("an earlier attempt may have settled it")
            }
            _ => answer,
        })
    }

    /// An outcome that is not written down has to be asked for again, and may not be told again.
    /// Whether it still was this attempt's to tell.
    async fn end(&self, claim: &str, attempts: i64, ended: Ended<'_>, lease_until: i64) -> Result<bool, TopupError> {
        let mut tries = 0;
        loop {
            let attempt = attempts.saturating_add(1);
            match self.store.end_intent(claim, attempt, ended, lease_until, now_ms()).await {
                Ok(true) => return Ok(true),
                // Of a write whose acknowledgement was lost it is not known that it was done.
                Ok(false) => return Ok(tries > 0 && self.store.intent(claim).await?.is_some_and(|intent| ended.is_of(&intent, attempt))),
                Err(error) if tries >= WRITES => return Err(error.into()),
                Err(_) => tries = tries.saturating_add(1),
            }
            tokio::time::sleep(PAUSE.saturating_mul(tries)).await;
        }
    }

    /// Takes up what its holder has left, or could not end; what it was sent with is sent again.
    ///
    /// # Errors
    ///
    /// [`TopupError`]: it stays as it is.
    pub async fn resume(self: &Arc<Self>, intent: Intent) -> Result<(), TopupError> {
        if !matches!(intent.stage, Stage::Held | Stage::Settling | Stage::Unknown) {
            return Ok(());
        }
        let Some(facilitator) = self.facilitators.by_name(&intent.facilitator) else {
            tracing::warn!(
                claim = intent.claim,
                facilitator = intent.facilitator,
                "its facilitator is not configured any more"
            );
            self.postpone(&intent).await?;
            return Ok(());
        };
        let mut body = match self.cipher.open(&intent.claim, &intent.payload) {
            Ok(body) => body,
            Err(error) => {
                // With the right key it can be taken up again.
                self.postpone(&intent).await?;
                return Err(error.into());
            }
        };
        let (mut payload, mut amount) = (intent.payload.clone(), intent.amount.clone());
        if let (Stage::Held, Some(used)) = (intent.stage, with_amount(&body, &intent)) {
            // Nothing was sent: what was delivered is due, of what was signed for.
            (payload, amount) = (self.cipher.seal(&intent.claim, &used)?, intent.used.clone());
            body = used;
        }
        let lease = self.settle_lease(facilitator);
        if !self.store.resume_intent(&intent, (&payload, &amount), lease, now_ms()).await? {
            return Ok(());
        }
        // Nobody waits for it.
        let attempts = intent.attempts;
        self.clone().spawn(intent.claim, facilitator, body, attempts, 0).await?;
        Ok(())
    }

    async fn postpone(&self, intent: &Intent) -> Result<(), TopupError> {
        let now = now_ms();
        Ok(self.store.postpone_intent(&intent.claim, now.saturating_add(LATER_MS), now).await?)
    }

    /// Settles what is due, and gives back what is not.
    ///
    /// # Errors
    ///
    /// [`TopupError`] where what is due cannot be read.
    pub async fn sweep(self: &Arc<Self>, batch: i64) -> Result<usize, TopupError> {
        let lapsed = self.store.lapse_intents(now_ms()).await?;
        if lapsed > 0 {
            self.metrics.lapsed_claims(lapsed);
            tracing::warn!(lapsed, "payments that nothing was heard of in time were given back");
        }
        let due = self.store.due_intents(now_ms(), batch).await?;
        let count = due.len();
        for intent in due {
            let claim = intent.claim.clone();
            if let Err(error) = self.resume(intent).await {
                tracing::warn!(claim, %error, "a settlement could not be taken up");
            }
        }
        Ok(count)
    }
}

/// A settlement that nothing proves.
fn inferred(facts: &Facts) -> (Settle, Answer) {
    let settled = Settled {
        transaction: INFERRED.to_owned(),
        payer: None,
        amount: None,
    };
    let body = json!({"success": true, "transaction": INFERRED, "network": facts.network, "payer": facts.payer});
    (Settle::Settled(settled), Answer::json(200, &body))
}

/// The same settlement, for what was used; `None` where the amount cannot be another one.
fn with_amount(body: &[u8], intent: &Intent) -> Option<Vec<u8>> {
    if intent.scheme != "upto" || intent.used.is_empty() {
        return None;
    }
    let mut body: Value = serde_json::from_slice(body).ok()?;
    let required = body.get_mut("paymentRequirements")?.as_object_mut()?;
    let name = if required.contains_key("amount") {
        "amount"
    } else {
        "maxAmountRequired"
    };
    required.insert(name.to_owned(), json!(intent.used));
    Some(body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read() {
        let (id, claim) = ("ab".repeat(16), "0f".repeat(16));
        let holder = Holder::parse(&format!("{id};claim={claim};until=1790000000")).unwrap();
        assert_eq!(
            (&*holder.id, &*holder.claim, holder.until, holder.delivered),
            (&*id, &*claim, 1_790_000_000, false)
        );
        assert!(Holder::parse(&format!("{id};claim={claim};until=1;delivered")).unwrap().delivered);
        for wrong in [
            String::new(),
            id.clone(),
            format!("{id};claim={claim}"),
            format!("{id};claim=x;until=1"),
            format!("x;claim={claim};until=1"),
            format!("{id};claim={claim};until=-1"),
            format!("{id};claim={claim};until=1;more"),
            format!("{id};claim={claim};until=1;delivered;"),
        ] {
            assert_eq!(Holder::parse(&wrong), None, "{wrong}");
        }
    }
}
