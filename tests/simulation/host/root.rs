//! The root context: `src/host/gate_root.rs`, which owns every settlement.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use x402_envoy::gate::{EndEffect, Gate, Released, Settlement};
use x402_envoy::pricing::{End, Former};
use x402_envoy::replay::{Attempts, Bans, Entitlements, Exposure, Identifiers, Rates, UnixSeconds};

use super::super::agenda::Event;
use super::super::facilitator::{self, Reply};
use super::super::invariants::{self, Conclusion};
use super::super::world::World;
use super::Worker;
use super::store::Shared;
use super::stream::{Answering, apply};

/// A settlement that the root has.
pub struct Job {
    pub context: u32,
    pub visit: usize,
    /// The call that is on its way.
    pub attempt: Option<usize>,
    pub settlement: Box<Settlement>,
    /// Until when its stream is kept waiting, in milliseconds.
    pub until: Option<u64>,
}

#[derive(Default)]
pub struct Root {
    /// The price list that it is configured with.
    pub list: usize,
    /// The one before, as long as it is good.
    pub former: Option<(usize, Former)>,
    pub jobs: VecDeque<Job>,
    /// Streams that wait for a settlement and have not ended.
    pub waiting: BTreeSet<u32>,
    /// Gates that streams are to go on with.
    pub left: BTreeMap<u32, Gate>,
    /// Streams that are to be ended at a time.
    pub limits: BTreeMap<u32, u64>,
    settling: BTreeMap<u32, Job>,
    later: Vec<(u64, Job)>,
    leaving: bool,
    ticks_at: Option<u64>,
}

impl Root {
    pub fn new(list: usize, former: Option<(usize, Former)>) -> Self {
        Self {
            list,
            former,
            ..Self::default()
        }
    }

    /// A stream has ended. Whether its time was up.
    pub fn ended(&mut self, context: u32, now: u64) -> bool {
        self.waiting.remove(&context);
        // A gate that was left is the stream's, which has taken it up if it could.
        self.left.remove(&context);
        self.limits.remove(&context).is_some_and(|until| until <= now)
    }

    pub fn visits(&self) -> impl Iterator<Item = usize> {
        self.every().map(|job| job.visit)
    }

    fn every(&self) -> impl Iterator<Item = &Job> {
        self.jobs
            .iter()
            .chain(self.settling.values())
            .chain(self.later.iter().map(|(_, job)| job))
    }

    /// Whether a stream waits for a settlement that will be heard of.
    pub fn will_hear(&self, context: u32) -> bool {
        self.waiting.contains(&context) && self.every().any(|job| job.context == context)
    }

    pub fn is_idle(&self) -> bool {
        self.every().next().is_none()
    }
}

impl Worker {
    pub fn tick_at(&mut self, world: &World, root: u32, at: u64) {
        let (worker, vm) = (self.index, self.vm);
        let ticks_at = &mut self.root(root).ticks_at;
        if ticks_at.is_none_or(|planned| planned > at) {
            *ticks_at = Some(at);
            world.plan(at, Event::Tick { worker, vm, root });
        }
    }

    pub fn tick(&mut self, world: &World, root: u32) {
        if !self.roots.contains_key(&root) {
            return;
        }
        self.root(root).ticks_at = None;
        self.settle(world, root);
        let now = world.now_ms();
        self.end_overdue(world, root, now);
        if world.random.chance(60) {
            self.sweep(world);
        }
        self.send_again(world, root, now);
        self.lose_patience(world, root, now);
        let root_state = &self.roots[&root];
        let waiting = root_state.every().filter(|job| root_state.waiting.contains(&job.context));
        let next = root_state.later.iter().map(|(at, _)| *at);
        let next = next
            .chain(waiting.filter_map(|job| job.until))
            .chain(root_state.limits.values().copied());
        if let Some(next) = next.min() {
            self.tick_at(world, root, next.max(now) + 1);
        }
        self.leave_if_idle(root);
    }

    /// Sends every settlement that waits.
    fn settle(&mut self, world: &World, root: u32) {
        while let Some(mut job) = self.root(root).jobs.pop_front() {
            if !self.root(root).waiting.contains(&job.context) {
                let settlement = job.settlement;
                let Some(kept) = self.with_env(world, root, Some(job.visit), |env| settlement.abandon(env)) else {
                    world.count("settlement: abandoned");
                    invariants::abandoned(world, job.visit);
                    continue;
                };
                job.settlement = kept;
            }
            self.send(world, root, job);
        }
    }

    fn send(&mut self, world: &World, root: u32, mut job: Job) {
        match facilitator::send(world, self.index, self.vm, job.visit, job.settlement.call()) {
            Ok((token, attempt)) => {
                job.attempt = attempt;
                self.root(root).settling.insert(token.0, job);
            }
            Err(()) => self.finish(world, root, job, &Reply::not_sent()),
        }
    }

    /// A reply to /settle.
    pub fn settled(&mut self, world: &World, token: u32, reply: &Reply) {
        let roots: Vec<u32> = self.roots.keys().copied().collect();
        for root in roots {
            if let Some(job) = self.root(root).settling.remove(&token) {
                self.finish(world, root, job, reply);
                self.leave_if_idle(root);
                return;
            }
        }
    }

    /// Ends a settlement: the claim in any case, the answer if its client is still there.
    fn finish(&mut self, world: &World, root: u32, job: Job, reply: &Reply) {
        let Job {
            context,
            visit,
            attempt,
            settlement,
            until,
        } = job;
        let alive = self.root(root).waiting.contains(&context) && self.streams.contains_key(&context);
        invariants::told(world, visit, attempt, reply);
        invariants::selling(world, visit);
        let effect = self.with_env(world, root, Some(visit), |env| settlement.settled(&reply.read(), env));
        let conclusion = match &effect {
            Released::Again(..) => None,
            Released::Forward(..) | Released::Edit(..) | Released::End(EndEffect::Finish(Some(_))) => Some(Conclusion::Paid),
            Released::Answer(answer) => Some(Conclusion::Answered(answer.status)),
            Released::End(EndEffect::Finish(None)) => Some(Conclusion::Unsettled),
            Released::End(EndEffect::Break) => Some(Conclusion::Broken),
        };
        world.say(|| format!("  visit {visit}: told {:?}: {conclusion:?}", reply.told));
        if let Some(conclusion) = conclusion {
            invariants::concluded(world, visit, conclusion);
        }
        if let Released::Again(settlement, ms) = effect {
            world.count("settlement: sent again");
            invariants::sold(world, visit, false);
            let job = Job {
                context,
                visit,
                attempt: None,
                settlement,
                until,
            };
            let at = world.now_ms() + ms;
            self.root(root).later.push((at, job));
            self.tick_at(world, root, at + 1);
            return;
        }
        self.root(root).waiting.remove(&context);
        if !alive {
            world.count("settlement: its client was gone");
            // Nobody is there to have what was paid for.
            if let Released::Forward(_, mut gate) | Released::Edit(_, mut gate) = effect {
                let change = invariants::ending(world, visit, false, End::ClientGone);
                self.with_env(world, root, Some(visit), |env| gate.on_late(env));
                invariants::ended(world, visit, change);
            }
            return;
        }
        // A nested event cannot have ended it: events of one worker do not interleave.
        let mut stream = self.streams.remove(&context).unwrap();
        match effect {
            Released::Again(..) => {}
            Released::Forward(edits, gate) => {
                apply(&edits, &mut stream.headers);
                self.root(root).left.insert(context, *gate);
                self.paid(world, &mut stream);
            }
            Released::Edit(edits, gate) => {
                apply(&edits, &mut stream.headers);
                self.root(root).left.insert(context, *gate);
                self.response_goes_on(world, &mut stream);
            }
            Released::Answer(answer) => self.answer(world, &mut stream, &answer),
            Released::End(end) => {
                if stream.answering != Answering::EndPaused {
                    invariants::violated("one resume for each pause", "an end was let go on that was not held back");
                }
                self.ends(world, &mut stream, &end);
            }
        }
        self.keep(world, stream);
    }

    /// Sends again what it is time for.
    fn send_again(&mut self, world: &World, root: u32, now: u64) {
        let later = std::mem::take(&mut self.root(root).later);
        let (due, later): (Vec<_>, Vec<_>) = later.into_iter().partition(|(at, _)| *at <= now);
        self.root(root).later = later;
        for (_, job) in due {
            self.send(world, root, job);
        }
    }

    /// Lets streams end that have waited long enough for their receipt.
    fn lose_patience(&mut self, world: &World, root: u32, now: u64) {
        let of = &self.roots[&root];
        let overdue = of
            .every()
            .filter(|job| of.waiting.contains(&job.context) && job.until.is_some_and(|until| until <= now));
        let overdue: Vec<u32> = overdue.map(|job| job.context).collect();
        for context in overdue {
            self.root(root).waiting.remove(&context);
            if let Some(mut stream) = self.streams.remove(&context) {
                world.count("metered: patience lost");
                self.ends(world, &mut stream, &EndEffect::Finish(None));
                self.keep(world, stream);
            }
        }
    }

    /// Ends answers whose price ends here.
    fn end_overdue(&mut self, world: &World, root: u32, now: u64) {
        let limits = &self.roots[&root].limits;
        let overdue: Vec<u32> = limits
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(context, _)| *context)
            .collect();
        for context in overdue {
            match self.streams.remove(&context) {
                Some(stream) => self.reset(world, stream),
                None => {
                    self.root(root).limits.remove(&context);
                }
            }
        }
    }

    /// Drops what has expired, in some buckets of each table.
    pub fn sweep(&mut self, world: &World) {
        let first = u32::try_from(world.random.below(4096)).unwrap();
        self.sweep_buckets(world, first..first + 64);
        self.sweep_buckets(world, 0..8);
    }

    pub fn sweep_buckets(&mut self, world: &World, buckets: std::ops::Range<u32>) {
        let shared = Shared::new(world, None);
        let (now, most) = (UnixSeconds(world.now_ms() / 1000), world.shop.configs[0].max_claims);
        Exposure::new(most).sweep(&shared, buckets.clone(), now);
        Bans::new(most).sweep(&shared, buckets.clone(), now);
        Attempts::new(most).sweep(&shared, buckets.clone(), now);
        Entitlements::new(most).sweep(&shared, buckets.clone(), now);
        Identifiers::new(most).sweep(&shared, buckets.clone(), now);
        Rates::new(most).sweep(&shared, buckets.clone(), now);
        let dropped = world.claims.sweep(&shared, buckets, now);
        world.gauge.set(world.gauge.get() - i64::from(dropped));
    }

    /// A configuration replaces the one before. `on_done` of the old root is called, perhaps while its streams are still there.
    pub fn reconfigured(&mut self, world: &World) {
        world.count("worker: configured anew");
        let root = self.newest();
        let list = if world.random.chance(500) {
            self.root(root).list
        } else {
            1 - self.root(root).list
        };
        world.lists[self.index].set(list);
        let former = self.lineage.former(world, list);
        if former.is_some() {
            world.count("worker: former prices");
        }
        self.roots.insert(root + 1, Root::new(list, former));
        let old = self.root(root);
        old.leaving = true;
        let mut settling = std::mem::take(&mut old.settling);
        let mut later = std::mem::take(&mut old.later);
        let mut queued = std::mem::take(&mut old.jobs);
        let jobs = settling
            .values_mut()
            .chain(later.iter_mut().map(|(_, job)| job))
            .chain(queued.iter_mut());
        for job in jobs {
            world.visits(job.visit, |seen| seen.left_pending = true);
            self.with_env(world, root, Some(job.visit), |env| job.settlement.leave_pending(env));
            world.count("settlement: left pending");
        }
        let old = self.root(root);
        (old.settling, old.later, old.jobs) = (settling, later, queued);
        self.leave_if_idle(root);
    }

    /// A root that has nothing left to do, and no streams, is gone.
    fn leave_if_idle(&mut self, root: u32) {
        let state = &self.roots[&root];
        if state.leaving && state.is_idle() && self.streams.values().all(|stream| stream.root != root) {
            self.roots.remove(&root);
        }
    }
}
