//! The chain: the truth about money. Whose nonce was used by what, who has how much, and which transactions are still to be mined.

use x402_envoy::replay::ClaimKey;

use super::wallet::{PAYERS, POOR};

/// What became of something that can be spent once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A settlement of ours moved so much to the seller.
    Settled { attempt: usize, amount: u64 },
    /// The payer used it up without paying.
    Burnt,
}

/// What the gate was told of an attempt to settle: by what the reply says, not by what is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Settled,
    /// Refused, with a reason that is certain.
    Refused,
    /// The nonce has been used.
    Used,
    Unknown,
    /// The facilitator certainly did not get it.
    NotSent,
}

/// A call to /settle.
#[derive(Debug)]
pub struct Attempt {
    pub spend: usize,
    pub payment: usize,
    /// The request that it was made for.
    pub visit: usize,
    pub amount: u64,
    /// `None`: the gate has not heard yet, or never will.
    pub told: Option<Told>,
    /// The facilitator said one thing and did the other.
    pub lied: bool,
    pub mined: bool,
    /// There is a transaction that may yet be mined.
    pub in_flight: bool,
    /// The gate was told the transaction's name, and not that it was reverted.
    pub named: bool,
    /// The gate was told that its transaction was reverted.
    pub reverted: bool,
}

/// Something that can be spent once, and all that the simulator knows of it.
#[derive(Debug)]
pub struct Spend {
    pub claim: ClaimKey,
    pub payer: usize,
    pub nonce: u64,
    pub used: Option<Use>,
    pub attempts: Vec<usize>,
    /// Answers that began for it, but for those that cost nothing.
    pub served: u32,
    /// The request that it was let through for, until that is decided.
    pub user: Option<usize>,
    /// The gate was left in doubt whether its settlement went through, and that has not been cleared up.
    pub unclear: bool,
    /// The gate has taken it for paid, for this request.
    pub paid_by: Option<usize>,
    /// It has bought a metered answer, and cannot be settled again.
    pub delivered: bool,
    /// The store was contended when its claim was to be changed: it may stay as it was until it expires.
    pub stuck: bool,
    /// A payment that had expired was known to be settled while another one with its nonce was in use.
    pub overtaken: bool,
    /// Its claim was in the hands of a VM that was killed.
    pub orphaned: bool,
    /// When its claim expires, in Unix seconds; 0: it has none that is known.
    pub expiry: u64,
}

impl Spend {
    /// Whether its settlement may have gone through, as far as the gate can know.
    pub fn in_doubt(&self, now: u64) -> bool {
        self.unclear && !self.overtaken && self.expiry >= now
    }
}

#[derive(Default)]
pub struct Chain {
    pub balances: Vec<u64>,
    pub spends: Vec<Spend>,
    pub attempts: Vec<Attempt>,
}

impl Chain {
    pub fn new() -> Self {
        let balance = |payer| if payer < PAYERS - POOR { 1_000_000_000 } else { 4000 };
        Self {
            balances: (0..PAYERS).map(balance).collect(),
            ..Self::default()
        }
    }

    pub fn spend(&mut self, claim: ClaimKey, payer: usize, nonce: u64) -> usize {
        self.spends.push(Spend {
            claim,
            payer,
            nonce,
            used: None,
            attempts: Vec::new(),
            served: 0,
            user: None,
            unclear: false,
            paid_by: None,
            delivered: false,
            stuck: false,
            overtaken: false,
            orphaned: false,
            expiry: 0,
        });
        self.spends.len() - 1
    }

    /// A request does not use it any more.
    pub fn frees(&mut self, spend: usize, visit: usize) {
        let spend = &mut self.spends[spend];
        if spend.user == Some(visit) {
            spend.user = None;
        }
        if spend.user.is_none() && spend.paid_by.is_none() && !spend.unclear && !spend.delivered && !spend.orphaned && !spend.stuck {
            spend.expiry = 0;
        }
    }

    /// What the store has forgotten, because the payment has expired, is as good as new: the chain alone remembers it.
    pub fn forgets(&mut self, spend: usize, now: u64) {
        let spend = &mut self.spends[spend];
        if spend.expiry == 0 || spend.expiry >= now || spend.user.is_some() {
            return;
        }
        for attempt in &spend.attempts {
            self.attempts[*attempt].told.get_or_insert(Told::Unknown);
        }
        (spend.paid_by, spend.served, spend.expiry) = (None, 0, 0);
        (spend.unclear, spend.delivered, spend.stuck, spend.orphaned) = (false, false, false, false);
        spend.overtaken = false;
    }

    /// Whether a settlement of ours has moved the money.
    pub fn settled(&self, spend: usize) -> Option<u64> {
        match self.spends[spend].used {
            Some(Use::Settled { amount, .. }) => Some(amount),
            _ => None,
        }
    }

    /// Whether a transaction for it may yet be mined.
    pub fn in_flight(&self, spend: usize) -> bool {
        self.spends[spend].attempts.iter().any(|attempt| self.attempts[*attempt].in_flight)
    }

    /// The payer uses a nonce up: what was on its way is reverted. Whether there was anything left to use up.
    pub fn burn(&mut self, spend: usize) -> bool {
        let spend = &mut self.spends[spend];
        let is_new = spend.used.is_none();
        if is_new {
            spend.used = Some(Use::Burnt);
            for attempt in &spend.attempts {
                self.attempts[*attempt].in_flight = false;
            }
        }
        is_new
    }

    /// Mines a settlement: moves the money, or the transaction is reverted.
    pub fn mine(&mut self, attempt: usize, valid: bool) -> bool {
        let attempt_index = attempt;
        let attempt = &mut self.attempts[attempt_index];
        attempt.in_flight = false;
        let spend = &mut self.spends[attempt.spend];
        let balance = &mut self.balances[spend.payer];
        if !valid || spend.used.is_some() || *balance < attempt.amount {
            return false;
        }
        *balance -= attempt.amount;
        attempt.mined = true;
        spend.used = Some(Use::Settled {
            attempt: attempt_index,
            amount: attempt.amount,
        });
        true
    }
}
