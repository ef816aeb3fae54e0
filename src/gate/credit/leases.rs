//! Leases: parts of balances that a worker may spend without asking the ledger for each request.
//!
//! A lease is a reservation of the ledger's, larger than one request needs. Requests with its key take from it and give back what they did
//! not use; when its time is over, and the last of them has ended, what was spent is captured at once, and the rest goes back. Whatever
//! happens, no more can be spent of it than was reserved.

use crate::sorting;

/// How many a worker may have. A busy key has one, and few are busy at once.
const MOST: usize = 64;
/// How many of one key may be over, and still have requests that have not ended.
const MOST_OVER: usize = 2;
/// How many keys are remembered of those that were asked for lately.
const REMEMBERED: usize = 64;
/// A key is busy if it was asked for twice within so long, in milliseconds.
const BUSY_MS: u64 = 1_000;

/// A part of a balance.
#[derive(Debug)]
struct Lease {
    /// The reservation's name.
    id: String,
    /// SHA-256 of the API key, in hexadecimal.
    key: String,
    tenant: String,
    /// In millionths of a dollar.
    left: u64,
    spent: u64,
    /// How many requests have taken from it and have not ended.
    open: u32,
    until_ms: u64,
    /// Nothing is taken from it any more.
    over: bool,
}

/// A lease that has come to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    /// The reservation's name.
    pub(super) id: String,
    /// In millionths of a dollar.
    pub(super) spent: u64,
}

/// The leases of one worker.
#[derive(Debug, Default)]
pub struct Leases {
    leases: Vec<Lease>,
    /// Keys, and when they were asked for.
    lately: Vec<(String, u64)>,
}

impl Leases {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Takes so much of a lease with this key, if one has it; gives back its name and its tenant.
    pub(super) fn take(&mut self, key: &str, amount: u64, now_ms: u64) -> Option<(String, String)> {
        let usable = |lease: &&mut Lease| !lease.over && lease.until_ms > now_ms && lease.left >= amount && lease.key == key;
        let lease = self.leases.iter_mut().find(usable)?;
        lease.left = lease.left.saturating_sub(amount);
        lease.open = lease.open.saturating_add(1);
        Some((lease.id.clone(), lease.tenant.clone()))
    }

    /// Whether a lease is worth asking for, where nothing could be taken: the key was asked for a moment ago too. What it has is over then.
    pub(super) fn is_busy(&mut self, key: &str, now_ms: u64) -> bool {
        // Requests that last hold what is left of leases that are over: a key has not any number of those.
        let held = self.leases.iter().filter(|lease| lease.over && lease.key == key).count();
        let has_room = self.leases.len() < MOST && held < MOST_OVER;
        let since = now_ms.saturating_sub(BUSY_MS);
        if let Some((_, at)) = self.lately.iter_mut().find(|(known, _)| known == key) {
            let is_busy = has_room && *at > since;
            // Others that come before the answer do not ask as well.
            *at = if is_busy { 0 } else { now_ms };
            if is_busy {
                let own = self.leases.iter_mut().filter(|lease| lease.key == key);
                own.for_each(|lease| lease.over = true);
            }
            return is_busy;
        }
        if self.lately.len() >= REMEMBERED {
            // The one that was asked for longest ago makes room.
            sorting::sort(&mut self.lately, |(_, one), (_, other)| one > other);
            self.lately.pop();
        }
        self.lately.push((key.to_owned(), now_ms));
        false
    }

    /// The ledger has granted one.
    pub(super) fn grant(&mut self, id: String, key: &str, tenant: &str, amount: u64, until_ms: u64) {
        self.leases.push(Lease {
            id,
            key: key.to_owned(),
            tenant: tenant.to_owned(),
            left: amount,
            spent: 0,
            open: 0,
            until_ms,
            over: false,
        });
    }

    /// A request that took `quoted` of a lease has ended, and `due` of that is spent. The lease, if it was the last one of it.
    pub(super) fn give_back(&mut self, id: &str, quoted: u64, due: u64) -> Option<Over> {
        let at = self.leases.iter().position(|lease| lease.id == id)?;
        let lease = self.leases.get_mut(at)?;
        lease.left = lease.left.saturating_add(quoted.saturating_sub(due));
        lease.spent = lease.spent.saturating_add(due);
        lease.open = lease.open.saturating_sub(1);
        (lease.over && lease.open == 0).then(|| self.remove(at))
    }

    /// Ends what is over by now; gives back those that nobody has anything of.
    pub(super) fn end(&mut self, now_ms: u64) -> Vec<Over> {
        let mut over = Vec::new();
        let mut at = 0;
        while let Some(lease) = self.leases.get_mut(at) {
            lease.over |= lease.until_ms <= now_ms;
            if lease.over && lease.open == 0 {
                over.push(self.remove(at));
            } else {
                at = at.saturating_add(1);
            }
        }
        over
    }

    fn remove(&mut self, at: usize) -> Over {
        let Lease { id, spent, .. } = self.leases.swap_remove(at);
        Over { id, spent }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)] // tests
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn granted(amount: u64, until_ms: u64) -> Leases {
        let mut leases = Leases::default();
        leases.grant("l".into(), "k", "t", amount, until_ms);
        leases
    }

    #[test]
    fn no_more_is_taken_than_there_is_and_only_in_time_by_its_key() {
        let mut leases = granted(100, 1_000);
        assert_eq!(leases.take("other", 1, 0), None);
        assert_eq!(leases.take("k", 101, 0), None);
        assert_eq!(leases.take("k", 60, 999), Some(("l".into(), "t".into())));
        assert_eq!(leases.take("k", 60, 999), None);
        assert_eq!(leases.take("k", 40, 1_000), None);
        assert!(leases.take("k", 40, 999).is_some());
        // What was not used can be taken again.
        assert_eq!(leases.give_back("l", 60, 10), None);
        assert!(leases.take("k", 50, 999).is_some());
    }

    #[test]
    fn it_ends_when_its_time_and_its_last_request_have() {
        let mut leases = granted(100, 1_000);
        leases.take("k", 60, 0).unwrap();
        leases.take("k", 40, 0).unwrap();
        assert_eq!(leases.give_back("l", 60, 60), None);
        assert_eq!((leases.end(999), leases.end(1_000)), (vec![], vec![]));
        assert_eq!(leases.take("k", 0, 0), None, "it is over");
        assert_eq!(leases.give_back("l", 40, 5), Some(Over { id: "l".into(), spent: 65 }));
        assert!(leases.is_empty());
        assert_eq!(leases.give_back("l", 1, 1), None);
        assert_eq!(granted(5, 7).end(7), [Over { id: "l".into(), spent: 0 }]);
    }

    #[test]
    fn a_key_is_busy_that_comes_twice_within_a_second() {
        let mut leases = Leases::default();
        assert!(!leases.is_busy("k", 10_000));
        assert!(leases.is_busy("k", 10_999));
        assert!(!leases.is_busy("k", 11_000), "it has been asked for");
        assert!(!leases.is_busy("k", 12_000));
        assert!(leases.is_busy("k", 12_001));
        leases.grant("l".into(), "k", "t", 1, 20_000);
        leases.take("k", 1, 12_002).unwrap();
        assert!(!leases.is_busy("k", 12_002) && leases.is_busy("k", 12_003));
        let over = Over { id: "l".into(), spent: 1 };
        assert_eq!(leases.give_back("l", 1, 1), Some(over));
        for other in 0..200u32 {
            assert!(!leases.is_busy(&format!("o{other}"), 13_000 + u64::from(other)));
        }
        assert!(leases.lately.len() <= REMEMBERED);
        assert!(!leases.is_busy("k", 13_201), "others have come since");
    }

    #[test]
    fn a_key_whose_requests_last_has_not_any_number_of_leases() {
        let mut leases = Leases::default();
        let mut granted = 0;
        for at in 0..20u64 {
            if leases.is_busy("k", 10_000 + at) {
                granted += 1;
                leases.grant(format!("l{at}"), "k", "t", 1, 90_000);
                leases.take("k", 1, 10_000 + at).unwrap();
            }
        }
        // Two that are over, and the one that comes after them.
        assert_eq!(granted, 3);
    }

    proptest! {
        /// Whatever comes when: what is spent, held and left is what was granted, and what is captured is what was spent.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0u8..3, 0u64..40, 0u64..40), 1..60)) {
            let mut leases = granted(100, 500);
            let (mut open, mut spent, mut now, mut captured): (Vec<u64>, u64, u64, Option<u64>) = (Vec::new(), 0, 0, None);
            for (what, amount, part) in steps {
                match what {
                    0 => if leases.take("k", amount, now).is_some() {
                        open.push(amount);
                    },
                    1 => if let Some(quoted) = open.pop() {
                        let due = part.min(quoted);
                        spent += due;
                        captured = leases.give_back("l", quoted, due).map(|over| over.spent).or(captured);
                    },
                    _ => {
                        now += amount;
                        captured = leases.end(now).pop().map(|over| over.spent).or(captured);
                    }
                }
                prop_assert!(spent + open.iter().sum::<u64>() <= 100);
                match (captured, leases.leases.first()) {
                    (Some(sum), None) => prop_assert_eq!(sum, spent),
                    (None, Some(lease)) => prop_assert_eq!(lease.left + lease.spent + open.iter().sum::<u64>(), 100),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
