//! The root context of the gate: configuration, the tick, and every settlement.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::abi::{self, Level, Map, Stream};
use super::callout::Arrived;
use super::calls::NotSent;
use super::configured::configuration;
use super::ending;
use super::shared_stream::SharedStream;
use super::store::SharedData;
use super::worker::{self, Job, Worker};
use crate::breaker::Class;
use crate::gate::{Call, CalloutReply, CalloutToken, Capture, EndEffect, Endpoint, Released, end_leases};
use crate::replay::{Cas, SharedStore};
use crate::supported;
use crate::x402::facilitator::{MAX_ANSWER, Supported};

/// The tick when nothing is waiting.
const IDLE: Duration = Duration::from_secs(1);
/// The first tick: clusters are not warm in `on_configure`.
const FIRST: Duration = Duration::from_millis(20);
/// Never too early by a rounded millisecond.
const SOON: Duration = Duration::from_millis(1);
/// Buckets of claims to sweep at each idle tick: all 4096 in about a minute.
const SWEEP: u32 = 64;

/// The root context of the gate on one worker.
pub(super) struct GateRoot {
    context: u32,
    worker: Option<Rc<Worker>>,
    /// Settlements that are to be sent again, and when.
    later: Vec<(u64, Job)>,
    /// What the ledger was told, and has not answered.
    telling: HashMap<CalloutToken, Capture>,
    /// What it is to be told again, and when.
    tell_later: Vec<(u64, Capture)>,
    chores_due: u64,
    sweep_from: u32,
    leaving: bool,
}

impl GateRoot {
    pub(super) fn new(context: u32) -> Self {
        Self {
            context,
            worker: None,
            later: Vec::new(),
            telling: HashMap::new(),
            tell_later: Vec::new(),
            chores_due: 0,
            sweep_from: 0,
            leaving: false,
        }
    }

    /// Calls made while a stream is the effective context would belong to that stream, and end with it.
    fn act_as_root(&self) {
        let _ = abi::set_effective_context(self.context);
    }

    /// Sends every settlement that waits to be sent, and ends what could not be.
    fn settle(&mut self, worker: &Worker) {
        loop {
            self.act_as_root();
            // Not held across the call: nothing that it leads to may find the queue borrowed.
            let Some((job, not_sent)) = worker.jobs.borrow_mut().pop_front() else {
                return;
            };
            let Job {
                context,
                settlement,
                until,
            } = job;
            let kept = match worker.waits(context) {
                true => Some(settlement),
                false => worker.with_env(|env| settlement.abandon(env)),
            };
            let Some(settlement) = kept else { continue };
            let job = Job {
                context,
                settlement,
                until,
            };
            match not_sent {
                Some(NotSent(seconds)) => self.later.extend(finish(worker, job, &CalloutReply::NotSent, seconds)),
                None => self.send(worker, job),
            }
        }
    }

    fn send(&mut self, worker: &Worker, job: Job) {
        match worker.send(job.settlement.call(), Some(job.settlement.class()), None) {
            Ok(token) => worker.settles(token, job),
            Err(NotSent(seconds)) => self.later.extend(finish(worker, job, &CalloutReply::NotSent, seconds)),
        }
    }

    /// Sends again what it is time for.
    fn send_again(&mut self, worker: &Worker, now: u64) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        for (_, job) in due {
            // What is said of this one must not end up in the access log of the one before.
            self.act_as_root();
            self.send(worker, job);
        }
    }

    /// Tells the ledger what is due, and again what it is time for.
    fn tell(&mut self, worker: &Worker, now: u64) {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tell_later).into_iter().partition(|(at, _)| *at <= now);
        self.tell_later = later;
        let new = worker.captures.take();
        for capture in new.into_iter().chain(due.into_iter().map(|(_, capture)| capture)) {
            self.act_as_root();
            match worker.send(capture.call(), Some(Class::Owed), None) {
                Ok(token) => {
                    self.telling.insert(token, capture);
                }
                Err(NotSent(_)) => self.told(worker, capture, &CalloutReply::NotSent),
            }
        }
    }

    /// The ledger answered, or could not be told.
    fn told(&mut self, worker: &Worker, capture: Capture, reply: &CalloutReply<'_>) {
        if let Some((capture, ms)) = worker.with_env(|env| capture.answered(reply, env)) {
            self.tell_later
                .push((worker.now().saturating_add(ms.saturating_mul(1_000_000)), capture));
            abi::set_tick(SOON);
        }
    }

    /// Lets streams end that have waited long enough for their receipt. Their settlements go on.
    fn lose_patience(&mut self, worker: &Worker, now: u64) {
        let settling = worker.settling.borrow();
        let jobs = settling.values().chain(self.later.iter().map(|(_, job)| job));
        let (mut overdue, mut next) = (Vec::new(), u64::MAX);
        for (until, job) in jobs
            .filter(|job| worker.waits(job.context))
            .filter_map(|job| Some((job.until?, job)))
        {
            if until <= now {
                overdue.push((job.context, job.settlement.receipt_name()));
            } else {
                next = next.min(until);
            }
        }
        drop(settling);
        worker.patience.set(next);
        for (context, announced) in overdue {
            if worker.waits_no_more(context) && abi::set_effective_context(context).is_ok() {
                ending::end(&EndEffect::Finish(None), announced);
            }
        }
        self.act_as_root();
    }

    /// Ends answers whose price ends here.
    fn end_overdue(&self, worker: &Worker, now: u64) {
        for context in worker.overdue(now) {
            if abi::set_effective_context(context).is_ok() {
                let _ = abi::reset(Stream::Response);
            }
        }
        self.act_as_root();
    }

    /// What is done about once a second: facts of the facilitators, expired claims.
    fn chores(&mut self, worker: &Worker) {
        let now = worker.seconds();
        for facilitator in 0..worker.config.facilitators.len() {
            if supported::take_turn(&SharedData, &worker.config, facilitator, now) {
                self.ask(worker, facilitator);
            }
        }
        worker.listen(now);
        self.end_leases(worker);
        let until = self.sweep_from.saturating_add(SWEEP);
        let dropped = worker.sweep(self.sweep_from..until, now);
        self.sweep_from = if until >= worker.claims.buckets() { 0 } else { until };
        worker
            .metrics
            .borrow_mut()
            .note(&crate::gate::Note::Claims(i64::from(dropped).saturating_neg()), &worker.config);
    }

    /// All of them where this is about to go.
    fn end_leases(&self, worker: &Worker) {
        if !worker.leases.borrow().is_empty() {
            worker.with_env(|env| end_leases(self.leaving, env));
        }
    }

    fn ask(&mut self, worker: &Worker, facilitator: usize) {
        let timeout_ms = worker
            .config
            .facilitators
            .get(facilitator)
            .map_or(1, |facilitator| facilitator.verify_timeout_ms);
        let call = Call {
            facilitator,
            endpoint: Endpoint::Supported,
            body: Vec::new(),
            timeout_ms,
            intent: None,
        };
        if worker.send(&call, None, None).is_err() {
            answered(worker, facilitator, &CalloutReply::NotSent);
        }
    }

    fn leave_if_idle(&self) {
        if self.leaving && self.is_idle() {
            self.act_as_root();
            abi::done();
        }
    }

    fn is_idle(&self) -> bool {
        let queued = |worker: &Worker| {
            let settling = !worker.jobs.borrow().is_empty() || !worker.settling.borrow().is_empty();
            settling || !worker.captures.borrow().is_empty() || !worker.leases.borrow().is_empty()
        };
        let in_hand = !self.later.is_empty() || !self.telling.is_empty() || !self.tell_later.is_empty();
        !in_hand && !self.worker.as_deref().is_some_and(queued)
    }
}

/// Takes in an answer of `/supported`.
fn answered(worker: &Worker, facilitator: usize, reply: &CalloutReply<'_>) {
    let answer = match reply {
        CalloutReply::Answered { status: 200, body } if body.len() <= MAX_ANSWER => Supported::parse(body).ok(),
        _ => None,
    };
    worker
        .metrics
        .borrow_mut()
        .supported(if answer.is_some() { "known" } else { "unavailable" });
    supported::share(&SharedData, &worker.config, facilitator, answer, worker.seconds());
    let unsupported = worker.unsupported();
    worker.metrics.borrow_mut().unsupported(unsupported.len());
    for line in &unsupported {
        once(line, Level::Warn);
    }
}

/// Ends a settlement: the claim in any case, the answer if its client is still there. Or gives it back, to be sent again at a time.
/// `seconds`: when it was not sent, and will not be for so long.
fn finish(worker: &Worker, job: Job, reply: &CalloutReply<'_>, seconds: Option<u64>) -> Option<(u64, Job)> {
    let Job {
        context,
        settlement,
        until,
    } = job;
    // Asked in this order: see `Worker::waiting`.
    let alive = worker.waits(context) && abi::set_effective_context(context).is_ok();
    let announced = settlement.receipt_name();
    let effect = worker.with_env(|env| settlement.settled(reply, env));
    if let Released::Again(settlement, ms) = effect {
        let at = worker.now().saturating_add(ms.saturating_mul(1_000_000));
        abi::set_tick(SOON);
        let job = Job {
            context,
            settlement,
            until,
        };
        return Some((at, job));
    }
    worker.waits_no_more(context);
    if !alive {
        // Nobody is there to have what was paid for.
        if let Released::Forward(_, mut gate) | Released::Edit(_, mut gate) = effect {
            worker.with_env(|env| gate.on_late(env));
        }
        return None;
    }
    match effect {
        Released::Again(..) => {}
        Released::Forward(edits, gate) => {
            worker::apply(Map::Request, &edits);
            worker.leave(context, *gate);
            let _ = abi::resume(Stream::Request);
        }
        Released::Edit(edits, gate) => {
            worker::apply(Map::Response, &edits);
            worker.leave(context, *gate);
            let _ = abi::resume(Stream::Response);
        }
        Released::Answer(mut answer) => {
            if let Some(seconds) = seconds {
                answer.retry_after(seconds);
            }
            worker::answer(&answer);
        }
        Released::End(effect) => ending::end(&effect, announced),
    }
    None
}

/// Logs a line from one of the workers only: each of them, the main thread and a canary run `on_configure`.
fn once(line: &str, level: Level) {
    let key = format!("x402/logged/{}", hex::encode(crate::evm::keccak256(line.as_bytes())));
    if SharedData.compare_and_swap(&key, b"1", Cas::Absent).is_ok() {
        abi::log(level, line);
    }
}

impl Drop for GateRoot {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.calls.end();
        }
    }
}

impl Context for GateRoot {
    fn on_http_call_response(&mut self, token: u32, num_headers: usize, _body_size: usize, _num_trailers: usize) {
        let Some(worker) = self.worker.clone() else { return };
        worker.wake();
        let token = CalloutToken(token);
        #[cfg(feature = "panic-switch")]
        if let Some(job) = worker.settling.borrow().get(&token) {
            super::panic_switch::reached(super::panic_switch::Moment::Settle, job.context);
        }
        let arrived = Arrived::read(num_headers);
        let Some(ended) = worker.arrived(token, &arrived) else { return };
        match ended.endpoint {
            Endpoint::Verify | Endpoint::Reserve => {
                if let Some(stream) = ended.stream.upgrade()
                    && let Ok(mut stream) = stream.try_borrow_mut()
                {
                    worker.calls.at_root(|| stream.verified(token, &arrived));
                }
            }
            Endpoint::Settle => {
                let job = worker.settling.borrow_mut().remove(&token);
                if let Some(job) = job {
                    self.later.extend(finish(&worker, job, &arrived.reply(), None));
                }
            }
            Endpoint::Capture | Endpoint::Report => {
                if let Some(capture) = self.telling.remove(&token) {
                    self.act_as_root();
                    self.told(&worker, capture, &arrived.reply());
                }
            }
            Endpoint::Supported => answered(&worker, ended.facilitator, &arrived.reply()),
        }
        self.leave_if_idle();
    }

    /// A configuration has replaced this one: stay until the last settlement is known.
    fn on_done(&mut self) -> bool {
        self.leaving = true;
        if let Some(worker) = &self.worker {
            worker.wake();
            self.end_leases(worker);
            let (mut queued, mut settling) = (worker.jobs.borrow_mut(), worker.settling.borrow_mut());
            let queued = queued.iter_mut().map(|(job, _)| job);
            let later = self.later.iter_mut().map(|(_, job)| job);
            for job in settling.values_mut().chain(later).chain(queued) {
                worker.with_env(|env| job.settlement.leave_pending(env));
            }
        }
        self.is_idle()
    }
}

impl RootContext for GateRoot {
    fn on_configure(&mut self, _size: usize) -> bool {
        let Some(configured) = configuration() else { return false };
        once(&format!("version {}", env!("CARGO_PKG_VERSION")), Level::Info);
        for warning in &configured.config.warnings {
            once(warning, Level::Warn);
        }
        self.worker = Worker::new(self.context, configured).map(Rc::new);
        abi::set_tick(FIRST);
        self.worker.is_some()
    }

    fn on_tick(&mut self) {
        #[cfg(feature = "panic-switch")]
        super::panic_switch::ticked();
        let Some(worker) = self.worker.clone() else { return };
        worker.wake();
        self.settle(&worker);
        let now = worker.now();
        self.tell(&worker, now);
        self.leave_if_idle();
        if now >= self.chores_due {
            self.chores_due = now.saturating_add(u64::try_from(IDLE.as_nanos()).unwrap_or(u64::MAX));
            self.end_overdue(&worker, now);
            self.chores(&worker);
        }
        self.send_again(&worker, now);
        if now >= worker.patience.get() {
            self.lose_patience(&worker, now);
        }
        // The chores as well: Envoy counts from when it began to call, a little before `now`, so that a tick of exactly their period
        // comes too early for them half of the time.
        let due = [worker.patience.get(), self.chores_due];
        let untold = self.tell_later.iter().map(|(at, _)| *at);
        let next = self.later.iter().map(|(at, _)| *at).chain(untold).chain(due).min().unwrap_or(now);
        // Bounded, for a clock that was set back.
        let wait = IDLE.min(Duration::from_nanos(next.saturating_sub(now)));
        abi::set_tick(wait.saturating_add(SOON));
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.worker {
            Some(worker) => {
                worker.is_used();
                Some(Box::new(SharedStream::new(context_id, worker)))
            }
            None => Some(Box::new(Unconfigured)),
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A stream of a plugin that has no configuration: Envoy refuses such a plugin, so there should be none. Nothing passes it.
struct Unconfigured;

impl Context for Unconfigured {}

impl HttpContext for Unconfigured {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> proxy_wasm::types::Action {
        let _ = abi::reply(503, "x402_unconfigured", &[], b"");
        proxy_wasm::types::Action::Pause
    }
}
