//! One stream through the gate.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::abi::{self, Buffer, Map, Stream};
use super::callout::{Arrived, FROM_UPSTREAM};
use super::calls::NotSent;
use super::ending;
use super::former;
use super::head::{BODY_PROPERTY, Head, first};
use super::worker::{self, Job, Worker};
use crate::breaker::Class;
use crate::gate::{
    self, BodyEffect, CalloutToken, Edits, EndEffect, FORWARDED_HEADER, Gate, Next, Owed, Request, RequestEffect, Response, ResponseEffect,
    Settlement, Unread, VerifiedEffect,
};
use crate::pricing::{End, Located};
use crate::reader::{self, BodyFacts};

/// What Envoy says of an answer that the backend gave, where it does not put [`FROM_UPSTREAM`] in it (`suppress_envoy_headers`).
const FROM_BACKEND: &[u8] = b"via_upstream";

/// One stream: its gate, and nothing that decides.
pub(super) struct GateStream {
    context: u32,
    pub(super) worker: Rc<Worker>,
    gate: Gate,
    /// This very stream, for the root context, which hears of its calls.
    me: Weak<RefCell<Self>>,
    /// How long the answer may take, if its price ends there.
    longest_ms: Option<u64>,
    /// Whether the last of the answer has come.
    complete: bool,
}

impl GateStream {
    pub(super) fn new(context: u32, worker: Rc<Worker>, me: Weak<RefCell<Self>>) -> Self {
        Self {
            context,
            worker,
            gate: Gate::Done,
            me,
            longest_ms: None,
            complete: false,
        }
    }

    /// Whether the request goes on now.
    fn carry_out(&mut self, mut effect: RequestEffect) -> Action {
        let mut soonest = None;
        // Ends: each call that cannot be sent leads to the next facilitator, and there are finitely many.
        loop {
            effect = match effect {
                RequestEffect::Forward(edits) => {
                    worker::apply(Map::Request, &edits);
                    return Action::Continue;
                }
                RequestEffect::Answer(mut answer) => {
                    if let Some(seconds) = soonest {
                        Rc::make_mut(&mut answer).retry_after(seconds);
                    }
                    worker::answer(&answer);
                    return Action::Pause;
                }
                RequestEffect::Settle(settlement) => {
                    self.settle(settlement);
                    return Action::Pause;
                }
                RequestEffect::Verify(dispatch) => {
                    let (call, waiting) = dispatch.split();
                    match self.worker.send(&call, Some(Class::Verify), Some((self.context, self.me.clone()))) {
                        Ok(token) => {
                            let (gate, edits) = waiting.sent(token);
                            self.gate = gate;
                            let Some(edits) = edits else { return Action::Pause };
                            let _ = abi::set_effective_context(self.context);
                            worker::apply(Map::Request, &edits);
                            return Action::Continue;
                        }
                        Err(NotSent(seconds)) => {
                            soonest = soonest.into_iter().chain(seconds).min();
                            let (gate, effect) = self.worker.with_env(|env| waiting.not_sent(env));
                            self.gate = gate;
                            effect
                        }
                    }
                }
            }
        }
    }
}

impl GateStream {
    /// Sends a settlement that this stream waits for. It is the root context's from then on.
    fn settle(&self, settlement: Box<Settlement>) {
        let patience_ms = self.worker.with_env(|env| settlement.patience_ms(env));
        let until = patience_ms.map(|ms| self.worker.now().saturating_add(u64::from(ms).saturating_mul(1_000_000)));
        let me = Some((self.context, self.me.clone()));
        let sent = self.worker.send(settlement.call(), Some(settlement.class()), me);
        let job = Job {
            context: self.context,
            settlement,
            until,
        };
        self.worker.awaits(job, sent);
    }

    /// Whether the answer goes on now.
    fn carry_out_response(&mut self, effect: ResponseEffect) -> Action {
        if let Some(longest_ms) = self.longest_ms.filter(|_| self.gate.has_sold()) {
            let until = self.worker.now().saturating_add(longest_ms.saturating_mul(1_000_000));
            self.worker.limit(self.context, until);
        }
        match effect {
            ResponseEffect::Pass => Action::Continue,
            ResponseEffect::Edit(edits) => {
                worker::apply(Map::Response, &edits);
                Action::Continue
            }
            ResponseEffect::Answer(answer) => {
                worker::answer(&answer);
                Action::Pause
            }
            ResponseEffect::Settle(settlement) => {
                self.settle(settlement);
                Action::Pause
            }
            ResponseEffect::Wait => Action::Pause,
        }
    }

    /// Takes up the gate of a request, or an answer, that was paid for while it was paused.
    fn take_up(&mut self) {
        if matches!(self.gate, Gate::Paying | Gate::Settling)
            && let Some(gate) = self.worker.take_up(self.context)
        {
            self.gate = gate;
        }
    }

    /// The last of the answer goes to Envoy now. What has been paid for is delivered with it, before the client can have it and come again.
    fn completed(&mut self) {
        self.complete = true;
        if let Gate::Delivering(_) = self.gate {
            let gate = &mut self.gate;
            let _ = self.worker.with_env(|env| gate.on_end(End::Complete, env));
        }
    }

    /// What comes after a part of a metered answer.
    fn carry_on(&self, next: Next) -> Action {
        match next {
            Next::Go => Action::Continue,
            Next::Settle(settlement) => {
                ending::make_room(settlement.receipt_name());
                self.settle(settlement);
                Action::Pause
            }
            Next::End(EndEffect::Finish(words)) => {
                if let Some(words) = words {
                    ending::tell(&words);
                }
                Action::Continue
            }
            Next::End(EndEffect::Break) => {
                let _ = abi::reset(Stream::Response);
                Action::Pause
            }
        }
    }

    /// Whether the answer waits for its settlement. Where the request does, the answer is Envoy's own: nothing would let it go on.
    fn held(&self) -> Action {
        let waits = matches!(self.gate, Gate::Settling) && self.worker.waits(self.context);
        if waits || self.gate.holds_response() {
            Action::Pause
        } else {
            Action::Continue
        }
    }
}

/// Takes what the reader has handed on apart: the former configuration that it had in mind, and what is in the body.
fn read(handed_on: Option<Vec<u8>>) -> (Option<u64>, Option<BodyFacts>) {
    let handed_on = handed_on.as_deref().and_then(<[u8]>::split_first_chunk);
    match handed_on.and_then(|(beside, facts)| Some((*beside, reader::decode(facts)?))) {
        Some((beside, facts)) => (Some(u64::from_be_bytes(beside)), Some(facts)),
        None => (None, None),
    }
}

/// What broke an answer off, by Envoy's word.
fn how_it_ended() -> End {
    let details = abi::property(&["response", "code_details"]).unwrap_or_default();
    let begins = |signs: &[&str]| signs.iter().any(|sign| details.starts_with(sign.as_bytes()));
    if begins(&["upstream", "response_timeout"]) {
        End::BackendFailed
    } else if begins(&["stream_idle_timeout", "max_duration_timeout", "downstream_local_disconnect"]) {
        End::Interrupted
    } else {
        End::ClientGone
    }
}

impl Drop for GateStream {
    fn drop(&mut self) {
        self.worker.ended(self.context);
    }
}

impl GateStream {
    /// The facilitator answered /verify, or the call failed. Called by the root context, which is to act as itself again afterwards.
    pub(super) fn verified(&mut self, token: CalloutToken, arrived: &Arrived) {
        #[cfg(feature = "panic-switch")]
        super::panic_switch::reached(super::panic_switch::Moment::Verify, self.context);
        // Asked in this order: see `Worker::waiting`. The gate of a stream that has ended waits for nothing.
        if !matches!(self.gate, Gate::Verifying(_) | Gate::Reserving(_)) || abi::set_effective_context(self.context).is_err() {
            return;
        }
        let gate = &mut self.gate;
        let effect = self.worker.with_env(|env| gate.on_verified(token, &arrived.reply(), env));
        match effect {
            None | Some(VerifiedEffect::Nothing) => {}
            Some(VerifiedEffect::Request(effect)) => {
                if self.carry_out(effect) == Action::Continue {
                    let _ = abi::resume(Stream::Request);
                }
            }
            Some(VerifiedEffect::Response(effect)) => {
                if self.carry_out_response(effect) == Action::Continue {
                    let _ = abi::resume(Stream::Response);
                }
            }
        }
    }
}

impl Context for GateStream {}

impl HttpContext for GateStream {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "panic-switch")]
        super::panic_switch::ask(self.context);
        let head = Head::read(&self.worker.config);
        let headers = head.headers();
        let place = head.place(&headers);
        let routes = &self.worker.config.routes;
        let located = routes.locate(&place);
        let passes = matches!(located, Located::Preflight) || (matches!(located, Located::Nowhere) && routes.passes_unmatched());
        if passes && first(&headers, FORWARDED_HEADER.as_bytes()).is_none() {
            worker::apply(Map::Request, &Edits::default().distrust(&headers));
            return Action::Continue;
        }
        let (beside, body) = if end_of_stream {
            (None, Some(BodyFacts::None))
        } else {
            read(abi::property(&[BODY_PROPERTY]))
        };
        let request = Request {
            place,
            scheme: first(&headers, b":scheme").unwrap_or_default(),
            headers: &headers,
            body: body.as_ref(),
            ended: end_of_stream,
        };
        let (gate, effect) = self.worker.with_env(|env| {
            // The limits in the body are those of other prices.
            if beside.is_some_and(|beside| beside != self.worker.former_fingerprint()) {
                env.former = None;
            }
            gate::open_at(&request, located, env)
        });
        self.gate = gate;
        self.carry_out(effect)
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        #[cfg(feature = "panic-switch")]
        super::panic_switch::reached(super::panic_switch::Moment::Response, self.context);
        self.take_up();
        self.complete |= end_of_stream;
        if matches!(self.gate, Gate::Done | Gate::Answered | Gate::Passing | Gate::Settling) {
            return Action::Continue;
        }
        let headers = abi::header_bytes(Map::Response);
        let headers = abi::pairs(&headers);
        let response = Response {
            status: first(&headers, b":status")
                .and_then(|status| std::str::from_utf8(status).ok()?.parse().ok())
                .unwrap_or(0),
            from_backend: first(&headers, FROM_UPSTREAM.as_bytes()).is_some()
                || abi::property(&["response", "code_details"]).as_deref() == Some(FROM_BACKEND),
            ended: end_of_stream,
            headers: &headers,
        };
        let gate = &mut self.gate;
        let (effect, longest_ms) = self.worker.with_env(|env| {
            let longest_ms = gate.longest_ms(env);
            (gate.on_response(&response, env), longest_ms)
        });
        self.longest_ms = longest_ms;
        self.carry_out_response(effect)
    }

    fn on_http_request_body(&mut self, _body_size: usize, _end_of_stream: bool) -> Action {
        self.take_up();
        if self.gate.lets_request_on() {
            Action::Continue
        } else {
            Action::Pause
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let trailers = abi::header_bytes(Map::RequestTrailers);
        worker::apply(Map::RequestTrailers, &Edits::default().distrust(&abi::pairs(&trailers)));
        self.on_http_request_body(0, true)
    }

    // Not called while the headers are held, unless the plugin is configured as only the reader's may be.
    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.take_up();
        if end_of_stream {
            self.completed();
        }
        if !self.gate.reads_response() {
            return self.held();
        }
        // The end often comes alone, and what is not there need not be fetched.
        let bytes = if body_size == 0 {
            Vec::new()
        } else {
            abi::buffer(Buffer::ResponseBody, body_size)
        };
        let gate = &mut self.gate;
        let passed = if end_of_stream {
            Err(Unread)
        } else {
            gate.pass(&bytes, former::now_ms)
        };
        let effect = match passed {
            Ok(bytes) => BodyEffect { bytes, next: Next::Go },
            Err(Unread) => self.worker.with_env(|env| gate.on_response_body(&bytes, end_of_stream, env)),
        };
        if let Some(changed) = &effect.bytes {
            let _ = abi::replace_buffer(Buffer::ResponseBody, bytes.len(), changed);
        }
        self.carry_on(effect.next)
    }

    fn on_http_response_trailers(&mut self, _num_trailers: usize) -> Action {
        self.take_up();
        if !matches!(self.gate, Gate::Done) {
            let trailers = abi::header_bytes(Map::ResponseTrailers);
            worker::apply(Map::ResponseTrailers, &self.gate.on_response_trailers(&abi::pairs(&trailers)));
        }
        self.completed();
        if !self.gate.reads_response() {
            return self.held();
        }
        let gate = &mut self.gate;
        // Whatever the meter held back is lost: the body is gone. It holds nothing back at the end of an event.
        let effect = self.worker.with_env(|env| gate.on_response_body(b"", true, env));
        self.carry_on(effect.next)
    }

    fn on_log(&mut self) {
        self.take_up();
        let time_is_up = self.worker.ended(self.context);
        let gate = &mut self.gate;
        if !gate.minds_its_end() {
            return;
        }
        let end = match (gate.reads_response(), time_is_up) {
            (true, true) => End::Interrupted,
            // Whatever is priced by time was delivered in full when its time is up.
            (false, true) => End::Complete,
            (false, false) if self.complete => End::Complete,
            _ => how_it_ended(),
        };
        match self.worker.with_env(|env| gate.on_end(end, env)) {
            Some(Owed::Settlement(settlement)) => self.worker.enqueue_alone(self.context, settlement),
            Some(Owed::Capture(capture)) => self.worker.tell_ledger([capture]),
            None => {}
        }
    }
}
