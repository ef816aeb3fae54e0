//! One run: everything there is, and the order in which it happens.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use x402_envoy::replay::{ClaimKey, Claims, MemoryStore, RECORD_BYTES, SharedStore, State, UnixSeconds};

use super::agenda::{Agenda, Deed, Event};
use super::chain::Chain;
use super::client::{self, Crowd, Errand, Visit};
use super::facilitator::{self, Desk};
use super::host::Worker;
use super::invariants;
use super::random::Random;
use super::shop::{Asks, ROUTES, SKEW, Shop, VALIDITY, Way};
use super::support::NOW;
use super::totals::Totals;
use super::wallet::Quotes;

/// Few, so that claims share them and collide.
const BUCKETS: u32 = 8;
pub const WORKERS: usize = 4;
/// Requests that a run thinks of; copies and resends come on top.
pub const REQUESTS: u64 = 400;

/// Which payment was called so, for what, and when.
type Named = (usize, Option<Asks>, usize, u64);

pub struct World {
    pub shop: Shop,
    pub random: Random,
    pub store: MemoryStore,
    pub claims: Claims,
    pub agenda: RefCell<Agenda>,
    pub workers: Vec<RefCell<Worker>>,
    /// The price list of each worker.
    pub lists: Vec<Cell<usize>>,
    pub chain: RefCell<Chain>,
    pub desk: RefCell<Desk>,
    pub crowd: RefCell<Crowd>,
    pub totals: RefCell<Totals>,
    /// What the metric of claims alive says.
    pub gauge: Cell<i64>,
    /// Metered answers that are owed for.
    pub owing: RefCell<BTreeSet<usize>>,
    /// What payments have bought.
    pub sold: RefCell<BTreeMap<usize, invariants::Sold>>,
    /// What payers, and whether on Solana, have called payments that were taken for paid: which one, for what, and when.
    pub names: RefCell<BTreeMap<(usize, bool, String), Named>>,
    /// When those requests of payers came that were let in.
    pub let_in: RefCell<BTreeMap<(usize, bool), Vec<u64>>>,
    /// When a payer last had an answer for a used nonce.
    pub inferred: RefCell<BTreeMap<(usize, bool), u64>>,
    /// What may have been claimed or given back since the last look.
    pub dirty: RefCell<BTreeSet<usize>>,
    /// Workers are killed and the store is contended.
    pub rough: bool,
    /// Nothing befalls the store any more.
    pub calm: Cell<bool>,
    pub written: RefCell<BTreeSet<String>>,
    /// Names of the buckets that claims are in.
    buckets: Vec<String>,
    clock: Cell<u64>,
    tokens: Cell<u32>,
    depth: Cell<u32>,
    log: Option<RefCell<Vec<String>>>,
}

impl World {
    pub fn new(seed: u64, logged: bool) -> Self {
        let random = Random::new(seed);
        let shop = Shop::new(&random);
        let rough = random.chance(400);
        Self {
            shop,
            store: MemoryStore::new(),
            claims: Claims::with_buckets(BUCKETS, 100_000),
            agenda: RefCell::default(),
            workers: (0..WORKERS).map(|index| RefCell::new(Worker::new(index))).collect(),
            lists: (0..WORKERS).map(|_| Cell::default()).collect(),
            chain: RefCell::new(Chain::new()),
            desk: RefCell::default(),
            crowd: RefCell::default(),
            totals: RefCell::default(),
            gauge: Cell::default(),
            owing: RefCell::default(),
            sold: RefCell::default(),
            names: RefCell::default(),
            let_in: RefCell::default(),
            inferred: RefCell::default(),
            dirty: RefCell::default(),
            rough,
            calm: Cell::default(),
            written: RefCell::default(),
            buckets: (0..BUCKETS).map(|bucket| format!("x402/claims/1/{bucket:04x}")).collect(),
            clock: Cell::new(NOW * 1000 + random.below(1000)),
            tokens: Cell::default(),
            depth: Cell::default(),
            log: logged.then(RefCell::default),
            random,
        }
    }

    /// Plays the run to its end.
    pub fn play(&self) {
        self.opens();
        while let Some((at, event)) = self.take() {
            self.clock.set(self.clock.get().max(at));
            self.happens(event);
            invariants::after_step(self);
        }
        self.closes();
    }

    fn take(&self) -> Option<(u64, Event)> {
        self.agenda.borrow_mut().next()
    }

    fn happens(&self, event: Event) {
        self.say(|| format!("{} {event:?}", self.since()));
        let worker = event.worker().map(|worker| self.workers[worker].borrow_mut());
        match (event, worker) {
            (Event::Arrive { errand, .. }, Some(mut worker)) => worker.arrive(self, errand),
            (Event::Tick { vm, root, .. }, Some(mut worker)) if worker.vm == vm => worker.tick(self, root),
            (Event::Reply { vm, token, reply, .. }, Some(mut worker)) => {
                self.desk.borrow_mut().flights.remove(&token);
                if worker.vm != vm {
                    return;
                }
                match worker.verifying(token) {
                    Some(stream) => worker.verified(self, stream, token, &reply),
                    None => worker.settled(self, token, &reply),
                }
            }
            (Event::Backend { vm, context, .. }, Some(mut worker)) if worker.vm == vm => {
                if let Some(stream) = worker.streams.remove(&context) {
                    worker.backend(self, stream);
                }
            }
            (Event::Cut { vm, context, how, .. }, Some(mut worker)) if worker.vm == vm => {
                if let Some(stream) = worker.streams.remove(&context) {
                    worker.cut(self, stream, how);
                }
            }
            (Event::Reconfigure(_), Some(mut worker)) => worker.reconfigured(self),
            (Event::Kill(_), Some(mut worker)) => worker.killed(self),
            (Event::Think, _) => client::think(self),
            (Event::Sibling(payment), _) => client::sibling_of(self, payment),
            (Event::Act(call), _) => facilitator::act(self, call),
            (Event::Mine(attempt), _) => facilitator::mine_later(self, attempt),
            (Event::Deed(deed), _) => self.does(deed),
            (Event::Leap(ms), _) => {
                self.count("clock: leaps");
                self.passes(ms);
            }
            // What was meant for a VM that is gone.
            (Event::Tick { .. } | Event::Backend { .. } | Event::Cut { .. }, _) => {}
            (other, _) => unreachable!("{other:?}"),
        }
    }

    /// In the middle of a worker's operation on the store, something else may happen to another worker.
    pub fn meanwhile(&self, deepest: u32, per_mille: u64) {
        if self.depth.get() >= deepest || !self.random.chance(per_mille) {
            return;
        }
        let free = |event: &Event| match event {
            Event::Leap(_) => false,
            _ => event.worker().is_none_or(|worker| self.workers[worker].try_borrow_mut().is_ok()),
        };
        let event = self.agenda.borrow_mut().next_in_between(self.now_ms(), free);
        let Some(event) = event else { return };
        self.count("store: another event in between");
        self.depth.set(self.depth.get() + 1);
        self.happens(event);
        self.depth.set(self.depth.get() - 1);
    }

    fn does(&self, deed: Deed) {
        let mut chain = self.chain.borrow_mut();
        match deed {
            Deed::Burn(spend) => {
                if chain.burn(spend) {
                    self.count("chain: nonce burnt");
                }
            }
            Deed::Drain(payer) => {
                self.count("chain: account drained");
                chain.balances[payer] = 100;
            }
            Deed::Fill(payer) => chain.balances[payer] += 1_000_000,
        }
    }

    /// A request has come.
    pub fn visit(&self, errand: Errand, quotes: Quotes) -> usize {
        self.count("requests");
        let mut crowd = self.crowd.borrow_mut();
        let mut visit = Visit::new(errand);
        visit.quote = quotes.now;
        visit.came_at = self.now_ms();
        if let Some(payment) = errand.payment {
            let payment = &crowd.payments[payment];
            visit.sold_changes = self.sold.borrow().get(&payment.first).map(invariants::Sold::changes);
            visit.refusable = payment.refusable(&ROUTES[errand.route], quotes, self.now_s());
            if quotes.take(payment.amount) {
                if payment.amount != quotes.now {
                    self.count("client: pays the price before");
                    visit.former = true;
                }
                visit.quote = payment.amount;
            }
            visit.expiry = match payment.way {
                Way::Solana => self.now_s() + VALIDITY,
                _ => payment.valid_before + SKEW,
            };
            self.chain.borrow_mut().forgets(payment.spend, self.now_s());
        }
        crowd.visits.push(visit);
        crowd.visits.len() - 1
    }

    /// Looks at a request, or changes what is known of it.
    pub fn visits<T>(&self, visit: usize, look: impl FnOnce(&mut Visit) -> T) -> T {
        look(&mut self.crowd.borrow_mut().visits[visit])
    }

    pub fn spend_of(&self, visit: usize) -> Option<usize> {
        let crowd = self.crowd.borrow();
        crowd.visits[visit].errand.payment.map(|payment| crowd.payments[payment].spend)
    }

    /// The first payment that was signed as a request's is.
    pub fn identity(&self, visit: usize) -> Option<usize> {
        let crowd = self.crowd.borrow();
        crowd.visits[visit].errand.payment.map(|payment| crowd.payments[payment].first)
    }

    /// Time passes, and nothing happens.
    pub fn passes(&self, ms: u64) {
        self.clock.set(self.clock.get() + ms);
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.get()
    }

    pub fn now_s(&self) -> u64 {
        self.clock.get() / 1000
    }

    fn since(&self) -> String {
        let ms = self.now_ms() - NOW * 1000;
        format!("{}.{:03}{}", ms / 1000, ms % 1000, "  ".repeat(self.depth.get() as usize))
    }

    pub fn token(&self) -> u32 {
        self.tokens.set(self.tokens.get() + 1);
        self.tokens.get()
    }

    pub fn plan(&self, at: u64, event: Event) {
        self.agenda.borrow_mut().plan(at, event);
    }

    pub fn count(&self, what: &'static str) {
        self.totals.borrow_mut().count(what);
    }

    pub fn say(&self, what: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log.borrow_mut().push(what());
        }
    }

    pub fn log(&self) -> Vec<String> {
        self.log.as_ref().map(|log| log.borrow().clone()).unwrap_or_default()
    }

    /// A request does not use its payment any more: it is free to be used again, or held by what became of its settlement.
    pub fn frees(&self, visit: usize) {
        let Some(spend) = self.spend_of(visit) else { return };
        self.chain.borrow_mut().frees(spend, visit);
        if !self.visits(visit, |seen| seen.served) {
            self.owing.borrow_mut().remove(&visit);
        }
    }

    /// A client has had these bytes.
    pub fn delivered(&self, visit: usize, bytes: &[u8]) {
        self.visits(visit, |seen| seen.delivered += bytes.len());
    }

    pub fn route_and_way(&self, visit: usize) -> (usize, Option<Way>) {
        let crowd = self.crowd.borrow();
        let errand = crowd.visits[visit].errand;
        (errand.route, errand.payment.map(|payment| crowd.payments[payment].way))
    }

    /// Whether a request's answer is metered as it passes.
    pub fn meters(&self, visit: usize) -> bool {
        let (route, way) = self.route_and_way(visit);
        way.is_some_and(|way| ROUTES[route].meters(way))
    }

    /// What a claim was used for may have changed.
    pub fn touched(&self, spend: Option<usize>) {
        self.dirty.borrow_mut().extend(spend);
    }

    /// A claim could not be changed.
    pub fn stuck(&self, spend: Option<usize>) {
        if let Some(spend) = spend {
            self.chain.borrow_mut().spends[spend].stuck = true;
        }
    }

    pub fn wrote(&self, key: &str) {
        let mut written = self.written.borrow_mut();
        if !written.contains(key) {
            written.insert(key.to_owned());
        }
    }

    pub fn state_of(&self, claim: &ClaimKey) -> Option<State> {
        self.claims.state(&self.store, claim, UnixSeconds(self.now_s()))
    }

    pub fn claim_state(&self, visit: usize) -> Option<State> {
        let claim = self.chain.borrow().spends[self.spend_of(visit)?].claim;
        self.state_of(&claim)
    }

    /// How many claims there are in the store.
    pub fn records(&self) -> i64 {
        let buckets = self.buckets.iter().filter_map(|name| self.store.get(name));
        i64::try_from(buckets.map(|(value, _)| value.len() / RECORD_BYTES).sum::<usize>()).unwrap()
    }
}
