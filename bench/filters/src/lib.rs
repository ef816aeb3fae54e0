//! The least that a WebAssembly filter can do: `noop` does nothing, `constant` answers 402 with bytes from its configuration.
//!
//! The configuration of `constant` is a google.protobuf.StringValue: lines `name: value`, an empty line, the body.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::rc::Rc;

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

struct Constant(Rc<Answer>);

impl Context for Constant {}
impl HttpContext for Constant {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let headers = self.0.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.send_http_response(402, headers, Some(&self.0.body));
        Action::Pause
    }
}

/// One root for both: without a configuration its streams do nothing.
#[derive(Default)]
struct Root {
    answer: Option<Rc<Answer>>,
}

impl Context for Root {}
impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
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
        Some(match &self.answer {
            Some(answer) => Box::new(Constant(Rc::clone(answer))),
            None => Box::new(Noop),
        })
    }
}
