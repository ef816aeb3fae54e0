//! One stream through Envoy: `src/host/gate_stream.rs`, and what Envoy itself does with a stream that is paused.

use std::collections::VecDeque;

use x402_envoy::gate::{
    CalloutToken, EndEffect, Gate, Next, Request, RequestEffect, Response, ResponseEffect, Settlement, VerifiedEffect, open,
};
use x402_envoy::pricing::End;
use x402_envoy::x402::Answer;

use super::super::agenda::{Cut, Event};
use super::super::backend::{Step, mishap, script};
use super::super::client::{self, Errand, Outcome};
use super::super::facilitator::{self, Reply};
use super::super::invariants;
use super::super::shop::{ROUTES, Route, place};
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

/// Whether a filter lets something go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
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
    context: u32,
    script: VecDeque<Step>,
    longest_ms: Option<u64>,
    /// The answer's status, and whether it is the backend's.
    status: (u16, bool),
    /// How it has ended, if it has.
    ended: Option<(End, Outcome)>,
}

impl Stream {
    pub fn context(&self) -> u32 {
        self.context
    }

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
    /// The challenge of a route.
    pub fn challenge(&mut self, world: &World, route: &Route) -> Answer {
        let request = Request {
            place: place(route),
            scheme: b"https",
            headers: &[],
            body: route.tokens.then_some(&world.shop.chat),
        };
        match self.with_env(world, None, |env| open(&request, env)).1 {
            RequestEffect::Answer(answer) => answer,
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
        let visit = world.visit(errand);
        let (context, root) = (self.new_context(), self.newest());
        let route = &ROUTES[errand.route];
        let payment = errand.payment.map(|payment| {
            let crowd = world.crowd.borrow();
            let payment = &crowd.payments[payment];
            (payment.header, payment.value.clone())
        });
        let mut headers: Vec<(&[u8], &[u8])> = vec![(b"x-x402-payer", b"forged")];
        headers.extend(payment.iter().map(|(name, value)| (name.as_bytes(), &**value)));
        let request = Request {
            place: place(route),
            scheme: b"https",
            headers: &headers,
            body: route.tokens.then_some(&world.shop.chat),
        };
        let (gate, effect) = self.with_env(world, Some(visit), |env| open(&request, env));
        let mut stream = Stream {
            visit,
            root,
            gate,
            asking: Asking::Fresh,
            answering: Answering::Nothing,
            token: None,
            context,
            script: VecDeque::new(),
            longest_ms: None,
            status: (0, false),
            ended: None,
        };
        client::begun(world, self.index, self.vm, context);
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
            let end = if reads && time_is_up { End::Interrupted } else { end };
            let Stream { visit, gate, .. } = &mut stream;
            let settlement = self.with_env(world, Some(*visit), |env| gate.on_end(end, env));
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
        invariants::forwarded(world, stream.visit);
        stream.script = script(world, stream.visit);
        let (worker, vm, context) = (self.index, self.vm, stream.context);
        if let Some((after_ms, how)) = mishap(world) {
            world.plan(world.now_ms() + after_ms, Event::Cut { worker, vm, context, how });
        }
        self.next_step(world, stream);
    }

    fn next_step(&self, world: &World, stream: &Stream) {
        if let Some(step) = stream.script.front() {
            let (worker, vm, context) = (self.index, self.vm, stream.context);
            world.plan(world.now_ms() + step.after_ms(), Event::Backend { worker, vm, context });
        }
    }

    /// Whether the request goes on now.
    fn carry_out(&mut self, world: &World, stream: &mut Stream, mut effect: RequestEffect) -> Action {
        loop {
            effect = match effect {
                RequestEffect::Forward(_) => return Action::Continue,
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
                            return if edits.is_some() { Action::Continue } else { Action::Pause };
                        }
                        Err(()) => {
                            let (gate, effect) = self.with_env(world, Some(stream.visit), |env| waiting.not_sent(env));
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
            let Stream { visit, gate, .. } = &mut *stream;
            // What is answered from a callout runs before the gate is put back.
            if matches!(gate, Gate::Answered)
                && !matches!(
                    self.with_env(world, Some(*visit), |env| gate.on_response(&response, env)),
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

    fn wait_for(&mut self, world: &World, stream: &Stream, settlement: Box<Settlement>) {
        let patience = self.with_env(world, Some(stream.visit), |env| settlement.patience_ms(env));
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
        let Stream { visit, gate, .. } = &mut stream;
        match self.with_env(world, Some(*visit), |env| gate.on_verified(CalloutToken(token), &reply.read(), env)) {
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

    /// The next thing that the backend does.
    pub fn backend(&mut self, world: &World, mut stream: Stream) {
        // Headers that are paused hold back all that follows them.
        if matches!(stream.answering, Answering::Nothing | Answering::On)
            && stream.asking == Asking::On
            && let Some(step) = stream.script.pop_front()
        {
            world.say(|| format!("  visit {}: the backend: {step:?}", stream.visit));
            match step {
                Step::Headers(head) => self.response(world, &mut stream, head.status, head.from_backend, head.ended, &head.headers),
                Step::Part(_, bytes) => self.body(world, &mut stream, &bytes, false),
                Step::End(_, bytes) => self.body(world, &mut stream, &bytes, true),
                Step::Trailers(_) => self.body(world, &mut stream, b"", true),
                Step::Reset(_) => self.fails(world, &mut stream),
            }
        }
        self.keep(world, stream);
    }

    /// The backend is gone.
    fn fails(&mut self, world: &World, stream: &mut Stream) {
        world.count("backend: reset");
        match stream.answering {
            Answering::Nothing if stream.asking == Asking::On => self.response(world, stream, 503, false, true, &[]),
            _ => stream.ended = Some((End::BackendFailed, Outcome::CutOff)),
        }
    }

    /// A stream is cut off.
    pub fn cut(&mut self, world: &World, mut stream: Stream, how: Cut) {
        world.say(|| {
            format!(
                "  visit {}: cut by {how:?} when it is {:?}, {:?}",
                stream.visit, stream.asking, stream.answering
            )
        });
        match how {
            Cut::Client => {
                world.count(gone(&stream));
                stream.ended = Some((End::ClientGone, Outcome::CutOff));
            }
            Cut::Backend => {
                if stream.asking == Asking::On {
                    self.fails(world, &mut stream);
                }
            }
            // Envoy's timeout, while the answer has not left: it answers itself.
            Cut::Timeout => match stream.answering {
                Answering::Nothing => self.response(world, &mut stream, 504, false, true, &[]),
                Answering::Paused => stream.ended = Some((End::BackendFailed, Outcome::Complete(504))),
                Answering::On | Answering::EndPaused | Answering::Over => {}
            },
        }
        self.keep(world, stream);
    }

    fn response(&mut self, world: &World, stream: &mut Stream, status: u16, from_backend: bool, ended: bool, headers: &[(&[u8], &[u8])]) {
        self.take_up(stream);
        invariants::backend_answered(world, stream.visit, status, from_backend);
        stream.status = (status, from_backend);
        if ended {
            stream.script.clear();
        }
        let response = Response {
            status,
            from_backend,
            ended,
            headers,
        };
        let Stream { visit, gate, .. } = &mut *stream;
        let (effect, longest_ms) = self.with_env(world, Some(*visit), |env| {
            let longest_ms = gate.longest_ms(env);
            (gate.on_response(&response, env), longest_ms)
        });
        stream.longest_ms = longest_ms;
        if self.carry_out_response(world, stream, effect) == Action::Continue {
            self.response_goes_on(world, stream);
        } else if stream.answering == Answering::Nothing {
            stream.answering = Answering::Paused;
        }
    }

    /// Whether the answer goes on now.
    fn carry_out_response(&mut self, world: &World, stream: &mut Stream, effect: ResponseEffect) -> Action {
        if let Some(longest_ms) = stream.longest_ms.filter(|_| stream.gate.has_sold()) {
            let until = world.now_ms() + longest_ms;
            self.root(stream.root).limits.insert(stream.context, until);
            self.tick_at(world, stream.root, until + 1);
        }
        match effect {
            ResponseEffect::Pass | ResponseEffect::Edit(_) => Action::Continue,
            ResponseEffect::Answer(answer) => {
                self.answer(world, stream, &answer);
                Action::Pause
            }
            ResponseEffect::Settle(settlement) => {
                self.wait_for(world, stream, settlement);
                Action::Pause
            }
            ResponseEffect::Wait => Action::Pause,
        }
    }

    /// The answer's headers leave.
    pub fn response_goes_on(&mut self, world: &World, stream: &mut Stream) {
        if !matches!(stream.answering, Answering::Nothing | Answering::Paused) || stream.asking != Asking::On {
            invariants::violated(
                "one resume for each pause",
                format!("an answer was let go on when it was {:?}, {:?}", stream.asking, stream.answering),
            );
        }
        stream.answering = Answering::On;
        let claim = world.claim_state(stream.visit);
        invariants::headers_left(world, stream.visit, stream.status, stream.script.is_empty(), claim);
        if stream.script.is_empty() {
            self.completes(stream);
        } else {
            self.next_step(world, stream);
        }
    }

    fn completes(&self, stream: &mut Stream) {
        stream.answering = Answering::Over;
        stream.ended = Some((End::Complete, Outcome::Complete(stream.status.0)));
    }

    /// A part of the answer's body.
    fn body(&mut self, world: &World, stream: &mut Stream, bytes: &[u8], last: bool) {
        if last {
            invariants::whole(world, stream.visit);
        }
        let next = if stream.gate.reads_response() {
            let Stream { visit, gate, .. } = &mut *stream;
            let effect = self.with_env(world, Some(*visit), |env| gate.on_response_body(bytes, last, env));
            world.delivered(stream.visit, effect.bytes.as_deref().unwrap_or(bytes));
            effect.next
        } else {
            world.delivered(stream.visit, bytes);
            Next::Go
        };
        match next {
            Next::Go if last => self.completes(stream),
            Next::Go => self.next_step(world, stream),
            Next::Settle(settlement) => {
                stream.answering = Answering::EndPaused;
                self.wait_for(world, stream, settlement);
            }
            Next::End(end) => {
                invariants::left(world, stream.visit, End::Complete, false, true);
                self.ends(world, stream, &end);
            }
        }
    }

    /// The end of a metered answer leaves, or the answer is broken off.
    pub fn ends(&mut self, world: &World, stream: &mut Stream, end: &EndEffect) {
        match end {
            EndEffect::Finish(words) => {
                world.count(if words.is_some() {
                    "metered: receipt"
                } else {
                    "metered: no receipt"
                });
                self.completes(stream);
            }
            EndEffect::Break => {
                world.count("metered: broken off");
                stream.ended = Some((End::Interrupted, Outcome::CutOff));
            }
        }
    }

    /// An answer whose time is up.
    pub fn reset(&mut self, world: &World, mut stream: Stream) {
        world.count("metered: time is up");
        stream.ended = Some((End::Interrupted, Outcome::CutOff));
        self.keep(world, stream);
    }

    /// A request that was paid for goes on with the gate that was left for it.
    pub fn paid(&mut self, world: &World, stream: &mut Stream) {
        self.goes_on(world, stream);
    }

    /// Takes up the gate of a request that was paid for while it was paused.
    fn take_up(&mut self, stream: &mut Stream) {
        if matches!(stream.gate, Gate::Paying)
            && let Some(gate) = self.root(stream.root).left.remove(&stream.context)
        {
            stream.gate = gate;
        }
    }
}

/// In which state a client has left.
fn gone(stream: &Stream) -> &'static str {
    match (stream.asking, stream.answering, &stream.gate) {
        (Asking::Paused, _, Gate::Verifying(_)) => "client: left while verifying",
        (Asking::Paused, ..) => "client: left while settling up front",
        (_, Answering::Nothing, _) => "client: left before the answer",
        (_, Answering::Paused, Gate::Verifying(_)) => "client: left while an answer waits for the verdict",
        (_, Answering::Paused, _) => "client: left while settling",
        (_, Answering::EndPaused, _) => "client: left while waiting for a receipt",
        _ => "client: left in mid-answer",
    }
}
