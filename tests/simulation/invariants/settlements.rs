//! How settlements end: by what the gate was told, and by what is true.

use super::super::chain::{Attempt, Told};
use super::super::facilitator::Reply;
use super::super::shop::{Asks, ROUTES, Way};
use super::super::world::World;
use super::{must, violated};

/// How long a name is certainly remembered after its payment was settled, in seconds: `pre_check.max_validity`, since it was claimed.
const NAMED: u64 = 2400;

/// How a settlement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Paid,
    /// The client was answered this status in the backend's place.
    Answered(u16),
    /// The answer was delivered, and ends without a receipt.
    Unsettled,
    /// The answer was delivered, and is broken off.
    Broken,
}

/// The chain has moved money to the seller.
pub fn charged(world: &World, attempt: usize) {
    let chain = world.chain.borrow();
    let attempt = &chain.attempts[attempt];
    let challenged = world.visits(attempt.visit, |seen| seen.challenged);
    must!(
        !challenged || attempt.lied,
        "who has paid is not asked again",
        "visit {} is charged after it was challenged",
        attempt.visit
    );
    world.count("chain: settled");
}

/// A reply to /settle reaches the gate.
pub fn told(world: &World, visit: usize, attempt: Option<usize>, reply: &Reply) {
    let spend = world.spend_of(visit).unwrap();
    let told = reply.told.unwrap();
    let mut chain = world.chain.borrow_mut();
    if let Some(attempt) = attempt {
        chain.attempts[attempt].told = Some(told);
        chain.attempts[attempt].named = reply.names;
        chain.attempts[attempt].reverted = reply.reverted == Some(attempt);
        world.visits(visit, |seen| seen.attempts.push(attempt));
    }
    if let Some(reverted) = reply.reverted {
        chain.attempts[reverted].named = false;
    }
    let expiry = world.visits(visit, |seen| seen.expiry);
    if told == Told::Unknown && expiry >= world.now_s() {
        let spend = &mut chain.spends[spend];
        spend.unclear = true;
        spend.expiry = spend.expiry.max(expiry);
    }
    world.count(match told {
        Told::Settled => "told: settled",
        Told::Refused => "told: refused",
        Told::Used => "told: nonce used",
        Told::Unknown => "told: unknown",
        Told::NotSent => "told: not sent",
    });
}

/// A settlement has ended, for the gate.
pub fn concluded(world: &World, visit: usize, conclusion: Conclusion) {
    let spend = world.spend_of(visit).unwrap();
    // Without a body there was no end to wait for: nothing has left.
    let delivered = world.meters(visit) && world.visits(visit, |seen| seen.served);
    world.visits(visit, |seen| {
        seen.settling = false;
        seen.unresolved = matches!(conclusion, Conclusion::Unsettled | Conclusion::Answered(503));
    });
    super::sold(world, visit, conclusion == Conclusion::Paid && !delivered);
    match conclusion {
        Conclusion::Paid => {
            justified(world, visit, spend);
            named(world, visit);
            let mut chain = world.chain.borrow_mut();
            let expiry = world.visits(visit, |seen| {
                seen.paid = true;
                seen.expiry
            });
            let spend = &mut chain.spends[spend];
            spend.expiry = spend.expiry.max(expiry);
            spend.paid_by = Some(visit);
            spend.unclear = false;
            spend.user = None;
        }
        Conclusion::Answered(status) => {
            must!(!delivered, "what was delivered is not answered again", "visit {visit}: {status}");
            let mut chain = world.chain.borrow_mut();
            let spend = &mut chain.spends[spend];
            must!(
                status == 503 || !spend.in_doubt(world.now_s()),
                "no challenge in doubt",
                "visit {visit}'s settlement is not known, and it is answered {status}"
            );
            spend.user = None;
        }
        Conclusion::Unsettled => {
            must!(delivered, "only metered answers end so", "visit {visit}");
            let mut chain = world.chain.borrow_mut();
            let spend = &mut chain.spends[spend];
            spend.delivered = true;
            spend.user = None;
            world.count("metered: not known to be settled");
        }
        Conclusion::Broken => {
            must!(delivered, "only metered answers end so", "visit {visit}");
            let mut chain = world.chain.borrow_mut();
            let spend = &mut chain.spends[spend];
            must!(
                !spend.in_doubt(world.now_s()),
                "in doubt nobody is blamed",
                "visit {visit} is broken off, and may have paid"
            );
            spend.delivered = true;
            spend.user = None;
            world.count("metered: served and not settled");
        }
    }
    // What is known to be settled, or never to be, is not owed any more.
    if conclusion != Conclusion::Unsettled {
        world.owing.borrow_mut().remove(&visit);
    }
}

/// What a payer calls a payment is no other one's, nor one's for another request.
fn named(world: &World, visit: usize) {
    let (errand, identity) = (world.visits(visit, |seen| seen.errand), world.identity(visit).unwrap());
    let (name, payer, way) = {
        let crowd = world.crowd.borrow();
        let payment = &crowd.payments[errand.payment.unwrap()];
        (payment.name.clone(), payment.payer, payment.way)
    };
    let Some(name) = name else { return };
    let route = &ROUTES[errand.route];
    // Several requests go by one name.
    let request = route.request(errand.asks).filter(|_| route.requests == 1);
    let meaning = (identity, request, errand.route, world.now_s());
    let before = world.names.borrow_mut().insert((payer, way == Way::Solana, name), meaning);
    let same = |before: (usize, Option<Asks>, usize, u64)| (before.0, before.1) == (identity, request);
    must!(
        before.is_none_or(|before| same(before) || before.3 + NAMED < world.now_s()),
        "one payment for each name",
        "visit {visit} pays with {meaning:?}, and its name stands for {before:?}"
    );
}

/// Taken for paid: by the chain, by a lie, by a transaction that was named, or by the little that may be inferred.
fn justified(world: &World, visit: usize, spend: usize) {
    let chain = world.chain.borrow();
    let amount = chain.settled(spend);
    let (attempts, resumes) = world.visits(visit, |seen| (seen.attempts.clone(), seen.resumes));
    let attempts = || attempts.iter().map(|attempt| &chain.attempts[*attempt]);
    let cost = attempts().map(|attempt| attempt.amount).max().unwrap_or(u64::MAX);
    if amount.is_some_and(|moved| moved >= cost) {
        // By this settlement, or one that was sent before and left in doubt; not by a cheaper one with the same nonce.
        world.count("paid: settled");
        return;
    }
    if attempts().any(|attempt| attempt.lied && attempt.told == Some(Told::Settled)) {
        world.count("paid: by a lie");
        return;
    }
    // A nonce that is used, or a transaction that fails for no other reason that is known: not the one that was hoped for.
    let used = attempts().any(|attempt| attempt.told == Some(Told::Used) || attempt.reverted);
    must!(
        used,
        "paid before it leaves",
        "visit {visit} is taken for paid, and nothing says that it is"
    );
    let (limit, payer) = (world.shop.used_nonce_limit, chain.spends[spend].payer);
    must!(
        cost <= limit,
        "little is inferred",
        "visit {visit} is taken for paid, {cost} is more than {limit}"
    );
    let payment = world.identity(visit);
    // What had expired by then is forgotten: nobody can tell that from a nonce that the payer has burnt.
    let is_others = |attempt: &Attempt| {
        let lives = world.visits(attempt.visit, |seen| seen.expiry) >= world.now_s();
        Some(attempt.payment) != payment && lives && matches!(attempt.told, None | Some(Told::Unknown))
    };
    let others = chain.spends[spend]
        .attempts
        .iter()
        .find(|attempt| is_others(&chain.attempts[**attempt]));
    must!(
        !resumes || others.is_none(),
        "little is inferred",
        "visit {visit} is taken for paid by what was sent for another payment: attempt {others:?} of spend {spend}"
    );
    let now = world.now_s();
    // Accounts of different networks are different payers.
    let account = (payer, world.route_and_way(visit).1 == Some(Way::Solana));
    let before = world.inferred.borrow_mut().insert(account, now);
    must!(
        before.is_none_or(|before| now - before >= 3600),
        "little is inferred",
        "payer {payer} had an answer for a used nonce at {before:?} and has another at {now}"
    );
    world.count(if resumes {
        "paid: inferred when it came again"
    } else {
        "paid: inferred"
    });
}
