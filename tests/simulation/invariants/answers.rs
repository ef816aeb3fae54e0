//! What backends and clients get, and for what.

use x402_envoy::pricing::End;
use x402_envoy::replay::State;
use x402_envoy::x402::Answer;

use super::super::facilitator::INVALID;
use super::super::host::stream::Headers;
use super::super::shop::{FORGED, Flow, Start, Way};
use super::super::support::unbase64;
use super::super::support::world::header;
use super::super::wallet::SHORT;
use super::super::world::World;
use super::{must, violated};

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
pub fn forwarded(world: &World, visit: usize, headers: &Headers) {
    let (route, payment, refusable) = world.visits(visit, |seen| {
        seen.forwarded = true;
        (seen.route(), seen.errand.payment, seen.refusable)
    });
    let says = |name: &str| headers.iter().filter(|(sent, _)| sent == name).count();
    must!(
        headers.iter().all(|(_, value)| value != FORGED),
        "only the filter says who pays",
        "visit {visit} says so to the backend: {headers:?}"
    );
    if route.flow == Flow::Free {
        return;
    }
    must!(
        says("x-x402-payer") == 1 && says("payment-signature") + says("x-payment") == 0,
        "the backend sees who pays, and no payment",
        "visit {visit} goes to the backend with {headers:?}"
    );
    let Some(payment) = payment else {
        violated(
            "no answer without a payment",
            format!("visit {visit} has none and goes to the backend"),
        );
    };
    let spend = world.spend_of(visit).unwrap();
    let (verified, settled) = world.visits(visit, |seen| (seen.verified, seen.paid));
    let is_spent = world.chain.borrow().spends[spend].paid_by.is_some();
    let before = is_spent || refusable.is_some() || super::buys_more(world, visit);
    let again = !settled && before && super::entitled(world, visit);
    if let Some(why) = refusable.filter(|_| !again) {
        violated("no answer without a payment", format!("visit {visit} goes to the backend: {why}"));
    }
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
            again || !spend.delivered,
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
            super::let_in(world, visit, &crowd.visits[visit], paying);
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
pub fn headers_left(
    world: &World,
    visit: usize,
    (status, from_backend): (u16, bool),
    ended: bool,
    claim: Option<State>,
    headers: &Headers,
) {
    let (route, told_amount, verified) = world.visits(visit, |seen| (seen.route(), seen.told_amount, seen.verified));
    if route.flow == Flow::Free {
        world.count("answer: free");
        return;
    }
    let spend = world.spend_of(visit);
    let paid = world.visits(visit, |seen| seen.paid);
    let receipts: Vec<&(String, String)> = headers.iter().filter(|(name, _)| name.ends_with("payment-response")).collect();
    // What is metered has its receipt at its end, and what costs nothing may have one that says so.
    must!(
        receipts
            .iter()
            .all(|(_, receipt)| receipt != FORGED && unbase64(receipt)["success"] == true)
            && (receipts.len() == 1 || !paid),
        "who has paid gets the receipt",
        "visit {visit}, paid: {paid}, gets {receipts:?}"
    );
    must!(
        headers.iter().all(|(name, _)| name != "settlement-overrides"),
        "what the backend says to the filter stays there",
        "visit {visit} gets {headers:?}"
    );
    if let Some((_, value)) = receipts.first().filter(|_| paid) {
        super::receipt(world, visit, value);
    }
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
        super::begins(world, visit);
        if world.visits(visit, |seen| seen.again) {
            return;
        }
    }
    if world.visits(visit, |seen| seen.expiry) < world.now_s() {
        // It was paid for in time; what others make of the nonce by now is another payment's affair.
        return;
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
    let (served, refusable, attempts, expiry) = world.visits(visit, |seen| {
        seen.challenged |= challenge;
        (seen.served, seen.refusable, seen.attempts.clone(), seen.expiry)
    });
    must!(
        !served,
        "one answer for each request",
        "visit {visit} is answered {} after it was",
        answer.status
    );
    let reason = String::from_utf8_lossy(&answer.body);
    if answer.status == 409 && reason.contains("payment_identifier_conflict") {
        world.count("answer: a name of another payment");
    }
    if answer.status == 429 && reason.contains("payer_limit_exceeded") {
        world.count("answer: too many requests");
    }
    if answer.status == 503 && reason.contains("settlement_pending") {
        world.count("answer: settlement pending");
    }
    super::denied(world, visit, answer.status);
    world.frees(visit);
    let Some(spend) = world.spend_of(visit) else {
        must!(challenge, "who does not pay is challenged", "visit {visit}: {}", answer.status);
        return;
    };
    if !challenge {
        return;
    }
    let proven = {
        let crowd = world.crowd.borrow();
        let payment = &crowd.payments[crowd.visits[visit].errand.payment.unwrap()];
        payment.smart.is_none() && payment.way != Way::Solana && payment.flaw.is_none()
    };
    must!(
        !proven || !reason.contains(INVALID),
        "nobody is blamed for a facilitator",
        "visit {visit} has signed well, and is refused: {reason}"
    );
    let chain = world.chain.borrow();
    must!(
        refusable.is_some_and(|why| why != SHORT) || expiry < world.now_s() || !chain.spends[spend].in_doubt(world.now_s()),
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
    super::lost(world, visit);
    if let Some(spend) = world.spend_of(visit) {
        let expiry = world.visits(visit, |seen| seen.expiry);
        let mut chain = world.chain.borrow_mut();
        let doubt = chain.spends[spend]
            .attempts
            .iter()
            .any(|attempt| chain.attempts[*attempt].told.is_none());
        let spend = &mut chain.spends[spend];
        spend.orphaned = true;
        world.visits(visit, |seen| seen.unresolved = true);
        spend.user = spend.user.filter(|user| *user != visit);
        spend.unclear |= doubt;
        spend.delivered |= spend.served > 0;
        spend.expiry = spend.expiry.max(expiry);
    }
}
