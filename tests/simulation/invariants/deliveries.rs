//! What was paid for is delivered once, or can be had again for a while: by what was sold, and by what clients have had of it.

use std::collections::BTreeSet;

use serde_json::Value;
use x402_envoy::pricing::End;

use super::super::shop::{Asks, ROUTES};
use super::super::support::unbase64;
use super::super::wallet::EXPIRED;
use super::super::world::World;
use super::{must, violated};

/// What a payment has bought, before its answer left.
#[derive(Debug, Default)]
pub struct Sold {
    route: usize,
    /// How many requests, and how many answers more may begin in vain.
    requests: u32,
    times: u32,
    /// Answers that have begun, those of them that ended too early, and those that came to their end.
    begun: u32,
    vain: u32,
    complete: u32,
    /// Requests that are being served for it.
    under_way: BTreeSet<usize>,
    again: Option<Again>,
    /// The request that is served again.
    out: Option<Asks>,
    /// Until when it is known how many answers had begun, in Unix seconds.
    known_until: u64,
    receipt: Option<Value>,
    /// Counts whatever happened to it.
    changes: u32,
    /// Nobody can rely on its first delivery being waited for: the configuration was replaced meanwhile.
    early: bool,
    /// It went with the VM that had it.
    lost: bool,
}

/// An answer that can be had again.
#[derive(Debug, Clone, Copy)]
struct Again {
    asks: Asks,
    /// Unix seconds.
    until: u64,
    /// It is certain that it can be; before, it only may.
    sure: bool,
}

impl Sold {
    pub fn changes(&self) -> u32 {
        self.changes
    }

    pub fn is_over(&self) -> bool {
        self.under_way.is_empty()
    }

    fn most(&self) -> u32 {
        self.requests + self.times
    }
}

fn with<T>(world: &World, visit: usize, look: impl FnOnce(&mut Sold) -> T) -> Option<T> {
    world.sold.borrow_mut().get_mut(&world.identity(visit)?).map(look)
}

/// A payment was settled for a request, and its answer has not begun.
pub fn sold(world: &World, visit: usize) {
    let (errand, early) = world.visits(visit, |seen| (seen.errand, seen.left_pending));
    let mut all = world.sold.borrow_mut();
    let sold = all.entry(world.identity(visit).unwrap()).or_default();
    sold.route = errand.route;
    sold.requests += 1;
    sold.times += if world.meters(visit) { 0 } else { world.shop.times };
    sold.under_way.insert(visit);
    sold.receipt = None;
    sold.early = early;
    sold.out = None;
    sold.changes += 1;
}

/// A request goes to the backend, and its payment was spent before: it must be one whose answer was not delivered. Whether it is.
pub fn entitled(world: &World, visit: usize) -> bool {
    let (errand, now) = (world.visits(visit, |seen| seen.errand), world.now_s());
    let known = with(world, visit, |sold| {
        must!(
            sold.complete == 0,
            "delivered once",
            "visit {visit} is served again, and its payment's answer was delivered"
        );
        must!(
            sold.under_way.is_empty(),
            "one answer at a time",
            "visit {visit} is served again, and {:?} are under way",
            sold.under_way
        );
        let again = sold.again.take();
        must!(
            again.is_some_and(|again| sold.route == errand.route
                && Some(again.asks) == ROUTES[errand.route].request(errand.asks)
                && now <= again.until),
            "the same request again",
            "visit {visit} asks for {:?} on {} at {now} and is served for {again:?} of {}",
            errand.asks,
            ROUTES[errand.route].name,
            ROUTES[sold.route].name
        );
        sold.out = again.map(|again| again.asks);
        sold.under_way.insert(visit);
        sold.changes += 1;
    });
    if known.is_some() {
        world.count("delivery: served again");
        world.visits(visit, |seen| {
            seen.paid = true;
            seen.again = true;
        });
    }
    known.is_some()
}

/// The answer of a request that was paid for begins.
pub fn begins(world: &World, visit: usize) {
    with(world, visit, |sold| {
        sold.begun += 1;
        must!(
            sold.begun <= sold.most(),
            "few answers begin",
            "visit {visit} has answer {} for a payment that buys {} and {} in vain",
            sold.begun,
            sold.requests,
            sold.times
        );
    });
}

/// A client that has paid gets its receipt, which is the same each time.
pub fn receipt(world: &World, visit: usize, receipt: &str) {
    let mut receipt = unbase64(receipt);
    // Each version of the protocol has its own name for it, and the same signature can be sent in both.
    receipt.as_object_mut().unwrap().remove("network");
    with(world, visit, |sold| {
        let before = sold.receipt.get_or_insert_with(|| receipt.clone());
        must!(
            *before == receipt,
            "the same receipt",
            "visit {visit} gets {receipt}, and {before} was given before"
        );
    });
}

/// The delivery of an answer ends; the gate has not heard of it.
pub fn ending(world: &World, visit: usize, begun: bool, end: End) -> Option<u32> {
    if let Some(spend) = world
        .spend_of(visit)
        .filter(|_| world.visits(visit, |seen| seen.expiry) < world.now_s())
    {
        world.chain.borrow_mut().spends[spend].overtaken = true;
    }
    if begun && end == End::Complete {
        with(world, visit, |sold| {
            sold.under_way.remove(&visit);
            sold.complete += 1;
            sold.changes += 1;
            must!(
                sold.complete <= sold.requests,
                "delivered once",
                "visit {visit} has whole answer {} for a payment that buys {}",
                sold.complete,
                sold.requests
            );
        });
        world.count("delivery: complete");
        return None;
    }
    world.count(if begun { "delivery: broken off" } else { "delivery: not begun" });
    let until = world.now_s() + world.shop.window;
    if let Some(spend) = world.spend_of(visit) {
        let mut chain = world.chain.borrow_mut();
        chain.spends[spend].expiry = chain.spends[spend].expiry.max(until);
    }
    let (errand, again) = world.visits(visit, |seen| (seen.errand, seen.again));
    let now = world.now_s();
    with(world, visit, |sold| {
        sold.under_way.remove(&visit);
        sold.vain += u32::from(begun);
        sold.changes += 1;
        let forgotten = again && begun && now > sold.known_until;
        let is_left = sold.times > 0 && (!begun || sold.vain <= sold.times) && !forgotten;
        let request = ROUTES[errand.route].request(errand.asks).filter(|_| is_left);
        sold.again = request.map(|asks| Again { asks, until, sure: false });
        sold.known_until = until;
        sold.changes
    })
}

/// The gate has heard of the end of a delivery. `change`: what [`ending`] gave.
pub fn ended(world: &World, visit: usize, change: Option<u32>) {
    let stuck = world.spend_of(visit).is_some_and(|spend| world.chain.borrow().spends[spend].stuck);
    with(world, visit, |sold| {
        if let Some(again) = sold.again.as_mut().filter(|_| Some(sold.changes) == change && !stuck) {
            again.sure = true;
        }
    });
}

/// A VM is gone, and a delivery with it.
pub fn lost(world: &World, visit: usize) {
    with(world, visit, |sold| {
        if sold.under_way.remove(&visit) {
            sold.lost = true;
            sold.changes += 1;
        }
    });
}

/// A request is answered in the backend's place: not if it was paid for before, and can be had.
pub fn denied(world: &World, visit: usize, status: u16) {
    let (errand, seen_changes, refusable, former, paid) = world.visits(visit, |seen| {
        (seen.errand, seen.sold_changes, seen.refusable, seen.former, seen.paid)
    });
    let stuck = world.spend_of(visit).is_some_and(|spend| world.chain.borrow().spends[spend].stuck);
    let (now, expiry) = (world.now_s(), world.visits(visit, |seen| seen.expiry));
    let is_good = match refusable {
        None => true,
        Some(why) => why == EXPIRED && !former,
    };
    if paid || stuck || !is_good {
        return;
    }
    with(world, visit, |sold| {
        if sold.lost || Some(sold.changes) != seen_changes || sold.route != errand.route {
            return;
        }
        let again = sold
            .again
            .filter(|again| again.sure && Some(again.asks) == ROUTES[errand.route].request(errand.asks) && now <= again.until);
        must!(
            again.is_none(),
            "paid is delivered, or to be had",
            "visit {visit} is answered {status}, and its payment's answer was not delivered: {again:?}"
        );
        let request = ROUTES[errand.route].request(errand.asks);
        let waits = request.is_some() && refusable.is_none() && now <= expiry && !sold.early;
        // An answer that is had again is waited for as long as it could be had.
        let waits = waits && sold.out.is_none_or(|out| Some(out) == request && now <= sold.known_until);
        must!(
            sold.under_way.is_empty() || status != 402 || !waits,
            "nobody pays again for what is under way",
            "visit {visit} is challenged, and {:?} are under way for its payment",
            sold.under_way
        );
    });
}
