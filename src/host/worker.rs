//! What the streams of one worker share with its root context.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::abi::{self, Level, Map};
use super::calls::{Calls, NotSent};
use super::configured::Configured;
use super::former::Lineage;
use super::metrics::Metrics;
use super::store::SharedData;
use crate::config::Config;
use crate::evm::Payers;
use crate::gate::{self, CalloutToken, Capture, Challenges, Edits, Env, Gate, Leases, Notes, Settlement};
use crate::pricing::Former;
use crate::replay::{self, Attempts, Bans, Claims, Entitlements, Exposure, Identifiers, Rates, UnixSeconds};
use crate::supported::{self, Table};
use crate::x402::Answer;

/// How soon the root context is to look at what was left to it.
const SOON: Duration = Duration::from_millis(1);

/// What the names of attributes begin with.
const PROPERTY: &str = "x402_";

/// How many warnings about requests a worker writes in a minute.
const WARNINGS_PER_MINUTE: u32 = 60;

/// Warnings of the current minute.
#[derive(Clone, Copy, Default)]
struct Warnings {
    minute: u64,
    written: u32,
    dropped: u32,
}

/// A settlement, in the hands of the root context, which outlives the stream.
pub(super) struct Job {
    /// The stream that is paused for it, or was its client's.
    pub(super) context: u32,
    pub(super) settlement: Box<Settlement>,
    /// Until when that stream is kept waiting, in nanoseconds since the epoch; `None`: until the outcome is known.
    pub(super) until: Option<u64>,
}

/// One plugin configuration on one worker.
pub(super) struct Worker {
    pub(super) config: Rc<Config>,
    lineage: Lineage,
    former: Option<Former>,
    pub(super) metrics: RefCell<Metrics>,
    pub(super) calls: Calls,
    table: RefCell<Table>,
    /// Settlements that wait for the root context: to be sent, or to be ended where they could not be.
    pub(super) jobs: RefCell<VecDeque<(Job, Option<NotSent>)>>,
    /// Settlements that were sent.
    pub(super) settling: RefCell<HashMap<CalloutToken, Job>>,
    /// When the first of the streams that wait for a settlement is not to wait any longer, or never.
    pub(super) patience: Cell<u64>,
    /// What the ledger has to hear of, and has not been told.
    pub(super) captures: RefCell<Vec<Capture>>,
    /// Keys of accounts that have signed before.
    payers: Payers,
    /// What may be spent of balances without asking.
    pub(super) leases: RefCell<Leases>,
    /// Challenges that were made before.
    challenges: RefCell<Challenges>,
    /// Streams that wait for a settlement and have not ended. Envoy's word is not enough: it still finds a stream by its number
    /// between its end and its deletion, and to touch it then is a use after free that ends the whole process (1.36 to 1.40).
    waiting: RefCell<HashSet<u32>>,
    /// Gates that streams are to go on with, which were paid for while they were paused.
    left: RefCell<HashMap<u32, Gate>>,
    /// Streams that are to be ended at a time.
    limits: RefCell<HashMap<u32, u64>>,
    warnings: Cell<Warnings>,
    /// Of breakers, which what clients cause must not drown.
    breaker_warnings: Cell<Warnings>,
    pub(super) claims: Claims,
    needs_facts: bool,
    /// When the callback that runs now looked at the clock, in nanoseconds since the epoch; 0 if it has not.
    clock: Cell<u64>,
    secret: [u8; 16],
    /// What requests are marked with that were let through for money.
    mark: String,
}

impl Worker {
    /// `None` if the secret could not be shared, which takes 64 writers in a row that were faster.
    pub(super) fn new(root: u32, configured: Configured) -> Option<Self> {
        let secret = replay::secret(&SharedData, random()).ok()?;
        let (lineage, former) = Lineage::begin("x402", &configured);
        let config = configured.config;
        let claims = Claims::new(config.max_claims);
        let needs_facts = supported::is_needed(&config);
        let mut metrics = Metrics::default();
        metrics.define();
        if config.access.credits.is_some() {
            metrics.define_credits();
        }
        Some(Self {
            calls: Calls::new(root, &config),
            config,
            lineage,
            former,
            metrics: RefCell::new(metrics),
            table: RefCell::default(),
            jobs: RefCell::default(),
            settling: RefCell::default(),
            patience: Cell::new(u64::MAX),
            captures: RefCell::default(),
            payers: Payers::default(),
            leases: RefCell::default(),
            challenges: RefCell::default(),
            waiting: RefCell::default(),
            left: RefCell::default(),
            limits: RefCell::default(),
            warnings: Cell::default(),
            breaker_warnings: Cell::default(),
            claims,
            needs_facts,
            clock: Cell::new(0),
            mark: gate::mark(&secret),
            secret,
        })
    }

    /// A request has come.
    pub(super) fn is_used(&self) {
        self.lineage.is_used(&self.config);
    }

    /// Which configuration's prices are taken beside today's.
    pub(super) fn former_fingerprint(&self) -> u64 {
        self.lineage.former()
    }

    /// A callback begins: what the clock said in the one before says nothing now.
    pub(super) fn wake(&self) {
        self.clock.set(0);
    }

    /// Nanoseconds since the epoch, the same throughout a callback: each look at the clock is a call of the host.
    pub(super) fn now(&self) -> u64 {
        if self.clock.get() == 0 {
            self.clock.set(abi::now());
        }
        self.clock.get()
    }

    /// The same in seconds.
    pub(super) fn seconds(&self) -> UnixSeconds {
        UnixSeconds(self.now() / 1_000_000_000)
    }

    /// Runs a gate's transition, then carries its notes to metrics, filter state and log.
    pub(super) fn with_env<T>(&self, transition: impl FnOnce(&mut Env<'_>) -> T) -> T {
        let mut notes = Notes::default();
        // Read at each event, so that no worker quotes what another has heard to be otherwise.
        if self.needs_facts {
            self.refresh_table();
        }
        let result = {
            let table = self.table.borrow();
            let now = self.now();
            let mut env = Env {
                now: UnixSeconds(now / 1_000_000_000),
                now_ms: now / 1_000_000,
                config: &self.config,
                former: self.former.as_ref(),
                supported: &table,
                store: &SharedData,
                claims: &self.claims,
                secret: &self.secret,
                mark: &self.mark,
                payers: &self.payers,
                leases: &self.leases,
                challenges: &self.challenges,
                random,
                notes: &mut notes,
            };
            transition(&mut env)
        };
        self.publish(&notes);
        self.tell_ledger(notes.captures);
        result
    }

    /// Drops what has expired in some buckets of each table; how many claims that were.
    pub(super) fn sweep(&self, buckets: Range<u32>, now: UnixSeconds) -> u32 {
        Exposure::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        Bans::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        Attempts::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        Entitlements::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        Identifiers::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        Rates::new(self.config.max_claims).sweep(&SharedData, buckets.clone(), now);
        self.claims.sweep(&SharedData, buckets, now)
    }

    /// Takes over what facilitators are known to support, whichever worker asked.
    pub(super) fn refresh_table(&self) {
        self.table.borrow_mut().refresh(&SharedData, &self.config);
    }

    /// When a facilitator last said what it supports.
    pub(super) fn heard_at(&self, facilitator: usize, now: UnixSeconds) -> Option<UnixSeconds> {
        self.table.borrow().heard_at(facilitator, now)
    }

    /// Offers that no facilitator supports, by what is known now.
    pub(super) fn unsupported(&self) -> Vec<String> {
        self.refresh_table();
        supported::unsupported(&self.config, &self.table.borrow())
    }

    /// A settlement that a stream waits for was sent, or could not be. The root context hears how it ends.
    pub(super) fn awaits(&self, job: Job, sent: Result<CalloutToken, NotSent>) {
        self.waiting.borrow_mut().insert(job.context);
        match sent {
            Ok(token) => {
                // The tick finds out when the next of them loses patience.
                if job.until.is_some() {
                    abi::set_tick(SOON);
                }
                self.settles(token, job);
            }
            // The stream is not paused yet, so that nothing could let it go on now.
            Err(not_sent) => self.leave_to_root(job, Some(not_sent)),
        }
    }

    /// A settlement was sent.
    pub(super) fn settles(&self, token: CalloutToken, job: Job) {
        self.patience.set(self.patience.get().min(job.until.unwrap_or(u64::MAX)));
        self.settling.borrow_mut().insert(token, job);
    }

    fn leave_to_root(&self, job: Job, not_sent: Option<NotSent>) {
        self.jobs.borrow_mut().push_back((job, not_sent));
        abi::set_tick(SOON);
    }

    /// Hands a settlement to the root context that nobody waits for: its stream has ended.
    pub(super) fn enqueue_alone(&self, context: u32, settlement: Box<Settlement>) {
        let until = None;
        let job = Job {
            context,
            settlement,
            until,
        };
        self.leave_to_root(job, None);
    }

    /// Hands to the root context what the ledger has to hear of.
    pub(super) fn tell_ledger(&self, captures: impl IntoIterator<Item = Capture>) {
        let mut queued = self.captures.borrow_mut();
        let before = queued.len();
        queued.extend(captures);
        if queued.len() > before {
            abi::set_tick(SOON);
        }
    }

    /// Ends a stream at a time, in nanoseconds since the epoch, unless it has ended before.
    pub(super) fn limit(&self, context: u32, until: u64) {
        self.limits.borrow_mut().insert(context, until);
    }

    /// The streams whose time is up. They are Envoy's still; their end is reported as any other's.
    pub(super) fn overdue(&self, now: u64) -> Vec<u32> {
        let limits = self.limits.borrow();
        limits
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(context, _)| *context)
            .collect()
    }

    /// Leaves a gate for a stream that has not ended.
    pub(super) fn leave(&self, context: u32, gate: Gate) {
        self.left.borrow_mut().insert(context, gate);
    }

    /// Takes it up.
    pub(super) fn take_up(&self, context: u32) -> Option<Gate> {
        removed(&self.left, context)
    }

    /// A stream has ended. Whether its time was up.
    pub(super) fn ended(&self, context: u32) -> bool {
        self.waits_no_more(context);
        self.take_up(context);
        removed(&self.limits, context).is_some_and(|until| until <= self.now())
    }

    /// Whether a stream still waits for its settlement.
    pub(super) fn waits(&self, context: u32) -> bool {
        self.waiting.borrow().contains(&context)
    }

    /// A stream waits no more: its settlement is known, or it has ended. Whether it did until now.
    pub(super) fn waits_no_more(&self, context: u32) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        !waiting.is_empty() && waiting.remove(&context)
    }

    fn publish(&self, notes: &Notes) {
        let mut metrics = self.metrics.borrow_mut();
        for event in &notes.events {
            metrics.note(event, &self.config);
        }
        let mut property = PROPERTY.to_owned();
        for (name, value) in &notes.attributes {
            property.truncate(PROPERTY.len());
            property.push_str(name);
            // Fails where the stream is gone: there is no access log line left to complete then.
            let _ = abi::set_property(&property, value.as_bytes());
        }
        for warning in &notes.warnings {
            bounded(&self.warnings, warning);
        }
    }

    /// Says that a breaker has opened or closed.
    pub(super) fn warn_of_breaker(&self, line: &str) {
        bounded(&self.breaker_warnings, line);
    }
}

/// Takes what there is of a stream. Most have nothing, and hashing costs more than asking whether anybody has.
fn removed<T>(of: &RefCell<HashMap<u32, T>>, context: u32) -> Option<T> {
    let mut of = of.borrow_mut();
    if of.is_empty() { None } else { of.remove(&context) }
}

/// Logs a line. Clients can cause some of these at will, so that there is a bound on them.
fn bounded(written: &Cell<Warnings>, line: &str) {
    let mut warnings = written.get();
    let minute = abi::now() / 60_000_000_000;
    if warnings.minute != minute {
        if warnings.dropped > 0 {
            abi::log(Level::Warn, &format!("{} more warnings in the last minute", warnings.dropped));
        }
        warnings = Warnings {
            minute,
            ..Warnings::default()
        };
    }
    if warnings.written < WARNINGS_PER_MINUTE {
        warnings.written = warnings.written.saturating_add(1);
        abi::log(Level::Warn, line);
    } else {
        warnings.dropped = warnings.dropped.saturating_add(1);
    }
    written.set(warnings);
}

/// From the host's random source, through the seeds that the standard library draws from it.
fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&RandomState::new().hash_one(0u8).to_le_bytes());
    second.copy_from_slice(&RandomState::new().hash_one(1u8).to_le_bytes());
    bytes
}

/// Applies edits to a header map.
pub(super) fn apply(map: Map, edits: &Edits) {
    for name in &edits.remove {
        let _ = abi::remove_header(map, name);
    }
    for (name, value) in &edits.set {
        let _ = abi::set_header(map, name, value);
    }
    for (name, value) in &edits.add {
        let _ = abi::add_header(map, name, value);
    }
}

/// Answers the stream in the backend's place.
pub(super) fn answer(answer: &Answer) {
    let headers: Vec<(&str, &str)> = answer.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let _ = abi::reply(answer.status, "x402", &headers, &answer.body);
}
