//! What was paid for is delivered once, or can be had again for a while: by what was sold, and by what clients have had of it.

use std::collections::BTreeSet;

use serde_json::Value;
use x402_envoy::pricing::End;
use x402_envoy::replay::State;

use super::super::shop::{Asks, ROUTES};
use super::super::support::unbase64;
use super::super::wallet::{AMOUNT, EXPIRED, RESOURCE};
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
    /// What was settled for it, in the smallest unit, and when its claim expires.
    amount: u64,
    expires: u64,
    /// How many requests each settlement buys.
    each: u32,
    /// Some of them are certainly left to be had, and so many are being given back.
    sure: bool,
    returning: u32,
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

    /// How many may begin in vain. How many of several did is forgotten when the payment expires, and is counted anew for what is under way
    /// still.
    fn tries(&self) -> u32 {
        if self.each > 1 { 2 * self.times } else { self.times }
    }

    fn most(&self) -> u32 {
        self.requests + self.tries()
    }
}

fn with<T>(world: &World, visit: usize, look: impl FnOnce(&mut Sold) -> T) -> Option<T> {
    world.sold.borrow_mut().get_mut(&world.identity(visit)?).map(look)
}

/// A settlement is about to be heard of that may sell several requests: others may have them before this one.
pub fn selling(world: &World, visit: usize) {
    if world.visits(visit, |seen| seen.route().requests) > 1 {
        sell(world, visit);
    }
}

/// It has been heard of, and was sold for its answer if so it `is_paid`.
pub fn sold(world: &World, visit: usize, is_paid: bool) {
    let requests = world.visits(visit, |seen| seen.route().requests);
    if requests == 1 {
        if is_paid {
            sell(world, visit);
        }
        return;
    }
    with(world, visit, |sold| {
        sold.changes += 1;
        if is_paid {
            sold.sure = true;
            return;
        }
        sold.under_way.remove(&visit);
        sold.requests -= requests;
        sold.times -= world.shop.times;
    });
    world.sold.borrow_mut().retain(|_, sold| sold.requests > 0);
}

fn sell(world: &World, visit: usize) {
    let (errand, early, expiry, quote) = world.visits(visit, |seen| (seen.errand, seen.left_pending, seen.expiry, seen.quote));
    let mut all = world.sold.borrow_mut();
    let sold = all.entry(world.identity(visit).unwrap()).or_default();
    sold.route = errand.route;
    sold.each = ROUTES[errand.route].requests;
    sold.requests += sold.each;
    (sold.amount, sold.expires, sold.sure) = (quote, expiry, false);
    sold.times += if world.meters(visit) { 0 } else { world.shop.times };
    sold.under_way.insert(visit);
    sold.receipt = None;
    sold.early = early;
    sold.out = None;
    sold.changes += 1;
}

/// A request goes to the backend, and its payment was spent before: it must be one whose answer was not delivered. Whether it is.
pub fn entitled(world: &World, visit: usize) -> bool {
    let (errand, refusable, quote) = world.visits(visit, |seen| (seen.errand, seen.refusable, seen.quote));
    let now = world.now_s();
    let known = with(world, visit, |sold| {
        // One of several may cost less than was paid, and be for another resource.
        let excused = match refusable {
            None | Some(EXPIRED) => true,
            Some(why) => sold.each > 1 && [AMOUNT, RESOURCE].contains(&why) && quote <= sold.amount,
        };
        must!(
            excused && sold.route == errand.route,
            "a payment buys what it was sold for",
            "visit {visit} for {quote} on {} is served for {} on {}: {refusable:?}",
            ROUTES[errand.route].name,
            sold.amount,
            ROUTES[sold.route].name
        );
        if sold.each > 1 && now <= sold.expires {
            let used = sold.complete + u32::try_from(sold.under_way.len()).unwrap();
            must!(
                used < sold.requests,
                "delivered once",
                "visit {visit} is served for a payment that buys {}, of which {used} are used",
                sold.requests
            );
            sold.under_way.insert(visit);
            sold.changes += 1;
            return "delivery: one of several";
        }
        must!(
            sold.complete < sold.requests,
            "delivered once",
            "visit {visit} is served again, and its payment's answer was delivered"
        );
        must!(
            sold.under_way.is_empty() || sold.each > 1,
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
        "delivery: served again"
    });
    if let Some(how) = known {
        world.count(how);
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
    // Its claim may be another payment's by now, which is marked as spent then: its nonce is.
    let has_lapsed = world.visits(visit, |seen| seen.expiry) < world.now_s();
    if let Some(spend) = world.spend_of(visit).filter(|_| has_lapsed) {
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
        let forgotten = again && sold.out.is_some() && begun && now > sold.known_until;
        let is_left = sold.times > 0 && (!begun || sold.vain <= sold.tries()) && !forgotten;
        let request = ROUTES[errand.route].request(errand.asks).filter(|_| is_left);
        sold.returning += u32::from(sold.each > 1);
        sold.again = request.map(|asks| Again { asks, until, sure: false });
        sold.known_until = until;
        sold.changes
    })
}

/// The gate has heard of the end of a delivery. `change`: what [`ending`] gave.
pub fn ended(world: &World, visit: usize, change: Option<u32>) {
    let spend = world.spend_of(visit);
    if let Some(spend) = spend.filter(|spend| world.chain.borrow().spends[*spend].overtaken) {
        let claim = world.chain.borrow().spends[spend].claim;
        world.chain.borrow_mut().spends[spend].overtaken = world.state_of(&claim) == Some(State::Spent);
    }
    let stuck = spend.is_some_and(|spend| world.chain.borrow().spends[spend].stuck);
    with(world, visit, |sold| {
        if sold.each > 1 {
            sold.returning -= u32::from(change.is_some());
            sold.changes += 1;
        } else if let Some(again) = sold.again.as_mut().filter(|_| Some(sold.changes) == change && !stuck) {
            again.sure = true;
        }
    });
}

/// Whether a payment that nobody has vouched for now may buy a request by what was settled before.
pub fn buys_more(world: &World, visit: usize) -> bool {
    let verified = world.visits(visit, |seen| seen.verified);
    let buys = |sold: &mut Sold| (sold.each > 1 && world.now_s() <= sold.expires) || sold.again.is_some();
    !verified && with(world, visit, buys).unwrap_or(false)
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
    let now = world.now_s();
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
        let used = sold.complete + u32::try_from(sold.under_way.len()).unwrap() + sold.vain.saturating_sub(sold.times);
        let left = sold.each > 1 && sold.sure && sold.returning == 0 && now <= sold.expires && refusable.is_none();
        must!(
            !left || used >= sold.requests,
            "paid is delivered, or to be had",
            "visit {visit} is answered {status}, and its payment buys {}, of which {used} are used",
            sold.requests
        );
        let again = sold
            .again
            .filter(|again| again.sure && Some(again.asks) == ROUTES[errand.route].request(errand.asks) && now <= again.until);
        must!(
            again.is_none(),
            "paid is delivered, or to be had",
            "visit {visit} is answered {status}, and its payment's answer was not delivered: {again:?}"
        );
        let request = ROUTES[errand.route].request(errand.asks);
        let waits = request.is_some() && refusable.is_none() && now <= sold.expires && !sold.early;
        // An answer that is had again is waited for as long as it could be had.
        let waits = waits && sold.out.is_none_or(|out| Some(out) == request && now <= sold.known_until);
        must!(
            sold.under_way.is_empty() || sold.each > 1 || status != 402 || !waits,
            "nobody pays again for what is under way",
            "visit {visit} is challenged, and {:?} are under way for its payment",
            sold.under_way
        );
    });
}
