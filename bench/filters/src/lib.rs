//! The least that a WebAssembly filter can do: `noop` does nothing, `looking` fetches the request's headers and looks at the clock,
//! `constant` answers 402 with bytes from its configuration, `observing` fetches the request's headers, looks at the clock, counts, and sets
//! two attributes for the access log before it does so, `calls` asks a cluster before the backend is asked, after it has answered, or both,
//! looks at no answer, and changes nothing, and `same calls` makes all the other calls of Envoy too that a paid request makes. `reading`
//! fetches each part of an answer's body.
//!
//! The configuration of `constant` is a google.protobuf.StringValue: lines `name: value`, an empty line, the body. `observing` has a line of
//! its own before. Those of `calls` and `same calls` are these words, the cluster, the paths (the second may be missing) and the body, a line
//! each; those of `reading` and `looking` are these words.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MapType, MetricType};
use std::rc::Rc;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|id| Box::new(Root { id, ..Root::default() }));
}}

struct Noop;

impl Context for Noop {}
impl HttpContext for Noop {}

/// What `constant` answers.
#[derive(Default)]
struct Answer {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Constant {
    answer: Rc<Answer>,
    /// The metric that it counts in, if it observes.
    metric: Option<u32>,
}

impl Context for Constant {}
impl HttpContext for Constant {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(metric) = self.metric {
            std::hint::black_box(self.get_http_request_headers_bytes());
            std::hint::black_box(self.get_current_time());
            let _ = hostcalls::increment_metric(metric, 1);
            self.set_property(vec!["x402_route"], Some(b"report"));
            self.set_property(vec!["x402_outcome"], Some(b"challenged"));
        }
        let headers = self
            .answer
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.send_http_response(402, headers, Some(&self.answer.body));
        Action::Pause
    }
}

/// What `calls` asks.
struct Question {
    cluster: String,
    before: String,
    after: Option<String>,
    body: String,
}

struct Calls {
    question: Rc<Question>,
    answered: bool,
    /// Where it counts, if it makes all the calls of Envoy that a paid request makes.
    others: Option<Others>,
    /// Its own number.
    id: u32,
}

/// What the other calls need.
#[derive(Clone, Copy)]
struct Others {
    counter: u32,
    histogram: u32,
    root: u32,
}

impl Calls {
    fn ask(&self, path: &str) -> Action {
        let headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "calls.test"),
            (":path", path),
            ("content-type", "application/json"),
        ];
        let body = self.question.body.as_bytes();
        if let Some(others) = self.others {
            std::hint::black_box(self.get_current_time());
            // The calls of the real one are its root context's.
            let _ = hostcalls::set_effective_context(others.root);
        }
        match self.dispatch_http_call(&self.question.cluster, headers, Some(body), vec![], Duration::from_secs(5)) {
            Ok(_) => Action::Pause,
            Err(_) => Action::Continue,
        }
    }
}

impl Context for Calls {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        if let Some(others) = self.others {
            self.hear(size, others);
        }
        match self.answered {
            false => self.resume_http_request(),
            true => self.resume_http_response(),
        }
    }
}

/// The other calls of Envoy that a paid request makes, in the callbacks in which it makes them, by what as many bytes as there.
impl Calls {
    fn open(&self, others: Others) {
        std::hint::black_box(self.get_http_request_headers_bytes());
        self.claim();
        let _ = hostcalls::increment_metric(others.counter, 1);
        self.set_property(vec!["x402_route"], Some(b"report"));
    }

    fn claim(&self) {
        let key = "x402.bench.claims.";
        let (_, version) = self.get_shared_data(key);
        let _ = self.set_shared_data(key, Some(&[7; 22]), version);
    }

    fn hear(&self, size: usize, others: Others) {
        std::hint::black_box(hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status")).ok();
        std::hint::black_box(self.get_http_call_response_body(0, size));
        std::hint::black_box(self.get_current_time());
        let _ = hostcalls::record_metric(others.histogram, 1);
        let _ = hostcalls::set_effective_context(self.id);
        let _ = hostcalls::increment_metric(others.counter, 1);
        const ACCOUNT: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        if self.answered {
            let _ = hostcalls::increment_metric(others.counter, 10_000);
            for (name, size) in [("x402_outcome", 4), ("x402_charged", 5), ("x402_transaction", 66)] {
                self.set_property(vec![name], Some(&[b'7'; 66][..size]));
            }
            self.set_http_response_header("cache-control", Some("private"));
            self.set_http_response_header("payment-response", Some(&"7".repeat(260)));
            self.add_http_response_header("vary", "payment-signature, x-payment");
        } else {
            for (name, value) in [
                ("x402_payer", ACCOUNT),
                ("x402_network", "eip155:31337"),
                ("x402_asset", "USDC"),
                ("x402_amount", "10000"),
            ] {
                self.set_property(vec![name], Some(value.as_bytes()));
            }
            self.set_http_request_header("payment-signature", None);
            for (name, value) in [
                ("x-x402-payer", ACCOUNT),
                ("x-x402-network", "eip155:31337"),
                ("x-x402-asset", ACCOUNT),
                ("x-x402-amount", "10000"),
                ("x-x402-charge", "10000"),
                ("x-x402-payment-id", "77777777777777777777777777777777"),
            ] {
                self.set_http_request_header(name, Some(value));
            }
        }
    }
}

impl HttpContext for Calls {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(others) = self.others {
            self.open(others);
        }
        self.ask(&self.question.before)
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.answered = true;
        if self.others.is_some() {
            std::hint::black_box(self.get_http_response_headers_bytes());
            self.set_property(vec!["x402_outcome"], Some(b"settling"));
        }
        match &self.question.after {
            Some(path) => self.ask(path),
            None => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        if self.others.is_some() {
            std::hint::black_box(self.get_current_time());
            self.claim();
        }
        Action::Continue
    }
}

struct Looking;

impl Context for Looking {}
impl HttpContext for Looking {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        std::hint::black_box(self.get_http_request_headers_bytes());
        std::hint::black_box(self.get_current_time());
        Action::Continue
    }
}

struct Reading;

impl Context for Reading {}
impl HttpContext for Reading {
    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        std::hint::black_box(self.get_http_response_body(0, size));
        Action::Continue
    }
}

/// One root for all: without a configuration its streams do nothing.
#[derive(Default)]
struct Root {
    id: u32,
    others: Option<Others>,
    answer: Option<Rc<Answer>>,
    metric: Option<u32>,
    question: Option<Rc<Question>>,
    reading: bool,
    looking: bool,
}

impl Context for Root {}
impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines().map(str::to_owned);
        match lines.next().as_deref() {
            Some("reading") => self.reading = true,
            Some("looking") => self.looking = true,
            Some("observing") => self.metric = hostcalls::define_metric(MetricType::Counter, "x402_bench").ok(),
            Some(word @ ("calls" | "same calls")) => {
                let define = |kind, name| hostcalls::define_metric(kind, name).ok();
                let others = || {
                    Some(Others {
                        counter: define(MetricType::Counter, "x402_bench")?,
                        histogram: define(MetricType::Histogram, "x402_bench_ms")?,
                        root: self.id,
                    })
                };
                self.others = if word == "same calls" { others() } else { None };
                let mut next = || lines.next().unwrap_or_default();
                let (cluster, before, after, body) = (next(), next(), next(), next());
                let after = (!after.is_empty()).then_some(after);
                self.question = Some(Rc::new(Question {
                    cluster,
                    before,
                    after,
                    body,
                }));
                return true;
            }
            _ => {}
        }
        let text = text.strip_prefix("observing\n").unwrap_or(&text);
        if let Some((head, body)) = text.split_once("\n\n") {
            let pairs = head.lines().filter_map(|line| line.split_once(": "));
            self.answer = Some(Rc::new(Answer {
                headers: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                body: body.as_bytes().to_vec(),
            }));
        }
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(match (&self.answer, &self.question) {
            (Some(answer), _) => Box::new(Constant {
                answer: Rc::clone(answer),
                metric: self.metric,
            }),
            (None, Some(question)) => Box::new(Calls {
                question: Rc::clone(question),
                answered: false,
                others: self.others,
                id,
            }),
            (None, None) if self.reading => Box::new(Reading),
            (None, None) if self.looking => Box::new(Looking),
            (None, None) => Box::new(Noop),
        })
    }
}
