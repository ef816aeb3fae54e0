//! What a facilitator does, on the chain and in its reply.

use serde_json::json;

use super::super::agenda::{Deed, Event};
use super::super::chain::Told;
use super::super::invariants;
use super::super::wallet;
use super::super::world::World;
use super::plan::Plan;
use super::reply::{Body, Reply};
use super::{CallId, reply_at};

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

/// A signature is said to be another's.
pub const INVALID: &str = "invalid_exact_evm_payload_signature";

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
        return Some((INVALID, Told::Refused));
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
        Plan::Doubts => Some(INVALID),
        _ => wrong(world, payment, quote).map(|(reason, _)| reason),
    };
    let status = if wrong.is_some() {
        *world.random.pick(&[200, 400, 500])
    } else {
        200
    };
    let payer = wallet::name(world.crowd.borrow().payments[payment].payer);
    let body = match wrong {
        None => json!({"isValid": true, "payer": payer}),
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
        Plan::Doubts => return refused(INVALID, "", Told::Refused),
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
        Plan::Reverts => {
            let mut reply = refused("invalid_exact_evm_transaction_failed", &transaction(attempt), Told::Refused);
            reply.reverted = Some(attempt);
            reply
        }
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
