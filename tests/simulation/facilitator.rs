//! The facilitators: they answer, refuse, are slow, reset, lie, or lose the reply after settling.

use std::fmt;

use serde_json::{Value, json};
use x402_envoy::gate::{Call, CalloutReply, CalloutToken, Endpoint};

use super::agenda::{Deed, Event};
use super::chain::{Attempt, Told};
use super::invariants;
use super::world::World;

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

/// What the facilitator will do about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// What is right.
    Honest,
    /// What is right, and the reply is not to be understood.
    Garbled,
    /// What is right, and the reply is lost.
    Mute,
    /// What is right, when Envoy does not wait for it any more.
    Late,
    /// A transaction is sent, and nobody waits for it.
    Pending,
    /// A transaction is sent, and reverted for reasons of its own.
    Reverts,
    /// It settles, and names no transaction, or another network.
    Odd,
    /// It says yes to everything, and does nothing.
    Flatters,
    /// It says no to everything, whatever it does.
    Slanders,
    /// It fails before it does anything.
    Fails,
    /// The connection is reset before it does anything.
    Resets,
    /// It cannot be reached.
    Unreachable,
}

const VERIFYING: [(u64, Plan); 8] = [
    (800, Plan::Honest),
    (40, Plan::Garbled),
    (30, Plan::Mute),
    (25, Plan::Fails),
    (30, Plan::Resets),
    (35, Plan::Unreachable),
    (20, Plan::Flatters),
    (20, Plan::Slanders),
];
const SETTLING: [(u64, Plan); 12] = [
    (620, Plan::Honest),
    (40, Plan::Garbled),
    (70, Plan::Mute),
    (30, Plan::Late),
    (80, Plan::Pending),
    (20, Plan::Reverts),
    (20, Plan::Odd),
    (10, Plan::Flatters),
    (10, Plan::Slanders),
    (25, Plan::Fails),
    (40, Plan::Resets),
    (35, Plan::Unreachable),
];

/// Reasons that say nothing of what became of the money.
const UNCLEAR: [&str; 7] = [
    "settlement_pending",
    "unexpected_settle_error",
    "invalid_exact_evm_transaction_failed",
    "transaction_failed",
    "out of coffee",
    "invalid_exact_evm_transaction_simulation_failed",
    "",
];

/// A reply as the host reads it, and what it means.
#[derive(Clone)]
pub struct Reply {
    body: Body,
    /// /verify: the payment was said to be good.
    pub valid: bool,
    /// /settle.
    pub told: Option<Told>,
    /// It names the transaction of the attempt.
    pub names: bool,
    /// It says that the transaction of this attempt was reverted.
    pub reverted: Option<usize>,
}

#[derive(Clone)]
enum Body {
    Answered(u16, String),
    NotSent,
    Lost,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Answered(status, body) => write!(f, "{status} {body}"),
            Body::NotSent => f.write_str("not sent"),
            Body::Lost => f.write_str("lost"),
        }
    }
}

impl Reply {
    fn new(body: Body, told: Told) -> Self {
        Self {
            body,
            valid: false,
            told: Some(told),
            names: false,
            reverted: None,
        }
    }

    pub fn not_sent() -> Self {
        Self::new(Body::NotSent, Told::NotSent)
    }

    fn lost() -> Self {
        Self::new(Body::Lost, Told::Unknown)
    }

    fn json(status: u16, body: &Value, told: Told) -> Self {
        Self::new(Body::Answered(status, body.to_string()), told)
    }

    pub fn read(&self) -> CalloutReply<'_> {
        match &self.body {
            Body::Answered(status, body) => CalloutReply::Answered {
                status: *status,
                body: body.as_bytes(),
            },
            Body::NotSent => CalloutReply::NotSent,
            Body::Lost => CalloutReply::Lost,
        }
    }
}

/// Calls that were sent, and those that have no reply yet.
#[derive(Default)]
pub struct Desk {
    pub calls: Vec<Sent>,
    pub flights: std::collections::BTreeSet<u32>,
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
            "  visit {visit}: call {} {:?} payment {payment} amount {amount} token {token}: {plan:?}",
            id.0, call.endpoint
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

fn counted(settles: bool, plan: Plan) -> &'static str {
    match (settles, plan) {
        (false, Plan::Honest | Plan::Late | Plan::Pending | Plan::Reverts | Plan::Odd) => "verify: answered",
        (false, Plan::Garbled) => "verify: garbage",
        (false, Plan::Mute) => "verify: reply lost",
        (false, Plan::Flatters) => "verify: good though it is bad",
        (false, Plan::Slanders) => "verify: bad though it is good",
        (false, Plan::Fails) => "verify: failed",
        (false, Plan::Resets) => "verify: reset",
        (false, Plan::Unreachable) => "verify: unreachable",
        (true, Plan::Honest) => "settle: answered",
        (true, Plan::Garbled) => "settle: garbage after acting",
        (true, Plan::Mute) => "settle: reply lost after acting",
        (true, Plan::Late) => "settle: acted after the timeout",
        (true, Plan::Pending) => "settle: pending",
        (true, Plan::Reverts) => "settle: reverted",
        (true, Plan::Odd) => "settle: success that names nothing",
        (true, Plan::Flatters) => "settle: lied that it settled",
        (true, Plan::Slanders) => "settle: lied that it refused",
        (true, Plan::Fails) => "settle: failed before acting",
        (true, Plan::Resets) => "settle: reset before acting",
        (true, Plan::Unreachable) => "settle: unreachable",
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
    });
    attempt
}

fn reply_at(world: &World, id: CallId, at: u64, reply: Reply) {
    let desk = world.desk.borrow();
    let Sent { worker, vm, token, .. } = desk.calls[id.0];
    world.plan(at, Event::Reply { worker, vm, token, reply });
}

/// The facilitator acts on a call, and replies unless nobody listens.
pub fn act(world: &World, id: CallId) {
    let (payment, attempt, plan, deadline) = {
        let desk = world.desk.borrow();
        let sent = &desk.calls[id.0];
        (sent.payment, sent.attempt, sent.plan, sent.deadline)
    };
    let reply = match attempt {
        None => verify(world, payment, plan),
        Some(attempt) => settle(world, attempt, plan),
    };
    let soon = world.now_ms() + world.random.between(1, 40);
    match plan {
        // Envoy gave up before, and said so.
        Plan::Late => {}
        Plan::Mute => reply_at(
            world,
            id,
            if world.random.chance(500) { deadline } else { soon.min(deadline) },
            Reply::lost(),
        ),
        _ if soon > deadline => reply_at(world, id, deadline, Reply::lost()),
        Plan::Garbled => reply_at(world, id, soon, garbage(world)),
        _ => reply_at(world, id, soon, reply),
    }
}

fn garbage(world: &World) -> Reply {
    let (status, body) = *world.random.pick(&[
        (502, "<html>bad gateway</html>"),
        (200, ""),
        (200, "{}"),
        (500, "{\"error\":\"internal\"}"),
        (200, "{\"success\":\"true\"}"),
        (429, "{\"message\":\"too many requests\"}"),
    ]);
    Reply::new(Body::Answered(status, body.into()), Told::Unknown)
}

/// What is wrong with a payment, by the chain.
fn wrong(world: &World, payment: usize, amount: u64) -> Option<(&'static str, Told)> {
    let (crowd, chain) = (world.crowd.borrow(), world.chain.borrow());
    let payment = &crowd.payments[payment];
    let spend = &chain.spends[payment.spend];
    if spend.used.is_some() {
        let reasons = [
            "invalid_exact_evm_nonce_already_used",
            "permit2_invalid_nonce",
            "FiatTokenV2: authorization is used or canceled",
        ];
        return Some((*world.random.pick(&reasons), Told::Used));
    }
    if payment.smart == Some(false) {
        return Some(("invalid_exact_evm_payload_signature", Told::Refused));
    }
    if payment.valid_before <= world.now_ms() / 1000 {
        return Some(("invalid_exact_evm_payload_authorization_valid_before", Told::Refused));
    }
    if chain.balances[payment.payer] < amount {
        return Some(("insufficient_funds", Told::Refused));
    }
    None
}

fn verify(world: &World, payment: usize, plan: Plan) -> Reply {
    let quote = world.crowd.borrow().payments[payment].amount;
    let wrong = match plan {
        Plan::Flatters => None,
        Plan::Slanders => Some("invalid_exact_evm_insufficient_balance"),
        Plan::Fails => Some("unexpected_verify_error"),
        _ => wrong(world, payment, quote).map(|(reason, _)| reason),
    };
    let status = if wrong.is_some() {
        *world.random.pick(&[200, 400, 500])
    } else {
        200
    };
    let body = match wrong {
        None => json!({"isValid": true, "payer": "0x0000000000000000000000000000000000000001"}),
        Some(reason) => json!({"isValid": false, "invalidReason": reason}),
    };
    let mut reply = Reply::json(status, &body, Told::Unknown);
    reply.valid = wrong.is_none();
    reply
}

fn settle(world: &World, attempt: usize, plan: Plan) -> Reply {
    let (payment, amount, spend, visit) = {
        let chain = world.chain.borrow();
        let attempt = &chain.attempts[attempt];
        (attempt.payment, attempt.amount, attempt.spend, attempt.visit)
    };
    let random = &world.random;
    let refused = |reason: &str, transaction: &str, told| {
        let body = json!({"success": false, "errorReason": reason, "transaction": transaction, "network": ""});
        Reply::json(*random.pick(&[200, 200, 400, 500]), &body, told)
    };
    match plan {
        Plan::Flatters => {
            world.chain.borrow_mut().attempts[attempt].lied = true;
            return settled(world, attempt, amount);
        }
        Plan::Fails => return refused(random.pick::<&str>(&UNCLEAR), "", Told::Unknown),
        _ => {}
    }
    if let Some(reverted) = reverted_before(world, spend, visit) {
        let mut reply = refused("invalid_exact_evm_transaction_failed", &transaction(reverted), Told::Refused);
        reply.reverted = Some(reverted);
        return reply;
    }
    let is_doubled = world.chain.borrow().in_flight(spend) && random.chance(500);
    if is_doubled {
        world.count("settle: duplicate");
        return refused("duplicate_settlement", "", Told::Used);
    }
    if let Some((reason, told)) = wrong(world, payment, amount) {
        world.count(if told == Told::Used {
            "settle: nonce used"
        } else {
            "settle: refused"
        });
        return refused(reason, "", told);
    }
    match plan {
        Plan::Pending => {
            world.chain.borrow_mut().attempts[attempt].in_flight = true;
            world.plan(world.now_ms() + random.between(1, 30_000), Event::Mine(attempt));
            let names = random.chance(400);
            if random.chance(300) {
                // The payer does not wait for it.
                world.plan(world.now_ms() + random.between(20, 1200), Event::Deed(Deed::Burn(spend)));
            }
            let named = if names { transaction(attempt) } else { String::new() };
            // With a transaction that is named, "failed" would be a certain refusal.
            let reason = if names {
                *random.pick(&["settlement_pending", "unexpected_settle_error"])
            } else {
                *random.pick(&UNCLEAR)
            };
            let mut reply = refused(reason, &named, Told::Unknown);
            reply.names = names;
            reply
        }
        Plan::Reverts => refused("invalid_exact_evm_transaction_failed", &transaction(attempt), Told::Refused),
        Plan::Slanders => {
            world.chain.borrow_mut().attempts[attempt].lied = true;
            mine(world, attempt);
            refused("insufficient_funds", "", Told::Refused)
        }
        Plan::Odd => {
            mine(world, attempt);
            let body = match random.chance(500) {
                true => json!({"success": true, "transaction": "", "network": "eip155:84532"}),
                false => json!({"success": true, "transaction": transaction(attempt), "network": "eip155:1"}),
            };
            let mut reply = Reply::json(200, &body, Told::Unknown);
            reply.names = body["transaction"] != "";
            reply
        }
        _ => {
            mine(world, attempt);
            settled(world, attempt, amount)
        }
    }
}

/// The transaction that an attempt of the same request named, and that came to nothing: sometimes a facilitator knows.
fn reverted_before(world: &World, spend: usize, visit: usize) -> Option<usize> {
    let chain = world.chain.borrow();
    let mut attempts = chain.spends[spend].attempts.iter().rev();
    let reverted = attempts.find(|attempt| {
        let attempt = &chain.attempts[**attempt];
        attempt.visit == visit && attempt.named && !attempt.mined && !attempt.in_flight
    });
    reverted.copied().filter(|_| world.random.chance(500))
}

fn settled(world: &World, attempt: usize, amount: u64) -> Reply {
    let mut body = json!({"success": true, "transaction": transaction(attempt), "payer": "0x1"});
    if world.random.chance(500) {
        body["amount"] = amount.to_string().into();
    }
    Reply::json(200, &body, Told::Settled)
}

fn transaction(attempt: usize) -> String {
    format!("0x{:064x}", attempt + 1)
}

/// Mines the transaction of an attempt, now.
pub fn mine(world: &World, attempt: usize) {
    let payment = world.chain.borrow().attempts[attempt].payment;
    let valid = {
        let crowd = world.crowd.borrow();
        let payment = &crowd.payments[payment];
        world.now_ms() / 1000 < payment.valid_before && payment.smart != Some(false)
    };
    let moved = world.chain.borrow_mut().mine(attempt, valid);
    world.say(|| format!("  chain: attempt {attempt} {}", if moved { "is mined" } else { "is reverted" }));
    if moved {
        invariants::charged(world, attempt);
    }
}

/// A transaction that was sent comes up: it is mined, or it is dropped.
pub fn mine_later(world: &World, attempt: usize) {
    if world.random.chance(700) {
        world.count("chain: mined late");
        mine(world, attempt);
    } else {
        world.count("chain: dropped");
        world.chain.borrow_mut().attempts[attempt].in_flight = false;
    }
}
