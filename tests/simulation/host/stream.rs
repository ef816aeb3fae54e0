//! One stream through Envoy: `src/host/gate_stream.rs`, and what Envoy itself does with a stream that is paused.

use std::collections::VecDeque;
use std::rc::Rc;

use x402_envoy::gate::{
    CalloutToken, Edits, Gate, Owed, Request, RequestEffect, Response, ResponseEffect, Settlement, VerifiedEffect, open,
};
use x402_envoy::pricing::End;
use x402_envoy::x402::Answer;

use super::super::agenda::Event;
use super::super::backend::{Step, mishap, script};
use super::super::client::{self, Errand, Outcome};
use super::super::facilitator::{self, Reply};
use super::super::invariants;
use super::super::shop::{Asks, FORGED, ROUTES, Route, place};
use super::super::world::World;
use super::Worker;
use super::root::Job;

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Its headers have just come.
    Fresh,
    Paused,
    /// The backend has it.
    On,
    /// It was answered in the backend's place.
    Answered,
}

/// Where its answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answering {
    Nothing,
    /// The headers are here and have not left.
    Paused,
    /// The headers have left.
    On,
    /// All but the end has left.
    EndPaused,
    Over,
}

/// Names, in lower case, and values.
pub type Headers = Vec<(String, String)>;

/// Changes headers as Envoy does.
pub fn apply(edits: &Edits, headers: &mut Headers) {
    headers.retain(|(name, _)| !edits.remove.iter().any(|removed| **removed == **name));
    for (name, value) in &edits.set {
        headers.retain(|(old, _)| old != name);
        headers.push(((*name).into(), value.clone()));
    }
    headers.extend(edits.add.iter().map(|(name, value)| ((*name).into(), value.clone())));
}

/// Whether a filter lets something go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Continue,
    Pause,
}

pub struct Stream {
    pub visit: usize,
    pub root: u32,
    pub gate: Gate,
    pub asking: Asking,
    pub answering: Answering,
    /// The call to /verify that it waits for.
    pub token: Option<u32>,
    pub context: u32,
    /// The request's headers, until it goes on; then the answer's.
    pub headers: Headers,
    pub script: VecDeque<Step>,
    pub longest_ms: Option<u64>,
    /// The answer's status, and whether it is the backend's.
    pub status: (u16, bool),
    /// How it has ended, if it has.
    pub ended: Option<(End, Outcome)>,
}

impl Stream {
    /// Whether it goes on only if somebody lets it.
    pub fn waits(&self) -> bool {
        self.asking == Asking::Paused || matches!(self.answering, Answering::Paused | Answering::EndPaused)
    }

    pub fn verifies(&self) -> bool {
        matches!(self.gate, Gate::Verifying(_))
    }

    /// The VM that it was in is gone: its client sees a reset.
    pub fn torn(self, world: &World) {
        client::ended(world, self.visit, Outcome::CutOff);
    }
}

impl Worker {
    /// The challenge of a route, in one of the price lists.
    pub fn challenge(&mut self, world: &World, route: &Route, list: usize) -> Answer {
        let root = self.newest();
        let before = std::mem::replace(&mut self.root(root).list, list);
        let request = Request {
            place: place(route, route.path),
            scheme: b"https",
            headers: &[],
            body: world.shop.body(route, Asks::One),
            ended: true,
        };
        let (_, effect) = self.with_env(world, root, None, |env| open(&request, env));
        self.root(root).list = before;
        match effect {
            RequestEffect::Answer(answer) => Rc::unwrap_or_clone(answer),
            _ => invariants::violated("no answer without a payment", format!("{} is not refused", route.name)),
        }
    }

    /// The stream that waits for a reply to /verify.
    pub fn verifying(&mut self, token: u32) -> Option<Stream> {
        let (context, _) = self.streams.iter().find(|(_, stream)| stream.token == Some(token))?;
        let context = *context;
        self.streams.remove(&context)
    }

    /// A request has come.
    pub fn arrive(&mut self, world: &World, errand: Errand) {
        let (context, root) = (self.new_context(), self.newest());
        let route = &ROUTES[errand.route];
        self.lineage.is_used(root, self.roots[&root].list);
        let visit = world.visit(errand, self.roots[&root].quotes(route, world.now_ms()));
        let mut headers: Headers = vec![("x-x402-payer".into(), FORGED.into()), ("accept".into(), "*/*".into())];
        headers.extend(errand.payment.map(|payment| {
            let crowd = world.crowd.borrow();
            let payment = &crowd.payments[payment];
            (payment.header.into(), String::from_utf8(payment.value.clone()).unwrap())
        }));
        let seen: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let target = route.target(errand.asks);
        let request = Request {
            place: place(route, &target),
            scheme: b"https",
            headers: &seen,
            body: world.shop.body(route, errand.asks),
            ended: !route.tokens && errand.asks != Asks::Unread,
        };
        let (gate, effect) = self.with_env(world, root, Some(visit), |env| open(&request, env));
        let mut stream = Stream {
            visit,
            root,
            gate,
            asking: Asking::Fresh,
            answering: Answering::Nothing,
            token: None,
            context,
            headers,
            script: VecDeque::new(),
            longest_ms: None,
            status: (0, false),
            ended: None,
        };
        client::begun(world, visit, self.index, self.vm, context);
        match self.carry_out(world, &mut stream, effect) {
            Action::Continue => self.goes_on(world, &mut stream),
            Action::Pause if stream.asking == Asking::Fresh => stream.asking = Asking::Paused,
            Action::Pause => {}
        }
        self.keep(world, stream);
    }

    /// Puts a stream back, or ends it.
    pub fn keep(&mut self, world: &World, stream: Stream) {
        match stream.ended {
            None => {
                self.streams.insert(stream.context, stream);
            }
            Some((end, outcome)) => self.log(world, stream, end, outcome),
        }
    }

    /// `on_log`: the stream has ended.
    fn log(&mut self, world: &World, mut stream: Stream, end: End, outcome: Outcome) {
        self.take_up(&mut stream);
        let time_is_up = self.root(stream.root).ended(stream.context, world.now_ms());
        if !matches!(stream.gate, Gate::Done) {
            let reads = stream.gate.reads_response();
            let end = match (reads, time_is_up) {
                (true, true) => End::Interrupted,
                // What is priced by time was delivered in full.
                (false, true) => End::Complete,
                (_, false) => end,
            };
            let begun = matches!(stream.gate, Gate::Delivering(_));
            let delivers = begun || matches!(stream.gate, Gate::Prepaid(_));
            let change = delivers.then(|| invariants::ending(world, stream.visit, begun, end)).flatten();
            let Stream { visit, gate, root, .. } = &mut stream;
            let owed = self.with_env(world, *root, Some(*visit), |env| gate.on_end(end, env));
            let settlement = owed.map(|owed| match owed {
                Owed::Settlement(settlement) => settlement,
                Owed::Capture(_) => unreachable!("no credits are sold in any of the shop's configurations"),
            });
            invariants::ended(world, stream.visit, change);
            invariants::left(world, stream.visit, end, settlement.is_some(), reads);
            if let Some(settlement) = settlement {
                self.enqueue(world, &stream, settlement, None);
            }
        }
        invariants::over(world, stream.visit);
        client::ended(world, stream.visit, outcome);
    }

    /// The request goes to the backend.
    fn goes_on(&mut self, world: &World, stream: &mut Stream) {
        if !matches!(stream.asking, Asking::Fresh | Asking::Paused) {
            invariants::violated(
                "one resume for each pause",
                format!("a request was let go on that was {:?}", stream.asking),
            );
        }
        stream.asking = Asking::On;
        invariants::forwarded(world, stream.visit, &std::mem::take(&mut stream.headers));
        stream.script = script(world, stream.visit);
        let (worker, vm, context) = (self.index, self.vm, stream.context);
        if let Some((after_ms, how)) = mishap(world) {
            world.plan(world.now_ms() + after_ms, Event::Cut { worker, vm, context, how });
        }
        self.next_step(world, stream);
    }

    pub fn next_step(&self, world: &World, stream: &Stream) {
        if let Some(step) = stream.script.front() {
            let (worker, vm, context) = (self.index, self.vm, stream.context);
            world.plan(world.now_ms() + step.after_ms(), Event::Backend { worker, vm, context });
        }
    }

    /// Whether the request goes on now.
    fn carry_out(&mut self, world: &World, stream: &mut Stream, mut effect: RequestEffect) -> Action {
        loop {
            effect = match effect {
                RequestEffect::Forward(edits) => {
                    apply(&edits, &mut stream.headers);
                    return Action::Continue;
                }
                RequestEffect::Answer(answer) => {
                    self.answer(world, stream, &answer);
                    return Action::Pause;
                }
                RequestEffect::Settle(settlement) => {
                    self.wait_for(world, stream, settlement);
                    return Action::Pause;
                }
                RequestEffect::Verify(dispatch) => {
                    let (call, waiting) = dispatch.split();
                    match facilitator::send(world, self.index, self.vm, stream.visit, &call) {
                        Ok((CalloutToken(token), _)) => {
                            stream.token = Some(token);
                            let (gate, edits) = waiting.sent(CalloutToken(token));
                            stream.gate = gate;
                            let Some(edits) = edits else { return Action::Pause };
                            apply(&edits, &mut stream.headers);
                            return Action::Continue;
                        }
                        Err(()) => {
                            let (gate, effect) = self.with_env(world, stream.root, Some(stream.visit), |env| waiting.not_sent(env));
                            stream.gate = gate;
                            effect
                        }
                    }
                }
            }
        }
    }

    /// Answers in the backend's place.
    pub fn answer(&mut self, world: &World, stream: &mut Stream, answer: &Answer) {
        if stream.asking == Asking::Answered || !matches!(stream.answering, Answering::Nothing | Answering::Paused) {
            invariants::violated(
                "one answer for each request",
                format!("answered {} when it was {:?}, {:?}", answer.status, stream.asking, stream.answering),
            );
        }
        invariants::answered(world, stream.visit, answer);
        if stream.answering == Answering::Nothing {
            // Envoy shows local replies to the filters, and this must make no difference.
            let response = Response {
                status: answer.status,
                from_backend: false,
                ended: false,
                headers: &[],
            };
            let Stream { visit, gate, root, .. } = &mut *stream;
            // What is answered from a callout runs before the gate is put back.
            if matches!(gate, Gate::Answered)
                && !matches!(
                    self.with_env(world, *root, Some(*visit), |env| gate.on_response(&response, env)),
                    ResponseEffect::Pass
                )
            {
                invariants::violated("one answer for each request", "an answer of ours was not let out");
            }
        }
        stream.asking = Asking::Answered;
        stream.answering = Answering::Over;
        stream.ended = Some((End::Complete, Outcome::Answered(answer.status)));
    }

    pub fn wait_for(&mut self, world: &World, stream: &Stream, settlement: Box<Settlement>) {
        let patience = self.with_env(world, stream.root, Some(stream.visit), |env| settlement.patience_ms(env));
        let until = patience.map(|ms| world.now_ms() + u64::from(ms));
        self.root(stream.root).waiting.insert(stream.context);
        self.enqueue(world, stream, settlement, until);
    }

    fn enqueue(&mut self, world: &World, stream: &Stream, settlement: Box<Settlement>, until: Option<u64>) {
        invariants::settling(world, stream.visit);
        let job = Job {
            context: stream.context,
            visit: stream.visit,
            attempt: None,
            settlement,
            until,
        };
        self.root(stream.root).jobs.push_back(job);
        self.tick_at(world, stream.root, world.now_ms() + 1);
    }

    /// A reply to /verify.
    pub fn verified(&mut self, world: &World, mut stream: Stream, token: u32, reply: &Reply) {
        if reply.valid {
            invariants::vouched(world, stream.visit);
        }
        let Stream { visit, gate, root, .. } = &mut stream;
        match self.with_env(world, *root, Some(*visit), |env| {
            gate.on_verified(CalloutToken(token), &reply.read(), env)
        }) {
            None | Some(VerifiedEffect::Nothing) => {}
            Some(VerifiedEffect::Request(effect)) => {
                if self.carry_out(world, &mut stream, effect) == Action::Continue {
                    self.goes_on(world, &mut stream);
                }
            }
            Some(VerifiedEffect::Response(effect)) => {
                if self.carry_out_response(world, &mut stream, effect) == Action::Continue {
                    self.response_goes_on(world, &mut stream);
                }
            }
        }
        self.keep(world, stream);
    }

    /// A request that was paid for goes on with the gate that was left for it.
    pub fn paid(&mut self, world: &World, stream: &mut Stream) {
        self.goes_on(world, stream);
    }

    /// Takes up the gate of a request, or an answer, that was paid for while it was paused.
    pub fn take_up(&mut self, stream: &mut Stream) {
        if matches!(stream.gate, Gate::Paying | Gate::Settling)
            && let Some(gate) = self.root(stream.root).left.remove(&stream.context)
        {
            stream.gate = gate;
        }
    }
}
