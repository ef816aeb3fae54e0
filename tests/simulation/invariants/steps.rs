//! What must hold after each step, whatever it was.

use std::collections::BTreeMap;

use x402_envoy::gate::{Note, Notes};
use x402_envoy::replay::State;

use super::super::shop::{COMPLETION, PROMPT, SKEW};
use super::super::world::World;
use super::{must, violated};

/// What a gate notes for metrics, access logs and Envoy's log.
pub fn noted(world: &World, visit: Option<usize>, notes: &Notes) {
    for event in &notes.events {
        if let Note::Claims(net) = event {
            world.gauge.set(world.gauge.get() + net);
        }
    }
    let texts = notes
        .attributes
        .iter()
        .map(|(_, value)| &**value)
        .chain(notes.warnings.iter().map(|warning| &**warning));
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
            let hears = || worker.roots.get(&stream.root).is_some_and(|root| root.will_hear(stream.context));
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
            (spend.claim, spend.stuck || spend.orphaned || spend.overtaken, user)
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
    let mut sums = BTreeMap::new();
    let mut totals = BTreeMap::new();
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
