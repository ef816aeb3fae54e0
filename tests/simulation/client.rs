//! The clients: what they send, what they get, and what they do then.

use std::collections::BTreeMap;

use serde_json::Value;
use x402_envoy::x402::Answer;

use super::agenda::{Cut, Deed, Event};
use super::shop::{Asks, ROUTES, Route, Way};
use super::support::unbase64;
use super::support::world::header;
use super::wallet::{self, Draft, Flaw, PAYERS, Payment, TUSD, sign};
use super::world::World;

/// A request that is to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Errand {
    pub route: usize,
    pub asks: Asks,
    pub payment: Option<usize>,
    /// How often it was sent before, for the same reason.
    pub again: u32,
}

/// What a client knows of a request in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has had nothing, or a part.
    CutOff,
    /// This filter's answer.
    Answered(u16),
    /// The backend's, or Envoy's.
    Complete(u16),
}

/// A request on its way, as the world outside sees it.
pub struct Visit {
    pub errand: Errand,
    /// What it costs, by the price list that its payment was made for.
    pub quote: u64,
    /// When the claim on its payment expires, in Unix seconds.
    pub expiry: u64,
    /// The payment can be refused without asking anybody: why.
    pub refusable: Option<&'static str>,
    /// How often a facilitator was called for it.
    pub calls: u32,
    /// The facilitator's good word reached the gate.
    pub verified: bool,
    /// It reached the backend.
    pub forwarded: bool,
    /// Status of the answer, and whether it is the backend's.
    pub backend: Option<(u16, bool)>,
    /// What the backend says is to be charged, if the payment is `upto`.
    pub told_amount: Option<u64>,
    /// What a complete answer costs by the usage in it.
    pub usage_amount: Option<u64>,
    /// The first byte of a priced answer has left.
    pub served: bool,
    /// A challenge has left.
    pub challenged: bool,
    /// Its settlement is with the root context.
    pub settling: bool,
    /// Its settlement takes up one that was left in doubt.
    pub resumes: bool,
    /// What became of its settlement is not known, or never will be.
    pub unresolved: bool,
    /// The gate has taken it for paid.
    pub paid: bool,
    /// When it came, in milliseconds.
    pub came_at: u64,
    /// Its payment was settled for an earlier one.
    pub again: bool,
    /// It pays a price of the configuration before.
    pub former: bool,
    /// Its settlement was left pending, for its VM may end.
    pub left_pending: bool,
    /// What had happened to what its payment has bought when it came.
    pub sold_changes: Option<u32>,
    /// The end of its answer has come.
    pub whole: bool,
    /// Bytes of it that the client has had.
    pub delivered: usize,
    pub attempts: Vec<usize>,
    pub outcome: Option<Outcome>,
}

impl Visit {
    pub fn new(errand: Errand) -> Self {
        Self {
            errand,
            quote: 0,
            expiry: 0,
            refusable: None,
            calls: 0,
            verified: false,
            forwarded: false,
            backend: None,
            told_amount: None,
            usage_amount: None,
            served: false,
            challenged: false,
            settling: false,
            unresolved: false,
            paid: false,
            resumes: false,
            came_at: 0,
            again: false,
            former: false,
            left_pending: false,
            sold_changes: None,
            whole: false,
            delivered: 0,
            attempts: Vec::new(),
            outcome: None,
        }
    }

    pub fn route(&self) -> &'static Route {
        &ROUTES[self.errand.route]
    }
}

/// All clients.
#[derive(Default)]
pub struct Crowd {
    pub payments: Vec<Payment>,
    pub by_proof: BTreeMap<String, usize>,
    by_identity: BTreeMap<(String, Option<String>), usize>,
    /// What payers have called their last payments.
    names: BTreeMap<usize, Vec<String>>,
    pub visits: Vec<Visit>,
    /// What the challenge of a route accepts, by price list and way.
    pub accepted: BTreeMap<(usize, usize, Way), Value>,
    /// Requests that are still to be thought of.
    pub left: u64,
    nonces: u64,
}

/// Reads a challenge: what the route accepts.
pub fn learn(world: &World, route: usize, list: usize, answer: &Answer) {
    let challenge = header(answer, "payment-required").map(unbase64);
    let Some(challenge) = challenge else { return };
    let mut crowd = world.crowd.borrow_mut();
    for accepted in challenge["accepts"].as_array().unwrap() {
        let way = match (
            accepted["scheme"].as_str().unwrap(),
            accepted["extra"]["assetTransferMethod"].as_str(),
        ) {
            ("upto", Some("permit")) => Way::Permit,
            ("upto", _) => Way::Upto,
            (_, Some("permit2")) if accepted["asset"].as_str().unwrap() == TUSD.to_string() => Way::Token,
            (_, Some("permit2")) => Way::Permit2,
            _ if accepted["network"].as_str().unwrap().starts_with("solana:") => Way::Solana,
            _ => Way::Eip3009,
        };
        crowd.accepted.insert((route, list, way), accepted.clone());
    }
}

/// Thinks of what happens next: one or several requests, and when the next ones are thought of.
pub fn think(world: &World) {
    let random = &world.random;
    let left = world.crowd.borrow().left;
    if left == 0 {
        return;
    }
    world.crowd.borrow_mut().left = left - 1;
    let now = world.now_ms();
    let kind = random.below(1000);
    match kind {
        0..60 => send(world, without_payment(0), now, 1),
        60..130 => send(world, without_payment(priced(world)), now, 1),
        130..200 => {
            let flaws = [
                Flaw::Signature,
                Flaw::Amount,
                Flaw::Recipient,
                Flaw::Expired,
                Flaw::Early,
                Flaw::Long,
                Flaw::Resource,
                Flaw::Garbage,
            ];
            let errand = fresh(world, Some(*random.pick(&flaws)));
            send(world, errand, now, 1);
        }
        200..300 => old(world, now),
        300..390 => sibling(world),
        _ => {
            let errand = fresh(world, None);
            let copies = random.weighted(&[(75, 1), (15, 2), (7, 3), (3, 5)]);
            if copies > 1 {
                world.count("client: the same at once");
            }
            send(world, errand, now, copies);
            deeds(world, errand, now);
        }
    }
    let pause = match random.below(1000) {
        0..8 => random.between(30_000, 400_000),
        8..40 => random.between(1000, 8000),
        _ => random.between(0, 120),
    };
    let at = now + pause;
    world.plan(at, Event::Think);
}

/// What payers do on the chain while their payment is on its way.
fn deeds(world: &World, errand: Errand, now: u64) {
    let random = &world.random;
    let (spend, payer) = {
        let crowd = world.crowd.borrow();
        let payment = &crowd.payments[errand.payment.unwrap()];
        (payment.spend, payment.payer)
    };
    let at = now + random.between(0, 12_000);
    match random.below(1000) {
        0..70 => world.plan(at, Event::Deed(Deed::Burn(spend))),
        70..85 => {
            world.plan(at, Event::Deed(Deed::Drain(payer)));
            world.plan(at + random.between(1000, 20_000), Event::Deed(Deed::Fill(payer)));
        }
        _ => {}
    }
}

fn send(world: &World, errand: Errand, now: u64, copies: u64) {
    for copy in 0..copies {
        let worker = world.random.index(world.workers.len());
        let at = now + if copy == 0 { 0 } else { world.random.between(0, 60) };
        world.plan(at, Event::Arrive { worker, errand });
    }
}

fn without_payment(route: usize) -> Errand {
    Errand {
        route,
        asks: Asks::One,
        payment: None,
        again: 0,
    }
}

fn asks(world: &World) -> Asks {
    world.random.weighted(&[(80, Asks::One), (12, Asks::Other), (8, Asks::Unread)])
}

fn priced(world: &World) -> usize {
    1 + world.random.index(ROUTES.len() - 1)
}

/// A payment that nobody has seen before.
fn fresh(world: &World, flaw: Option<Flaw>) -> Errand {
    let random = &world.random;
    let route = priced(world);
    let way = *random.pick(ROUTES[route].ways);
    // What the flaw is in is not in every kind of payment.
    let flaw = flaw.filter(|flaw| match flaw {
        Flaw::Garbage | Flaw::Amount => true,
        Flaw::Recipient | Flaw::Resource => matches!(way, Way::Eip3009 | Way::Permit2 | Way::Token | Way::Upto),
        Flaw::Signature | Flaw::Expired | Flaw::Early | Flaw::Long => way != Way::Solana,
    });
    let smart = (flaw.is_none() && way != Way::Solana && random.chance(80)).then(|| random.chance(700));
    let payer = random.index(PAYERS);
    let payment = pay(world, payer, route, way, flaw, smart, None);
    Errand {
        route,
        asks: asks(world),
        payment: Some(payment),
        again: 0,
    }
}

/// Signs a payment. `nonce`: that of another one, and what it spends.
fn pay(world: &World, payer: usize, route: usize, way: Way, flaw: Option<Flaw>, smart: Option<bool>, nonce: Option<(u64, usize)>) -> usize {
    let list = world.random.pick(&world.lists).get();
    let mut crowd = world.crowd.borrow_mut();
    crowd.nonces += 1;
    let accepted = crowd.accepted.get(&(route, list, way)).cloned().unwrap_or_default();
    let name = name(world, &mut crowd, payer);
    let draft = Draft {
        name,
        payer,
        route,
        list,
        way,
        flaw,
        smart,
        nonce: nonce.map_or(crowd.nonces, |(nonce, _)| nonce),
        now: world.now_ms() / 1000,
        accepted: &accepted,
    };
    let spend = nonce.map_or_else(
        || world.chain.borrow_mut().spend(wallet::claim(&draft), payer, draft.nonce),
        |(_, spend)| spend,
    );
    let mut payment = sign(&draft, spend, &world.random);
    let index = crowd.payments.len();
    crowd.by_proof.entry(payment.proof.clone()).or_insert(index);
    let identity = (payment.proof.clone(), payment.name.clone());
    payment.first = *crowd.by_identity.entry(identity).or_insert(index);
    crowd.payments.push(payment);
    index
}

/// What a payer calls the next payment: by mistake, sometimes, as one before.
fn name(world: &World, crowd: &mut Crowd, payer: usize) -> Option<String> {
    if !world.shop.named || world.random.chance(600) {
        return None;
    }
    let number = crowd.nonces;
    let names = crowd.names.entry(payer).or_default();
    if !names.is_empty() && world.random.chance(300) {
        world.count("client: a name again");
        return Some(world.random.pick(names).clone());
    }
    let name = format!("payment-number-{number:08}");
    names.push(name.clone());
    Some(name)
}

/// One of the last payments again, where it was meant for or elsewhere.
fn old(world: &World, now: u64) {
    let random = &world.random;
    let payment = {
        let crowd = world.crowd.borrow();
        let count = crowd.payments.len();
        match count {
            0 => return,
            _ => count - 1 - random.index(count.min(40)),
        }
    };
    let way = world.crowd.borrow().payments[payment].way;
    let routes: Vec<usize> = (1..ROUTES.len()).filter(|route| ROUTES[*route].ways.contains(&way)).collect();
    let errand = Errand {
        route: *random.pick(&routes),
        asks: asks(world),
        payment: Some(payment),
        again: 0,
    };
    world.count("client: an old payment again");
    send(world, errand, now, 1);
}

/// Another payment with the nonce of one of the last: for another route, amount, token or scheme.
fn sibling(world: &World) {
    let found = {
        let crowd = world.crowd.borrow();
        let last = crowd.payments.len().saturating_sub(30)..crowd.payments.len();
        let fit: Vec<usize> = last.filter(|payment| shares(&crowd.payments[*payment])).collect();
        if fit.is_empty() {
            return;
        }
        *world.random.pick(&fit)
    };
    sibling_of(world, found);
}

/// Whether there can be others with its nonce.
fn shares(payment: &Payment) -> bool {
    payment.flaw.is_none() && payment.smart.is_none() && !matches!(payment.way, Way::Solana | Way::Permit)
}

/// Another payment with the nonce of this one.
pub fn sibling_of(world: &World, payment: usize) {
    let random = &world.random;
    let (way, payer, spend) = {
        let crowd = world.crowd.borrow();
        let payment = &crowd.payments[payment];
        if !shares(payment) {
            return;
        }
        (payment.way, payment.payer, payment.spend)
    };
    let ways: &[Way] = match way {
        Way::Eip3009 => &[Way::Eip3009],
        _ => &[Way::Permit2, Way::Token, Way::Upto],
    };
    let way = *random.pick(ways);
    let routes: Vec<usize> = (1..ROUTES.len()).filter(|route| ROUTES[*route].ways.contains(&way)).collect();
    let route = *random.pick(&routes);
    let nonce = world.chain.borrow().spends[spend].nonce;
    let payment = pay(world, payer, route, way, None, None, Some((nonce, spend)));
    world.count("client: another payment with the same nonce");
    let errand = Errand {
        route,
        asks: asks(world),
        payment: Some(payment),
        again: 0,
    };
    send(world, errand, world.now_ms(), 1);
}

/// A request has begun: sometimes its client will not wait.
pub fn begun(world: &World, visit: usize, worker: usize, vm: u32, context: u32) {
    let random = &world.random;
    if random.chance(140) {
        let longest = *random.pick(&[20, 200, 3000, 20_000]);
        let at = world.now_ms() + random.between(0, longest);
        let how = Cut::Client;
        world.plan(at, Event::Cut { worker, vm, context, how });
    }
    let errand = world.visits(visit, |seen| seen.errand);
    if errand.payment.is_some() && errand.again < 5 && random.chance(60) {
        // It does not know that the first is under way still.
        world.count("client: again meanwhile");
        let again = errand.again + 1;
        send(world, Errand { again, ..errand }, world.now_ms() + random.between(0, 3000), 1);
    }
}

/// A request has ended: what its client does then.
pub fn ended(world: &World, visit: usize, outcome: Outcome) {
    let random = &world.random;
    let (mut errand, served, paid) = {
        let mut crowd = world.crowd.borrow_mut();
        let visit = &mut crowd.visits[visit];
        visit.outcome = Some(outcome);
        (visit.errand, visit.served, visit.paid)
    };
    world.say(|| format!("  visit {visit}: ends: {outcome:?}"));
    if errand.payment.is_none() || errand.again >= 5 {
        return;
    }
    let wait = match outcome {
        // As it is told: the same payment again.
        Outcome::Answered(503 | 409 | 429) if random.chance(700) => random.between(200, 9000),
        Outcome::Complete(500..) if !paid && random.chance(500) => random.between(50, 3000),
        // It has paid, and comes back: at once, soon, or about when it is too late.
        Outcome::CutOff | Outcome::Complete(500..) if paid && random.chance(800) => match random.below(10) {
            0..3 => 0,
            3..8 => random.between(1, 1500),
            _ => world.shop.window * 1000 + random.between(0, 2000),
        },
        // It never knew what became of it.
        Outcome::CutOff if random.chance(500) => random.between(0, 4000),
        // It tries its luck.
        Outcome::Complete(_) if served && random.chance(60) => random.between(0, 5000),
        _ => return,
    };
    if random.chance(100) {
        errand.asks = asks(world);
    }
    world.count("client: sent again");
    let errand = Errand {
        again: errand.again + 1,
        ..errand
    };
    send(world, errand, world.now_ms() + wait, 1);
}
