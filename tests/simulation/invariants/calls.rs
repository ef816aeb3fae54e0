//! What facilitators are called for: the right payment, the right amount, once, and for something.

use super::super::shop::{Flow, Way};
use super::super::world::World;
use super::{must, violated};

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
        amount <= seen.quote,
        "never more than the quote",
        "visit {visit} settles {amount} of {}",
        seen.quote
    );
    must!(
        amount <= paying.amount,
        "never more than was signed",
        "visit {visit} settles {amount} of {}",
        paying.amount
    );
    must!(
        paying.way.is_upto() || amount == seen.quote,
        "exact pays the quote",
        "visit {visit} settles {amount}, not {}",
        seen.quote
    );
    must!(
        spend.paid_by.is_none(),
        "settled once",
        "visit {visit} settles payment {payment} again"
    );
    for attempt in &spend.attempts {
        let attempt = &chain.attempts[*attempt];
        must!(
            attempt.told.is_some() || crowd.visits[attempt.visit].expiry < world.now_s(),
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
            let usage = usage.min(seen.quote);
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
    let doubt = world.spend_of(visit).is_some_and(|spend| {
        let spend = &world.chain.borrow().spends[spend];
        spend.unclear && spend.expiry >= world.now_s()
    });
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
