//! The least that a WebAssembly filter can do: `noop` does nothing, `looking` fetches the request's headers and looks at the clock, `constant` answers 402 with bytes from its configuration, `observing` fetches
//! the request's headers, looks at the clock, counts, and sets two attributes for the access log before it does so, `calls` asks a cluster before the backend is asked, after it has answered, or both, looks at no answer, and changes nothing. `reading` fetches each part
//! of an answer's body.
//!
//! The configuration of `constant` is a google.protobuf.StringValue: lines `name: value`, an empty line, the body. `observing` has a line of
//! its own before. That of `calls` is `calls`,
//! the cluster, the paths (the second may be missing) and the body, a line each; those of `reading` and `looking` are these words.

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MetricType};
use std::rc::Rc;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
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
        let headers = self.answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
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
        match self.dispatch_http_call(&self.question.cluster, headers, Some(body), vec![], Duration::from_secs(5)) {
            Ok(_) => Action::Pause,
            Err(_) => Action::Continue,
        }
    }
}

impl Context for Calls {
    fn on_http_call_response(&mut self, _: u32, _: usize, _: usize, _: usize) {
        match self.answered {
            false => self.resume_http_request(),
            true => self.resume_http_response(),
        }
    }
}

impl HttpContext for Calls {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.ask(&self.question.before)
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.answered = true;
        match &self.question.after {
            Some(path) => self.ask(path),
            None => Action::Continue,
        }
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
            Some("calls") => {
                let mut next = || lines.next().unwrap_or_default();
                let (cluster, before, after, body) = (next(), next(), next(), next());
                let after = (!after.is_empty()).then_some(after);
                self.question = Some(Rc::new(Question { cluster, before, after, body }));
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

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(match (&self.answer, &self.question) {
            (Some(answer), _) => Box::new(Constant {
                answer: Rc::clone(answer),
                metric: self.metric,
            }),
            (None, Some(question)) => Box::new(Calls {
                question: Rc::clone(question),
                answered: false,
            }),
            (None, None) if self.reading => Box::new(Reading),
            (None, None) if self.looking => Box::new(Looking),
            (None, None) => Box::new(Noop),
        })
    }
}
