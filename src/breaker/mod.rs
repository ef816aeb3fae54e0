//! When calls to a facilitator are held back: a circuit breaker, and a bound on the calls in flight.
//!
//! One worker's view of one facilitator. Knows no clock, no I/O and no wire format: time and outcomes come in.
//!
//! ```text
//!                failures in a row                     open_ms later
//!  Closed ────────────────────────────────► Open ───────────────────────► HalfOpen: one call probes
//!    ▲                                       ▲ ▲                              │          │
//!    │ any call succeeds, in whatever state  │ └──────────────────────────────┘          │
//!    └───────────────────────────────────────┴───── it fails ──── it succeeds ───────────┘
//! ```

#[cfg(test)]
mod tests;

/// When calls are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many calls may be in flight at once, at least 1.
    pub in_flight: u32,
    /// After how many failures in a row the breaker opens; 0: never.
    pub failures: u32,
    /// For how long it is open, in milliseconds.
    pub open_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 256,
            failures: 5,
            open_ms: 10_000,
        }
    }
}

impl Limits {
    /// How many calls may be in flight for one more of this class to be sent.
    fn room(&self, class: Class) -> u32 {
        match class {
            Class::Verify => self.in_flight.saturating_sub((self.in_flight / 8).max(1)).max(1),
            Class::Settle => self.in_flight,
            Class::Owed => u32::MAX,
        }
    }
}

/// What a call is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A verification. An eighth of the calls in flight, and at least one, is kept free of them: the backend may have worked for what is
    /// to be settled.
    Verify,
    /// A settlement that certainly was not sent before, and without which nothing leaves.
    Settle,
    /// A settlement that may have been made already, or that is for what was delivered: it is never held back. There are no more of them
    /// than calls that were let out, and answers that were sold, before.
    Owed,
}

/// A call that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The period that it is the probe of.
    probe: Option<u32>,
}

/// Why a call may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Too many are in flight.
    InFlight,
    /// The breaker is open, for so many milliseconds more; `None`: until the probe has ended.
    Open(Option<u64>),
}

/// What became of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has opened.
    Opened,
    /// The probe has failed: it stays open.
    Reopened,
    /// It has closed.
    Closed,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Calls go out. So many in a row have failed.
    Closed(u32),
    /// None does for a while; the next one after that is the probe.
    Open,
    /// The probe is in flight.
    HalfOpen,
}

/// The calls of one worker to one facilitator.
#[derive(Debug, Clone, Copy)]
pub struct Breaker {
    in_flight: u32,
    /// Counts how often it has opened.
    period: u32,
    /// When it did so last, in milliseconds since the epoch.
    opened_ms: u64,
    state: State,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            in_flight: 0,
            period: 0,
            opened_ms: 0,
            state: State::Closed(0),
        }
    }
}

impl Breaker {
    /// Whether a call may be sent now. Nothing changes before it was.
    pub fn admit(&self, class: Class, limits: &Limits, now_ms: u64) -> Result<Pass, Held> {
        let probe = match self.state {
            _ if class == Class::Owed => None,
            State::Closed(_) => None,
            State::HalfOpen => return Err(Held::Open(None)),
            State::Open => match self.opened_ms.saturating_add(limits.open_ms).saturating_sub(now_ms) {
                // More than it can be: the clock was set back.
                left if left > 0 && left <= limits.open_ms => return Err(Held::Open(Some(left))),
                _ => Some(self.period),
            },
        };
        if self.in_flight >= limits.room(class) {
            return Err(Held::InFlight);
        }
        Ok(Pass { probe })
    }

    /// The call was sent. Must be followed by [`Breaker::ended`] exactly once.
    pub fn sent(&mut self, pass: Pass) {
        self.in_flight = self.in_flight.saturating_add(1);
        if pass.probe.is_some() {
            self.state = State::HalfOpen;
        }
    }

    /// A call has ended. It has failed if there was no connection, no answer in time, or none that can be read as a verdict or an outcome.
    pub fn ended(&mut self, pass: Pass, failed: bool, limits: &Limits, now_ms: u64) -> Option<Change> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !failed {
            return self.close();
        }
        let change = match &mut self.state {
            State::Closed(failures) => {
                *failures = failures.saturating_add(1);
                (limits.failures > 0 && *failures >= limits.failures).then_some(Change::Opened)
            }
            State::HalfOpen => (pass.probe == Some(self.period)).then_some(Change::Reopened),
            // It was sent before, or is owed.
            State::Open => None,
        };
        if change.is_some() {
            self.period = self.period.wrapping_add(1);
            self.opened_ms = now_ms;
            self.state = State::Open;
        }
        change
    }

    /// The facilitator has given a sign of life, in seconds since the epoch, and perhaps long ago. It closes what is open, and is no verdict:
    /// failures in a row stay what they are.
    pub fn heard(&mut self, at: u64) -> Option<Change> {
        let is_news = !matches!(self.state, State::Closed(_)) && at.saturating_mul(1000) > self.opened_ms;
        if is_news { self.close() } else { None }
    }

    fn close(&mut self) -> Option<Change> {
        let was = std::mem::replace(&mut self.state, State::Closed(0));
        (!matches!(was, State::Closed(_))).then_some(Change::Closed)
    }
}
