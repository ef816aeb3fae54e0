//! What must always hold (DESIGN, section 6), by what the chain, the facilitators, the backend and the clients have seen.
//!
//! Each check has a name. Functions are called by the part of the world that sees something happen, and stop the run where it must not.

use std::panic::resume_unwind;

use x402_envoy::gate::{Note, Notes};
use x402_envoy::pricing::End;
use x402_envoy::replay::State;
use x402_envoy::x402::Answer;

use super::chain::Told;
use super::facilitator::Reply;
use super::shop::{COMPLETION, Flow, PROMPT, SKEW, Start, Way};
use super::support::world::header;
use super::wallet::SHORT;
use super::world::World;

/// What did not hold, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub name: &'static str,
    pub why: String,
}

/// Stops the run.
pub fn violated(name: &'static str, why: impl Into<String>) -> ! {
    let why = why.into();
    // Not a panic that anybody need see: the run is played again, and then told about.
    resume_unwind(Box::new(Violation { name, why }))
}

macro_rules! must {
    ($holds:expr, $name:literal, $($why:tt)+) => {
        if !$holds {
            violated($name, format!($($why)+));
        }
    };
}

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

/// A facilitator is called. `amount`: to settle so much.
pub fn called(world: &World, visit: usize, payment: usize, amount: Option<u64>) {
    let (mut crowd, chain) = (world.crowd.borrow_mut(), world.chain.borrow());
    crowd.visits[visit].calls += 1;
    let (seen, paying) = (&crowd.visits[visit], &crowd.payments[payment]);
    let spend = &chain.spends[paying.spend];
    must!(
        seen.errand.payment.is_some_and(|sent| crowd.payments[sent].proof == paying.proof),
        "a request pays with its own payment",
        "visit {visit} calls for payment {payment}"
    );
    if let Some(why) = seen.refusable {
        violated(
            "no call for what can be refused",
            format!("visit {visit} calls for payment {payment}: {why}"),
        );
    }
    let Some(amount) = amount else {
        // Whoever is asked next, because the first did not answer, may be late.
        must!(
            spend.paid_by.is_none() || spend.expiry < world.now_s() || seen.calls > 1,
            "no call for what can be refused",
            "visit {visit} verifies payment {payment}, which is spent"
        );
        return;
    };
    let route = seen.route();
    must!(
        amount <= route.quote,
        "never more than the quote",
        "visit {visit} settles {amount} of {}",
        route.quote
    );
    must!(
        amount <= paying.amount,
        "never more than was signed",
        "visit {visit} settles {amount} of {}",
        paying.amount
    );
    must!(
        paying.way.is_upto() || amount == route.quote,
        "exact pays the quote",
        "visit {visit} settles {amount}, not {}",
        route.quote
    );
    must!(
        spend.paid_by.is_none(),
        "settled once",
        "visit {visit} settles payment {payment} again"
    );
    for attempt in &spend.attempts {
        let attempt = &chain.attempts[*attempt];
        must!(
            attempt.told.is_some(),
            "settled once",
            "visit {visit} settles what visit {} is settling",
            attempt.visit
        );
        must!(
            !spend.delivered || attempt.visit == visit,
            "settled once",
            "visit {visit} settles what was delivered to visit {}",
            attempt.visit
        );
    }
    if route.meters(paying.way) {
        must!(
            seen.served || seen.backend.is_some(),
            "nothing for nothing",
            "visit {visit} settles and had no answer"
        );
        if let Some(told) = seen.told_amount {
            must!(
                amount == told,
                "what the backend says is charged",
                "visit {visit} settles {amount}, not {told}"
            );
        } else if let Some(usage) = seen.usage_amount.filter(|_| route.tokens && seen.whole) {
            let usage = usage.min(route.quote);
            must!(
                amount == usage,
                "what was used is charged",
                "visit {visit} settles {amount}, not {usage}"
            );
        }
        return;
    }
    if let Some(told) = seen.told_amount {
        must!(
            amount == told,
            "what the backend says is charged",
            "visit {visit} settles {amount}, not {told}"
        );
    }
    match (route.flow, seen.backend) {
        (Flow::Upfront, None) => must!(
            (paying.smart.is_none() && paying.way != Way::Solana) || seen.verified || seen.resumes,
            "nobody is charged whom nobody vouches for",
            "visit {visit} settles a payment that is not proven"
        ),
        (_, None) => must!(seen.resumes, "nothing for nothing", "visit {visit} settles and has no answer"),
        (_, Some((status, from_backend))) => must!(
            from_backend && (200..400).contains(&status),
            "nothing for a failure",
            "visit {visit} settles for {status} ({})",
            if from_backend { "the backend's" } else { "not the backend's" }
        ),
    }
}

/// A settlement is handed to the root context.
pub fn settling(world: &World, visit: usize) {
    let metered = world.meters(visit);
    let doubt = world
        .spend_of(visit)
        .is_some_and(|spend| world.chain.borrow().spends[spend].in_doubt(world.now_s()));
    let expiry = world.visits(visit, |seen| {
        seen.settling = true;
        seen.resumes = doubt;
        seen.expiry
    });
    if let Some(spend) = world.spend_of(visit).filter(|_| doubt) {
        // The claim is held for as long as this payment is good, too.
        let mut chain = world.chain.borrow_mut();
        chain.spends[spend].expiry = chain.spends[spend].expiry.max(expiry);
    }
    must!(
        metered || world.now_s() <= expiry,
        "nothing is settled after its time",
        "visit {visit}'s payment expired at {expiry}, it is {}",
        world.now_s()
    );
}

/// The facilitator's good word reaches the gate.
pub fn vouched(world: &World, visit: usize) {
    world.visits(visit, |seen| seen.verified = true);
    owes(world, visit);
}

/// From here on its answer is owed for, if it is metered.
fn owes(world: &World, visit: usize) {
    let begins = world.visits(visit, |seen| {
        seen.verified && seen.forwarded && !seen.served && seen.outcome.is_none()
    });
    if begins && world.meters(visit) {
        world.owing.borrow_mut().insert(visit);
    }
}

/// The request goes to the backend.
pub fn forwarded(world: &World, visit: usize) {
    let (route, payment, refusable) = world.visits(visit, |seen| {
        seen.forwarded = true;
        (seen.route(), seen.errand.payment, seen.refusable)
    });
    if route.flow == Flow::Free {
        return;
    }
    let Some(payment) = payment else {
        violated(
            "no answer without a payment",
            format!("visit {visit} has none and goes to the backend"),
        );
    };
    if let Some(why) = refusable {
        violated("no answer without a payment", format!("visit {visit} goes to the backend: {why}"));
    }
    let spend = world.spend_of(visit).unwrap();
    let verified = world.visits(visit, |seen| seen.verified);
    {
        let (crowd, mut chain) = (world.crowd.borrow(), world.chain.borrow_mut());
        let paying = &crowd.payments[payment];
        let spend = &mut chain.spends[spend];
        let paid = crowd.visits[visit].paid;
        let vouches = paying.smart.is_none();
        let may_begin = match (route.flow, route.start) {
            (Flow::Upfront, _) => paid,
            (_, Start::Before) => verified || paid,
            (_, Start::Overlap) => verified || paid || vouches,
            (_, Start::Local) => verified || paid || (vouches && paying.way != Way::Solana),
        };
        must!(
            may_begin,
            "nothing begins too early",
            "visit {visit} goes to the backend, verified: {verified}, paid: {paid}"
        );
        must!(
            paid || spend.paid_by.is_none(),
            "a payment pays once",
            "visit {visit} uses a payment that is spent"
        );
        must!(
            !spend.delivered,
            "a payment pays once",
            "visit {visit} uses a payment that has bought an answer"
        );
        if let Some(user) = spend
            .user
            .filter(|user| *user != visit && !paid && crowd.visits[*user].expiry >= world.now_s())
        {
            violated(
                "one request for a payment at a time",
                format!("visits {user} and {visit} go on with one payment"),
            );
        }
        if !paid {
            spend.user = Some(visit);
            spend.expiry = spend.expiry.max(crowd.visits[visit].expiry);
        }
    }
    owes(world, visit);
}

/// The answer's headers are here.
pub fn backend_answered(world: &World, visit: usize, status: u16, from_backend: bool) {
    world.visits(visit, |seen| seen.backend = Some((status, from_backend)));
}

/// The answer's headers leave for the client.
pub fn headers_left(world: &World, visit: usize, (status, from_backend): (u16, bool), ended: bool, claim: Option<State>) {
    let (route, told_amount, verified) = world.visits(visit, |seen| (seen.route(), seen.told_amount, seen.verified));
    if route.flow == Flow::Free {
        world.count("answer: free");
        return;
    }
    let spend = world.spend_of(visit);
    let paid = world.visits(visit, |seen| seen.paid);
    let sold = from_backend && (200..400).contains(&status);
    if !sold {
        must!(
            paid || status >= 400,
            "no answer without a payment",
            "visit {visit} has {status} that is not the backend's"
        );
        world.count(if paid {
            "answer: paid and failed"
        } else {
            "answer: failed, and free"
        });
        if !paid {
            world.frees(visit);
        }
        return;
    }
    let Some(spend) = spend else {
        violated("no answer without a payment", format!("visit {visit} has none and is answered"));
    };
    world.visits(visit, |seen| seen.served = true);
    let metered = world.meters(visit);
    let is_free = told_amount == Some(0) || (metered && told_amount.is_none() && world.shop.missing_usage_is_free);
    if metered && !ended {
        must!(verified, "a metered answer is verified", "visit {visit} has one and is not");
        let stuck = world.chain.borrow().spends[spend].stuck;
        must!(
            stuck || matches!(claim, Some(State::InUse | State::Left)),
            "a metered answer is claimed",
            "visit {visit} has one and its claim is {claim:?}"
        );
        world.count("answer: metered");
    } else if is_free && !paid {
        must!(
            !metered || verified,
            "a metered answer is verified",
            "visit {visit} has one and is not"
        );
        world.count("answer: nothing due");
        world.owing.borrow_mut().remove(&visit);
        world.frees(visit);
        return;
    } else {
        must!(paid, "paid before it leaves", "visit {visit} has an answer that is not paid for");
        world.count("answer: paid");
    }
    let served = {
        let mut chain = world.chain.borrow_mut();
        chain.spends[spend].served += 1;
        chain.spends[spend].served
    };
    must!(
        served == 1,
        "a payment pays once",
        "visit {visit} has answer {served} for one payment"
    );
}

/// The end of the answer is here.
pub fn whole(world: &World, visit: usize) {
    world.visits(visit, |seen| seen.whole = true);
}

/// A client is answered in the backend's place.
pub fn answered(world: &World, visit: usize, answer: &Answer) {
    let challenge = header(answer, "payment-required").is_some();
    must!(
        challenge == matches!(answer.status, 402 | 412) || answer.status == 402,
        "a challenge is a 402",
        "visit {visit}: {}",
        answer.status
    );
    world.count(match answer.status {
        400 => "answer: 400",
        402 => "answer: 402",
        409 => "answer: 409",
        429 => "answer: 429",
        502 => "answer: 502",
        503 => "answer: 503",
        status => violated("answers are known", format!("visit {visit} is answered {status}")),
    });
    let (served, refusable, attempts) = world.visits(visit, |seen| {
        seen.challenged |= challenge;
        (seen.served, seen.refusable, seen.attempts.clone())
    });
    must!(
        !served,
        "one answer for each request",
        "visit {visit} is answered {} after it was",
        answer.status
    );
    let reason = String::from_utf8_lossy(&answer.body);
    if answer.status == 503 && reason.contains("settlement_pending") {
        world.count("answer: settlement pending");
    }
    world.frees(visit);
    let Some(spend) = world.spend_of(visit) else {
        must!(challenge, "who does not pay is challenged", "visit {visit}: {}", answer.status);
        return;
    };
    if !challenge {
        return;
    }
    let chain = world.chain.borrow();
    must!(
        refusable.is_some_and(|why| why != SHORT) || !chain.spends[spend].in_doubt(world.now_s()),
        "no challenge in doubt",
        "visit {visit} is challenged, and it is not known whether its payment was settled: {reason}"
    );
    for attempt in attempts {
        let attempt = &chain.attempts[attempt];
        must!(
            !attempt.mined || attempt.lied,
            "who has paid is not asked again",
            "visit {visit} is challenged and its payment was settled"
        );
    }
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
        world.visits(visit, |seen| seen.attempts.push(attempt));
    }
    if let Some(reverted) = reply.reverted {
        chain.attempts[reverted].named = false;
    }
    let expiry = world.visits(visit, |seen| seen.expiry);
    if told == Told::Unknown {
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
    world.visits(visit, |seen| seen.settling = false);
    match conclusion {
        Conclusion::Paid => {
            justified(world, visit, spend);
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
    let used = attempts().any(|attempt| attempt.told == Some(Told::Used));
    must!(
        used,
        "paid before it leaves",
        "visit {visit} is taken for paid, and nothing says that it is"
    );
    if attempts().any(|attempt| attempt.named) {
        world.count("paid: by a transaction that was named");
        return;
    }
    let (limit, payer) = (world.shop.used_nonce_limit, chain.spends[spend].payer);
    must!(
        cost <= limit,
        "little is inferred",
        "visit {visit} is taken for paid, {cost} is more than {limit}"
    );
    must!(
        !resumes,
        "little is inferred",
        "visit {visit} is taken for paid by what an earlier request had sent"
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
    world.count("paid: inferred");
}

/// A settlement is given up before it was sent.
pub fn abandoned(world: &World, visit: usize) {
    let served = world.visits(visit, |seen| {
        seen.settling = false;
        seen.served
    });
    must!(
        !served,
        "what was delivered is settled",
        "visit {visit} had its answer, and its settlement is given up"
    );
    world.frees(visit);
}

/// A metered answer has ended, and its gate says whether it is to be settled.
pub fn left(world: &World, visit: usize, end: End, settles: bool, reads: bool) {
    if settles || !reads {
        return;
    }
    let free = world.visits(visit, |seen| {
        let nothing = seen.delivered == 0;
        let told = seen.told_amount == Some(0) || seen.usage_amount == Some(0);
        let failed = end == End::BackendFailed && (nothing || world.shop.failures_are_free);
        told || failed || (end == End::Interrupted && nothing) || (seen.usage_amount.is_none() && world.shop.missing_usage_is_free)
    });
    must!(
        free,
        "what was delivered is settled",
        "visit {visit} ended by {end:?}, and nothing is settled"
    );
    world.count("metered: nothing due");
    world.frees(visit);
    world.owing.borrow_mut().remove(&visit);
    let spend = world.spend_of(visit).unwrap();
    let mut chain = world.chain.borrow_mut();
    chain.spends[spend].served = 0;
}

/// A stream is over.
pub fn over(world: &World, visit: usize) {
    if !world.visits(visit, |seen| seen.settling) {
        world.frees(visit);
    }
}

/// The VM that had a request, or its settlement, is gone.
pub fn orphaned(world: &World, visit: usize) {
    if let Some(spend) = world.spend_of(visit) {
        let expiry = world.visits(visit, |seen| seen.expiry);
        let mut chain = world.chain.borrow_mut();
        let doubt = chain.spends[spend]
            .attempts
            .iter()
            .any(|attempt| chain.attempts[*attempt].told.is_none());
        let spend = &mut chain.spends[spend];
        spend.orphaned = true;
        spend.unclear |= doubt;
        spend.delivered |= spend.served > 0;
        spend.expiry = spend.expiry.max(expiry);
    }
}

/// What a gate notes for metrics, access logs and Envoy's log.
pub fn noted(world: &World, visit: Option<usize>, notes: &Notes) {
    for event in &notes.events {
        if let Note::Claims(net) = event {
            world.gauge.set(world.gauge.get() + net);
        }
    }
    let texts = notes.attributes.iter().map(|(_, value)| value).chain(&notes.warnings);
    let crowd = world.crowd.borrow();
    let payment = visit.and_then(|visit| crowd.visits[visit].errand.payment);
    let proof = payment.map(|payment| crowd.payments[payment].proof.as_str());
    for text in texts {
        let secrets = [PROMPT, COMPLETION];
        let told = secrets.iter().find(|secret| text.contains(**secret)).copied();
        let told = told.or_else(|| proof.filter(|proof| text.contains(&proof[2..34])));
        must!(told.is_none(), "no secret is noted", "visit {visit:?}: {text}");
    }
}

/// After each step: nobody waits for ever, claims in use have a user, nobody owes too much, the gauge is right.
pub fn after_step(world: &World) {
    for worker in &world.workers {
        let worker = worker.borrow();
        for stream in worker.streams.values() {
            let called = stream.token.is_some_and(|token| world.desk.borrow().flights.contains(&token));
            let hears = || worker.roots.get(&stream.root).is_some_and(|root| root.will_hear(stream.context()));
            must!(
                !stream.waits() || (stream.verifies() && called) || hears(),
                "nobody waits for ever",
                "visit {} waits and no call is on its way ({:?}, {:?})",
                stream.visit,
                stream.asking,
                stream.answering
            );
        }
    }
    claims_have_users(world);
    debts_are_bounded(world);
    must!(
        world.gauge.get() == world.records(),
        "the gauge counts claims",
        "it says {}, there are {}",
        world.gauge.get(),
        world.records()
    );
}

fn claims_have_users(world: &World) {
    for spend in std::mem::take(&mut *world.dirty.borrow_mut()) {
        let (claim, excused, user) = {
            let chain = world.chain.borrow();
            let spend = &chain.spends[spend];
            let user = spend.user.filter(|user| world.visits(*user, |seen| seen.expiry) >= world.now_s());
            (spend.claim, spend.stuck || spend.orphaned, user)
        };
        let state = world.state_of(&claim);
        if excused {
            continue;
        }
        if let Some(user) = user {
            must!(
                matches!(state, Some(State::InUse | State::Retaken | State::Left)),
                "a payment in use is claimed",
                "visit {user} goes on with a payment whose claim is {state:?}"
            );
        }
        if matches!(state, Some(State::InUse | State::Retaken)) {
            let used = |visit: usize| world.spend_of(visit) == Some(spend);
            let has_user = world.workers.iter().any(|worker| worker.borrow().has(used));
            must!(has_user, "every claim ends", "spend {spend} is {state:?}, and nobody uses it");
        }
    }
}

/// Metered answers that are not settled are within the limits of each payer and of all together.
fn debts_are_bounded(world: &World) {
    let now = world.now_s();
    let mut sums = std::collections::BTreeMap::new();
    let mut totals = std::collections::BTreeMap::new();
    world.owing.borrow_mut().retain(|visit| {
        let (payment, route) = world.visits(*visit, |seen| (seen.errand.payment.unwrap(), seen.errand.route));
        let (valid_before, payer, amount) = {
            let crowd = world.crowd.borrow();
            let payment = &crowd.payments[payment];
            (payment.valid_before, payment.payer, payment.amount)
        };
        if valid_before + SKEW < now {
            return false;
        }
        *sums.entry((route, payer)).or_insert(0) += amount;
        *totals.entry(route).or_insert(0) += amount;
        true
    });
    for ((route, payer), sum) in sums {
        must!(
            sum <= world.shop.exposure_payer,
            "nobody owes too much",
            "payer {payer} owes {sum} on route {route}, of {}: visits {:?}",
            world.shop.exposure_payer,
            world.owing.borrow()
        );
    }
    for (route, total) in totals {
        must!(
            total <= world.shop.exposure_total,
            "nobody owes too much",
            "all owe {total} on route {route}, of {}: visits {:?}",
            world.shop.exposure_total,
            world.owing.borrow()
        );
    }
}
