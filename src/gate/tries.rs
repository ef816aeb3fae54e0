//! Sending a settlement again: how often, how soon, and what is known from before.

use super::env::Env;
use super::sale::Sale;

/// How soon a settlement without an answer is sent again.
const FIRST_RETRY_MS: u64 = 500;

/// How often a settlement was sent, and what came of that.
pub(super) struct Tries {
    pub(super) made: u32,
    /// When the first of them had no clear answer, in milliseconds: a timeout is long enough to use up any budget by itself.
    unclear_ms: Option<u64>,
    /// An attempt may have gone through.
    pub(super) doubt: bool,
    /// It was sent for an earlier request, perhaps with another payment of the same nonce: that one says nothing of this payment.
    pub(super) resumed: bool,
    /// The transaction that an answer named.
    pub(super) named: Option<String>,
}

impl Tries {
    /// Nothing was sent yet.
    pub(super) fn first() -> Self {
        Self {
            made: 0,
            unclear_ms: None,
            doubt: false,
            resumed: false,
            named: None,
        }
    }

    /// An earlier request with the same payment sent it, and never knew.
    pub(super) fn in_doubt() -> Self {
        Self {
            doubt: true,
            resumed: true,
            ..Self::first()
        }
    }

    /// An answer that refuses names a transaction that came to nothing: it proves no settlement, even if it was named with hope before.
    pub(super) fn reverted(&mut self, transaction: Option<&str>) {
        if transaction.is_some() && self.named.as_deref() == transaction {
            self.named = None;
        }
    }

    /// After how many milliseconds it is to be sent again: half a second, and twice as long each time. `None`: not any more.
    pub(super) fn again_in(&mut self, sale: &Sale, env: &Env<'_>) -> Option<u64> {
        let policy = &env.config.settlement;
        let ms = FIRST_RETRY_MS.checked_shl(self.made.saturating_sub(1)).unwrap_or(u64::MAX);
        let since = *self.unclear_ms.get_or_insert(env.now_ms);
        let is_late = env.now_ms.saturating_add(ms) > since.saturating_add(policy.retry_budget_ms);
        (self.made <= policy.retries && !is_late && !sale.hold.has_lapsed(env)).then_some(ms)
    }
}
