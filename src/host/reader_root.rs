//! The reader: collects the bodies of requests whose price depends on them, and hands the facts to the gate behind it.
//!
//! Runs with `allow_on_headers_stop_iteration: true`, with which Continue from any callback releases the headers as well:
//! so it pauses in all of them until the body is complete, in the body callback or, after request trailers, in theirs.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};

use super::abi::{self, Buffer, Map};
use super::configured::{Configured, configuration};
use super::former::{self, Lineage};
use super::head::{BODY_PROPERTY, Head, Pairs, first};
use crate::config::Config;
use crate::gate::{carries_payment, pays_by_credit};
use crate::pricing::{Former, RequestFacts, Routes, Scheme};
use crate::reader::{self, BodyFacts};
use crate::x402::{Payment, decode};

/// The root context of the reader.
#[derive(Default)]
pub(super) struct ReaderRoot {
    plugin: Option<Rc<Plugin>>,
}

/// What the streams of one configuration share.
struct Plugin {
    config: Rc<Config>,
    lineage: Lineage,
    former: Option<Former>,
}

impl Plugin {
    fn new(configured: Configured) -> Self {
        let (lineage, former) = Lineage::begin("x402-reader", &configured);
        let config = configured.config;
        Self { config, lineage, former }
    }

    /// The routes of the configuration before, if their prices are still good.
    fn former(&self) -> Option<&Routes> {
        self.former.as_ref()?.at(former::now_ms())
    }
}

impl Context for ReaderRoot {}

impl RootContext for ReaderRoot {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.plugin = configuration().map(|config| Rc::new(Plugin::new(config)));
        self.plugin.is_some()
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        if let Some(plugin) = &self.plugin {
            plugin.lineage.is_used(&plugin.config);
        }
        Some(Box::new(ReaderStream {
            plugin: self.plugin.clone(),
            reading: Reading::Nothing,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// What the reader does with one stream.
enum Reading {
    /// The body matters to nobody, or has been read.
    Nothing,
    /// The body is being collected.
    Collecting(Head),
}

struct ReaderStream {
    plugin: Option<Rc<Plugin>>,
    reading: Reading,
}

impl ReaderStream {
    /// The body is complete: reads it, and lets everything go on to the gate.
    fn complete(&mut self) -> Action {
        let reading = std::mem::replace(&mut self.reading, Reading::Nothing);
        let (Reading::Collecting(head), Some(plugin)) = (reading, &self.plugin) else {
            return Action::Continue;
        };
        let routes = &plugin.config.routes;
        let body = abi::buffer(Buffer::RequestBody, usize::MAX);
        let headers = head.headers();
        let (content_type, content_encoding) = (every(&headers, b"content-type"), every(&headers, b"content-encoding"));
        let (content_type, content_encoding) = (content_type.as_deref(), content_encoding.as_deref());
        let request = RequestFacts {
            place: head.place(&headers),
            headers: &headers,
            body: None,
        };
        let former = plugin.former();
        let beside = former.map_or(0, |_| plugin.lineage.former());
        let by_credit = pays_by_credit(&plugin.config, &headers);
        let mut read = routes.read(former, &request, &body, content_type, content_encoding, by_credit);
        // Reading it takes as long as reading the body, and few bodies ask for it.
        let asks_payment = former.is_some() || (read.rewrite.include_usage && !by_credit);
        let payment = if asks_payment { decode(headers.iter().copied()) } else { Ok(None) };
        let payment = payment.ok().flatten();
        let amount = payment.as_ref().and_then(Payment::amount);
        let asked = RequestFacts {
            body: Some(&read.facts),
            ..request
        };
        if former.is_some() && !amount.is_some_and(|amount| routes.asks(&asked, amount)) {
            read.rewrite = read.former_rewrite;
        }
        // Only an answer that is metered has to tell its usage: what else is paid gets no event that was not asked for.
        read.rewrite.include_usage &= by_credit || payment.is_some_and(|payment| &*payment.scheme == Scheme::Upto.name());
        // What is let through without a payment (the backend's API keys, bypass) is the caller's and the backend's own affair.
        let changed = (by_credit || carries_payment(&headers)).then(|| read.rewritten(&body)).flatten();
        if let Some(changed) = changed {
            // The headers are still held, and their length is no longer the body's.
            let _ = abi::remove_header(Map::Request, "content-length");
            if abi::replace_buffer(Buffer::RequestBody, body.len(), &changed).is_err() {
                // Without facts the gate refuses the request: its quote would not bind the backend.
                return Action::Continue;
            }
        }
        hand_on(&read.facts, beside);
        Action::Continue
    }
}

/// All values of a request header, as one: which of two the backend would believe is not known.
fn every(headers: &Pairs<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.iter().filter(|(sent, _)| *sent == name).map(|(_, value)| *value).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

/// `beside`: the former configuration that was looked at as well. If this fails the gate finds no facts and refuses the request.
fn hand_on(facts: &BodyFacts, beside: u64) {
    let facts = [&beside.to_be_bytes()[..], &reader::encode(facts)].concat();
    let _ = abi::set_property(BODY_PROPERTY, &facts);
}

impl Context for ReaderStream {}

impl HttpContext for ReaderStream {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let Some(plugin) = &self.plugin else { return Action::Continue };
        // There is no body, which the gate sees as well.
        if end_of_stream {
            return Action::Continue;
        }
        let routes = [Some(&plugin.config.routes), plugin.former()];
        if !routes.iter().flatten().any(|routes| routes.use_body()) {
            return Action::Continue;
        }
        let head = Head::read(&plugin.config);
        let headers = head.headers();
        let place = head.place(&headers);
        if !routes.iter().flatten().any(|routes| routes.needs_body(&place, &headers)) {
            return Action::Continue;
        }
        // An upgraded request has no end: the gate, which finds nothing, refuses it where it is not free whatever its body says.
        if first(&headers, b"upgrade").or(first(&headers, b":protocol")).is_some() {
            return Action::Continue;
        }
        self.reading = Reading::Collecting(head);
        Action::Pause
    }

    fn on_http_request_body(&mut self, _body_size: usize, end_of_stream: bool) -> Action {
        match self.reading {
            Reading::Nothing => Action::Continue,
            Reading::Collecting(_) if end_of_stream => self.complete(),
            Reading::Collecting(_) => Action::Pause,
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        self.complete()
    }
}
