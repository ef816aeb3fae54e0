//! What the state machine of top-ups needs to be remembered, durably: each change is one database transaction.
//!
//! ```text
//! created ──begin──► processing ──settle──► settled (credited, once)
//!                      │    ▲ │ └───fail──► failed
//!                 unknown   │ │
//!                      ▼    │ ▼
//!                    unknown (resume: processing again, with a lease)
//! ```

use std::future::Future;

/// Where a top-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for, not paid.
    Created,
    /// Somebody is settling it, until its lease ends.
    Processing,
    /// Its settlement was sent, and nobody knows what came of it.
    Unknown,
    /// Paid and credited.
    Settled,
    /// Refused for certain.
    Failed,
}

/// Who asked for a top-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `POST /v1/billing/x402/fund`.
    Fund,
    /// A request on the data path.
    Request,
}

/// A top-up to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopup {
    /// `pi_…`
    pub id: String,
    /// Whom it is credited to.
    pub tenant: String,
    /// In micro-dollars.
    pub amount: i64,
    /// Who asked.
    pub source: Source,
    /// What the payment is made for, a URL.
    pub resource: String,
    /// When it can no longer be begun, in Unix milliseconds.
    pub expires_at: i64,
}

/// What is written before `/settle` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// What can be spent once, in hexadecimal; unique.
    pub claim: String,
    /// The body of `/settle`, sealed.
    pub payload: String,
    /// What is needed to send it again, as JSON; no secrets.
    pub requirements: String,
    /// CAIP-2.
    pub network: String,
    /// The account that pays; may be empty.
    pub payer: String,
    /// Until when nobody else may settle it, in Unix milliseconds.
    pub lease_until: i64,
    /// When the payment runs out, in Unix milliseconds.
    pub expires_at: i64,
}

/// Whether a settlement may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It may.
    Yes,
    /// The top-up is not `created` any more, or the claim is another's.
    Not,
    /// A request without a key has the payment, and may yet give it back.
    Held,
    /// A request without a key has spent it.
    Spent,
}

/// A top-up as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topup {
    /// `pi_…`
    pub id: String,
    /// Whom it is credited to.
    pub tenant: String,
    /// In micro-dollars.
    pub amount: i64,
    /// Where it is.
    pub state: State,
    /// The body of `/settle`, sealed; gone once the outcome is known.
    pub payload: Option<String>,
    /// See [`Begin::requirements`].
    pub requirements: Option<String>,
    /// What the payment is made for.
    pub resource: String,
    /// CAIP-2.
    pub network: Option<String>,
    /// The account that paid.
    pub payer: Option<String>,
    /// Transaction hash or signature; empty or `None` where it is not known.
    pub transaction: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// How often it was sent, or taken up.
    pub attempts: i64,
    /// Until when somebody is settling it, in Unix milliseconds.
    pub lease_until: Option<i64>,
}

/// A settlement that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopupReceipt {
    /// Transaction hash or signature; empty where it was inferred.
    pub transaction: String,
    /// CAIP-2.
    pub network: String,
    /// The account that paid; may be empty.
    pub payer: String,
}

/// The books.
pub trait Books: Send + Sync + 'static {
    /// Why they could not be read or written.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Records a top-up that was asked for.
    fn create_topup(&self, topup: &NewTopup, now_ms: i64) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// By id.
    fn topup(&self, id: &str) -> impl Future<Output = Result<Option<Topup>, Self::Error>> + Send;
    /// By what is spent once.
    fn topup_by_claim(&self, claim: &str) -> impl Future<Output = Result<Option<Topup>, Self::Error>> + Send;
    /// The newest top-up that a tenant asked for by [`Source::Fund`], of this amount, which can still be begun; its id.
    fn open_topup(&self, tenant: &str, amount: i64, now_ms: i64) -> impl Future<Output = Result<Option<String>, Self::Error>> + Send;
    /// created → processing. The claim is taken from requests without a key too, until the top-up has ended.
    fn begin_settlement(&self, id: &str, begin: &Begin, now_ms: i64) -> impl Future<Output = Result<Begun, Self::Error>> + Send;
    /// unknown, or processing with a lapsed lease → processing, with one more attempt. False: somebody else has it, or it has ended.
    fn resume_settlement(&self, id: &str, lease_until: i64, now_ms: i64) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// → settled, from whatever other state, with the credit in the same transaction; erases the payload and keeps
    /// [`Topup::requirements`], by which a payment that is sent again is known. Whether this call did it.
    fn settle_topup(&self, id: &str, receipt: &TopupReceipt, now_ms: i64) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// → failed, unless it is settled, which is false; erases the payload. The claim is kept if the payment is `used_up`, so that it is not sent again.
    fn fail_topup(&self, id: &str, error: &str, used_up: bool, now_ms: i64) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// processing → unknown.
    fn unknown_topup(&self, id: &str, next_attempt_at: i64, now_ms: i64) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// unknown and due, or processing with a lapsed lease; oldest first.
    fn due_topups(&self, now_ms: i64, limit: i64) -> impl Future<Output = Result<Vec<Topup>, Self::Error>> + Send;
}
