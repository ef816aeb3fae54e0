//! The answer of one stream, from its headers to its end.

use x402_envoy::gate::{BodyEffect, EndEffect, Gate, Next, Response, ResponseEffect, Unread};
use x402_envoy::pricing::End;

use super::super::agenda::Cut;
use super::super::backend::Step;
use super::super::client::Outcome;
use super::super::invariants;
use super::super::world::World;
use super::Worker;
use super::stream::{Action, Answering, Asking, Stream, apply};

impl Worker {
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
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        stream.headers = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
        if ended {
            stream.script.clear();
        }
        let response = Response {
            status,
            from_backend,
            ended,
            headers,
        };
        let fails = matches!(stream.gate, Gate::Prepaid(_)) && !(from_backend && (200..400).contains(&status));
        let change = fails
            .then(|| invariants::ending(world, stream.visit, false, End::BackendFailed))
            .flatten();
        let Stream { visit, gate, root, .. } = &mut *stream;
        let (effect, longest_ms) = self.with_env(world, *root, Some(*visit), |env| {
            let longest_ms = gate.longest_ms(env);
            (gate.on_response(&response, env), longest_ms)
        });
        invariants::ended(world, stream.visit, change);
        stream.longest_ms = longest_ms;
        if self.carry_out_response(world, stream, effect) == Action::Continue {
            self.response_goes_on(world, stream);
        } else if stream.answering == Answering::Nothing {
            stream.answering = Answering::Paused;
        }
    }

    /// Whether the answer goes on now.
    pub fn carry_out_response(&mut self, world: &World, stream: &mut Stream, effect: ResponseEffect) -> Action {
        if let Some(longest_ms) = stream.longest_ms.filter(|_| stream.gate.has_sold()) {
            let until = world.now_ms() + longest_ms;
            self.root(stream.root).limits.insert(stream.context, until);
            self.tick_at(world, stream.root, until + 1);
        }
        match effect {
            ResponseEffect::Pass => Action::Continue,
            ResponseEffect::Edit(edits) => {
                apply(&edits, &mut stream.headers);
                Action::Continue
            }
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
        invariants::headers_left(world, stream.visit, stream.status, stream.script.is_empty(), claim, &stream.headers);
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
        self.take_up(stream);
        if last {
            invariants::whole(world, stream.visit);
        }
        let next = if stream.gate.reads_response() {
            let Stream { visit, gate, root, .. } = &mut *stream;
            // As the host does, which asks for an environment only where the gate needs one.
            let passed = if last { Err(Unread) } else { gate.pass(bytes, || world.now_ms()) };
            let effect = match passed {
                Ok(bytes) => BodyEffect { bytes, next: Next::Go },
                Err(Unread) => self.with_env(world, *root, Some(*visit), |env| gate.on_response_body(bytes, last, env)),
            };
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
