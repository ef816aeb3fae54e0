//! What is to happen, and when.

use std::collections::BTreeMap;

use super::client::Errand;
use super::facilitator::{CallId, Reply};

/// How much later than now an event may be that happens in the middle of another one.
const SOON: u64 = 25;

/// What can happen. Events of a worker name its VM, too: what was meant for one that was killed happens to nobody.
#[derive(Debug)]
pub enum Event {
    /// The clients think of something.
    Think,
    /// A payer makes another payment with the nonce of one.
    Sibling(usize),
    /// A request reaches a worker.
    Arrive { worker: usize, errand: Errand },
    /// The root context's tick.
    Tick { worker: usize, vm: u32, root: u32 },
    /// A facilitator's reply to a call, or Envoy's in its place.
    Reply { worker: usize, vm: u32, token: u32, reply: Reply },
    /// The next thing that the backend does.
    Backend { worker: usize, vm: u32, context: u32 },
    /// A stream is cut off.
    Cut { worker: usize, vm: u32, context: u32, how: Cut },
    /// A facilitator acts on a call.
    Act(CallId),
    /// A transaction comes up to be mined.
    Mine(usize),
    /// A payer does something on the chain.
    Deed(Deed),
    /// A worker's configuration is replaced by the same.
    Reconfigure(usize),
    /// A worker's VM is gone, and with it all that it knew.
    Kill(usize),
    /// The clock leaps, and what was due meanwhile is late.
    Leap(u64),
}

/// Who cuts a stream off.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    Client,
    Backend,
    /// Envoy, at the route's timeout.
    Timeout,
}

/// What a payer does on the chain.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    /// Uses up a nonce without paying the seller.
    Burn(usize),
    /// Moves most of the money away.
    Drain(usize),
    /// Gets money.
    Fill(usize),
}

impl Event {
    /// The worker that it happens to.
    pub fn worker(&self) -> Option<usize> {
        match self {
            Self::Arrive { worker, .. }
            | Self::Tick { worker, .. }
            | Self::Reply { worker, .. }
            | Self::Backend { worker, .. }
            | Self::Cut { worker, .. }
            | Self::Reconfigure(worker)
            | Self::Kill(worker) => Some(*worker),
            Self::Think | Self::Sibling(_) | Self::Act(_) | Self::Mine(_) | Self::Deed(_) | Self::Leap(_) => None,
        }
    }
}

/// Events by time, and in the order in which they were planned.
#[derive(Default)]
pub struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
}

impl Agenda {
    pub fn plan(&mut self, at: u64, event: Event) {
        self.events.insert((at, self.planned), event);
        self.planned += 1;
    }

    pub fn next(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }

    /// The first event that is as good as due and that may happen now.
    pub fn next_in_between(&mut self, now: u64, may_happen: impl Fn(&Event) -> bool) -> Option<Event> {
        let soon = self.events.range(..(now + SOON, 0));
        let key = *soon.into_iter().find(|(_, event)| may_happen(event))?.0;
        self.events.remove(&key)
    }
}
