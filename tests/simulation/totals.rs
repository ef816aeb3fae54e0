//! How often each thing happened. What never did was not tested.

use std::collections::BTreeMap;
use std::fmt;

/// All that can happen, and must in a whole run.
const KINDS: &[&str] = &[
    "requests",
    "client: an old payment again",
    "client: another payment with the same nonce",
    "client: a name again",
    "client: again meanwhile",
    "client: left before the answer",
    "client: left in mid-answer",
    "client: left while an answer waits for the verdict",
    "client: left while settling",
    "client: left while settling up front",
    "client: left while verifying",
    "client: left while waiting for a receipt",
    "client: pays the price before",
    "client: sent again",
    "client: the same at once",
    "verify: answered",
    "verify: bad though it is good",
    "verify: a good signature called invalid",
    "verify: failed",
    "verify: garbage",
    "verify: good though it is bad",
    "verify: no healthy endpoint",
    "verify: reply lost",
    "verify: reset",
    "verify: unreachable",
    "settle: a good signature called invalid",
    "settle: acted after the timeout",
    "settle: answered",
    "settle: duplicate",
    "settle: failed before acting",
    "settle: garbage after acting",
    "settle: lied that it refused",
    "settle: lied that it settled",
    "settle: no healthy endpoint",
    "settle: nonce used",
    "settle: pending",
    "settle: refused",
    "settle: reply lost after acting",
    "settle: reset before acting",
    "settle: reverted",
    "settle: success that names nothing",
    "settle: unreachable",
    "told: nonce used",
    "told: not sent",
    "told: refused",
    "told: settled",
    "told: unknown",
    "settlement: abandoned",
    "settlement: its client was gone",
    "settlement: left pending",
    "settlement: sent again",
    "chain: account drained",
    "chain: dropped",
    "chain: mined late",
    "chain: nonce burnt",
    "chain: settled",
    "paid: by a lie",
    "paid: inferred",
    "paid: inferred when it came again",
    "paid: settled",
    "backend: 4xx",
    "backend: 5xx",
    "backend: another filter answers",
    "backend: never answers",
    "backend: no body",
    "backend: reset",
    "backend: reset before its headers",
    "backend: reset in mid-answer",
    "backend: usage not told",
    "backend: usage told",
    "answer: 400",
    "answer: 402",
    "answer: 409",
    "answer: 429",
    "answer: 502",
    "answer: 503",
    "answer: a name of another payment",
    "answer: too many requests",
    "answer: failed, and free",
    "answer: free",
    "answer: metered",
    "answer: nothing due",
    "answer: paid",
    "answer: paid and failed",
    "answer: settlement pending",
    "delivery: broken off",
    "delivery: complete",
    "delivery: not begun",
    "delivery: one of several",
    "delivery: served again",
    "metered: broken off",
    "metered: no receipt",
    "metered: not known to be settled",
    "metered: nothing due",
    "metered: patience lost",
    "metered: receipt",
    "metered: served and not settled",
    "metered: time is up",
    "store: another event in between",
    "store: conflict",
    "store: contended",
    "worker: configured anew",
    "worker: former prices",
    "worker: killed",
    "clock: leaps",
];

#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Totals(BTreeMap<&'static str, u64>);

impl Totals {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_insert(0) += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            *self.0.entry(what).or_insert(0) += times;
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// What never happened, and what happened and is not in the list.
    pub fn gaps(&self) -> Vec<&'static str> {
        let never = KINDS.iter().filter(|kind| self.of(kind) == 0);
        let unlisted = self.0.keys().filter(|what| !KINDS.contains(what));
        never.chain(unlisted).copied().collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>9}  {what}"))
    }
}
