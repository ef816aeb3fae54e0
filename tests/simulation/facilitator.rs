//! The facilitators: they answer, refuse, are slow, reset, lie, or lose the reply after settling.

mod acts;
mod plan;
mod reply;

use std::collections::BTreeSet;

use serde_json::Value;
use x402_envoy::gate::{Call, CalloutToken, Endpoint};

use super::agenda::Event;
use super::chain::Attempt;
use super::invariants;
use super::world::World;
pub use acts::{INVALID, act, mine_later};
use plan::{Plan, SETTLING, VERIFYING, counted};
pub use reply::Reply;

/// Index of a call among those of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallId(pub usize);

/// A call that was sent.
pub struct Sent {
    pub worker: usize,
    pub vm: u32,
    pub token: u32,
    pub payment: usize,
    /// Of a call to /settle.
    pub attempt: Option<usize>,
    /// When Envoy gives up.
    pub deadline: u64,
    plan: Plan,
}

/// Calls that were sent, and those that have no reply yet.
#[derive(Default)]
pub struct Desk {
    pub calls: Vec<Sent>,
    pub flights: BTreeSet<u32>,
}

/// Sends a call for a request, as `proxy_http_call` does. `Err`: nothing was sent and nothing will come.
pub fn send(world: &World, worker: usize, vm: u32, visit: usize, call: &Call) -> Result<(CalloutToken, Option<usize>), ()> {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_else(|_| invariants::violated("well-formed", "a call is no JSON"));
    let (payment, amount) = recognized(world, &body);
    let settles = call.endpoint == Endpoint::Settle;
    invariants::called(world, visit, payment, settles.then_some(amount));
    let random = &world.random;
    if random.chance(15) {
        world.count(if settles {
            "settle: no healthy endpoint"
        } else {
            "verify: no healthy endpoint"
        });
        return Err(());
    }
    let attempt = settles.then(|| attempt(world, visit, payment, amount));
    let plan = if settles {
        random.weighted(&SETTLING)
    } else {
        random.weighted(&VERIFYING)
    };
    world.count(counted(settles, plan));
    let (now, token) = (world.now_ms(), world.token());
    let deadline = now + u64::from(call.timeout_ms);
    let id = {
        let mut desk = world.desk.borrow_mut();
        desk.calls.push(Sent {
            worker,
            vm,
            token,
            payment,
            attempt,
            deadline,
            plan,
        });
        desk.flights.insert(token);
        CallId(desk.calls.len() - 1)
    };
    let soon = now + random.between(1, if random.chance(100) { 1900 } else { 60 });
    match plan {
        Plan::Unreachable => reply_at(world, id, soon, Reply::not_sent()),
        Plan::Resets => reply_at(world, id, soon, Reply::lost()),
        Plan::Late => {
            world.plan(deadline + random.between(1, 20_000), Event::Act(id));
            reply_at(world, id, deadline, Reply::lost());
        }
        _ => world.plan(soon, Event::Act(id)),
    }
    upheaval(world, worker, settles);
    world.say(|| {
        format!(
            "  visit {visit}: call {} {:?} payment {payment} of payer {} amount {amount} token {token}: {plan:?}",
            id.0,
            call.endpoint,
            world.crowd.borrow().payments[payment].payer
        )
    });
    Ok((CalloutToken(token), attempt))
}

/// Sometimes the worker's configuration, or its VM, is another one before the reply comes.
fn upheaval(world: &World, worker: usize, settles: bool) {
    let at = world.now_ms() + world.random.between(0, 50);
    if settles && world.random.chance(8) {
        world.plan(at, Event::Reconfigure(worker));
    } else if world.rough && world.random.chance(1) {
        world.plan(at, Event::Kill(worker));
    }
}

/// The payment in a call, and the amount that is asked for.
fn recognized(world: &World, body: &Value) -> (usize, u64) {
    let payload = &body["paymentPayload"]["payload"];
    let proof = ["signature", "transaction"]
        .iter()
        .find_map(|name| payload[*name].as_str())
        .unwrap_or_default();
    let payment = world.crowd.borrow().by_proof.get(proof).copied();
    let requirements = &body["paymentRequirements"];
    let amount = [&requirements["maxAmountRequired"], &requirements["amount"]];
    let amount = amount.iter().find_map(|amount| amount.as_str()?.parse().ok());
    match (payment, amount) {
        (Some(payment), Some(amount)) => (payment, amount),
        _ => invariants::violated("well-formed", "a call for a payment that nobody made, or for no amount"),
    }
}

fn attempt(world: &World, visit: usize, payment: usize, amount: u64) -> usize {
    let spend = world.crowd.borrow().payments[payment].spend;
    let mut chain = world.chain.borrow_mut();
    let attempt = chain.attempts.len();
    chain.spends[spend].attempts.push(attempt);
    chain.attempts.push(Attempt {
        spend,
        payment,
        visit,
        amount,
        told: None,
        lied: false,
        mined: false,
        in_flight: false,
        named: false,
        reverted: false,
    });
    attempt
}

fn reply_at(world: &World, id: CallId, at: u64, reply: Reply) {
    let desk = world.desk.borrow();
    let Sent { worker, vm, token, .. } = desk.calls[id.0];
    world.plan(at, Event::Reply { worker, vm, token, reply });
}
