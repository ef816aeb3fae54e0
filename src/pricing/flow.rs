//! Flows: when money moves relative to the answer, and how much of a quote is charged once the answer is known.

use super::offer::Atomic;
use super::quote::{Basis, Quote};
use super::route::Route;
use crate::metering::Metered;

/// When money moves relative to the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Flow {
    /// The quote is settled when the backend's headers arrive, before a byte of its answer leaves.
    #[default]
    Authorization,
    /// The quote is settled before the backend is asked.
    Upfront,
    /// The answer streams at once, and what was used is settled at its end. For `upto` payments; others go the way above.
    Metered(Box<MeteredTerms>),
}

/// What has to be known of a payment before the backend is asked, where it is not settled by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The facilitator's verdict.
    #[default]
    Verified,
    /// The pre-check's; the facilitator is asked meanwhile, and nothing of the answer leaves before it has said yes.
    Meanwhile,
    /// The pre-check's; the settlement decides.
    Checked,
}

/// What a metered route charges where the answer does not say, and how its receipts are handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredTerms {
    /// For a complete answer in which no usage is found.
    pub missing_usage: MissingUsage,
    /// For an answer whose client left.
    pub on_client_abort: OnClientAbort,
    /// For an answer that the backend broke off.
    pub on_backend_failure: OnBackendFailure,
    /// How long the end of an answer waits for its receipt, in milliseconds.
    pub receipt_wait_ms: u32,
    /// The most that may be delivered and not settled, in each currency that is bounded.
    pub exposure: Vec<ExposureLimits>,
    /// For how long a payer is not served whose settlement was refused, in seconds; 0: served all the same.
    pub ban_seconds: u64,
}

/// See [`MeteredTerms::exposure`]. Amounts are in millionths; `None`: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposureLimits {
    /// Of the asset, in lower case.
    pub currency: Box<str>,
    /// To one payer.
    pub payer: Option<u64>,
    /// To all payers of the route.
    pub total: Option<u64>,
}

impl MeteredTerms {
    /// The limits in a currency.
    pub fn limits(&self, currency: &str) -> Option<&ExposureLimits> {
        self.exposure.iter().find(|limits| *limits.currency == *currency)
    }
}

/// See [`MeteredTerms::missing_usage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingUsage {
    /// By the bytes of the request and of the text that was delivered.
    Estimate,
    /// The quote.
    Maximum,
    /// Nothing.
    Free,
}

/// See [`MeteredTerms::on_client_abort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnClientAbort {
    /// What was delivered: by the usage that had been told, and by bytes for the rest.
    Estimate,
    /// The quote.
    Maximum,
}

/// See [`MeteredTerms::on_backend_failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBackendFailure {
    /// What was delivered, as for [`OnClientAbort::Estimate`]; nothing if that is nothing.
    Delivered,
    /// Nothing.
    Free,
}

impl Default for MeteredTerms {
    fn default() -> Self {
        Self {
            missing_usage: MissingUsage::Estimate,
            on_client_abort: OnClientAbort::Estimate,
            on_backend_failure: OnBackendFailure::Delivered,
            receipt_wait_ms: 10_000,
            exposure: Vec::new(),
            ban_seconds: 3600,
        }
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It came to its end.
    Complete,
    /// The client left before.
    ClientGone,
    /// The backend broke it off.
    BackendFailed,
    /// Envoy ended it, at a limit on how long a stream may take or be idle, or this filter did, because the price or the payment
    /// ended. Neither side is to blame.
    Interrupted,
}

/// What was delivered of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// What was read of it.
    pub metered: Metered,
    /// It was encoded in spite of all: its bytes say nothing.
    pub encoded: bool,
    /// How it ended.
    pub end: End,
    /// From the backend's headers to its end, in milliseconds.
    pub duration_ms: u64,
    /// What the backend itself says is to be charged, already no more than the quote.
    pub told: Option<Atomic>,
}

/// What is charged for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Never above the quote.
    pub amount: Atomic,
    /// By its usage the answer costs more than was quoted.
    pub capped: bool,
}

impl Delivery {
    /// An answer that tells its own end has come to it, whatever became of the connection after that.
    fn end(&self) -> End {
        if self.metered.finished { End::Complete } else { self.end }
    }
}

impl Quote {
    /// What is charged for what was delivered, in the offer at an index. `None` if the route has no such offer.
    pub fn charge(&self, route: &Route, index: usize, terms: &MeteredTerms, delivery: &Delivery) -> Option<Charged> {
        let quoted = self.amount(route, index)?;
        let plainly = |amount| Charged { amount, capped: false };
        let nothing_came = delivery.metered.delivered_bytes == 0;
        match (delivery.end(), terms.on_backend_failure, terms.on_client_abort) {
            (End::BackendFailed, OnBackendFailure::Free, _) => return Some(plainly(Atomic(0))),
            (End::BackendFailed, OnBackendFailure::Delivered, _) if nothing_came => return Some(plainly(Atomic(0))),
            // Minutes pass without a byte, too.
            (End::Interrupted, ..) if nothing_came && self.basis != Basis::Minutes => return Some(plainly(Atomic(0))),
            (End::ClientGone, _, OnClientAbort::Maximum) => {
                return Some(plainly(delivery.told.map_or(quoted, |told| told.min(quoted))));
            }
            _ => {}
        }
        if let Some(told) = delivery.told {
            return Some(plainly(told.min(quoted)));
        }
        let missing = delivery.end() == End::Complete && delivery.metered.usage.is_none();
        match (&self.basis, terms.missing_usage) {
            (Basis::Tokens(_), _) if delivery.encoded => Some(plainly(quoted)),
            (Basis::Tokens(_), MissingUsage::Free) if missing => Some(plainly(Atomic(0))),
            (Basis::Tokens(_), MissingUsage::Maximum) if missing => Some(plainly(quoted)),
            (Basis::Tokens(tokens), _) => {
                let metered = match delivery.end() {
                    End::Complete => delivery.metered,
                    End::ClientGone | End::BackendFailed | End::Interrupted => delivery.metered.cut_off(),
                };
                let usage = metered.tokens(tokens.likely_input);
                // An estimate that is too high is no news of the backend.
                let capped = delivery.metered.usage.is_some() && self.exceeded_by(route, index, &usage);
                let amount = self.settle_tokens(route, index, &usage)?;
                Some(Charged { amount, capped })
            }
            (Basis::Minutes, _) => self.settle_minutes(route, index, delivery.duration_ms).map(plainly),
            (Basis::Fixed, _) => Some(plainly(quoted)),
        }
    }
}
