//! The parts inside Envoy: a request with `x-part` and `x-times` runs one, and is answered with the nanoseconds that took.

use crate::Parts;
use crate::replay::{Cas, Conflict, SharedStore};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// Envoy's shared data, as the filter uses it.
struct SharedData;

impl SharedStore for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        match hostcalls::get_shared_data(key) {
            Ok((Some(value), cas)) => Some((value, cas.unwrap_or_default())),
            _ => None,
        }
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        let version = match cas {
            Cas::Absent => u32::MAX,
            Cas::Version(version) => version,
        };
        hostcalls::set_shared_data(key, Some(value), Some(version)).map_err(|_| Conflict)
    }
}

#[derive(Default)]
struct Root {
    parts: Rc<RefCell<Option<Parts>>>,
}

impl Context for Root {}
impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let parts = Parts::new(&self.get_plugin_configuration().unwrap_or_default());
        let fine = parts.is_some();
        self.parts = Rc::new(RefCell::new(parts));
        fine
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream(Rc::clone(&self.parts))))
    }
}

struct Stream(Rc<RefCell<Option<Parts>>>);

impl Context for Stream {}
impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let text = |name| self.get_http_request_header(name).unwrap_or_default();
        let (part, times) = (text("x-part"), text("x-times").parse().unwrap_or(1));
        let began = Instant::now();
        let ran = self.0.borrow_mut().as_mut().and_then(|parts| parts.run(&part, times, &SharedData));
        let took = began.elapsed().as_nanos().to_string();
        self.send_http_response(if ran.is_some() { 200 } else { 404 }, vec![], Some(took.as_bytes()));
        Action::Pause
    }
}
