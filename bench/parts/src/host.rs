//! The parts inside Envoy: a request with `x-part` and `x-times` runs one, and is answered with the nanoseconds that took.
//!
//! Beside the filter's own parts: calls of the host, each by the name that it has in the proxy-wasm ABI.

use crate::Parts;
use crate::replay::{Cas, Conflict, SharedStore};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, MapType, MetricType};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// Runs a call of the host so many times; `None` if it is none that is known here.
fn call_host(name: &str, times: u32) -> Option<()> {
    let metric = hostcalls::define_metric(MetricType::Counter, "x402_bench").ok()?;
    // What is set for the first time costs more than what is there already.
    let names: Vec<String> = (0..times).map(|number| format!("x402_bench_{number}")).collect();
    hostcalls::set_shared_data("bench", Some(&[7; 22]), None).ok()?;
    for new in &names {
        match name {
            "proxy_get_current_time_nanoseconds" => drop(hostcalls::get_current_time()),
            "proxy_get_header_map_pairs" => drop(hostcalls::get_map_bytes(MapType::HttpRequestHeaders)),
            "proxy_get_header_map_value" => drop(hostcalls::get_map_value_bytes(MapType::HttpRequestHeaders, ":method")),
            "proxy_replace_header_map_value" => drop(hostcalls::set_map_value(MapType::HttpRequestHeaders, "x-x402-payer", Some(new))),
            "proxy_set_property" => drop(hostcalls::set_property(vec![new], Some(b"0x90F79bf6EB2c4f870365E785982E1f101E93b906"))),
            "proxy_get_property" => drop(hostcalls::get_property(vec!["request", "method"])),
            "proxy_get_shared_data" => drop(hostcalls::get_shared_data("bench")),
            "proxy_set_shared_data" => drop(hostcalls::set_shared_data("bench", Some(&[7; 22]), None)),
            "proxy_increment_metric" => drop(hostcalls::increment_metric(metric, 1)),
            _ => return None,
        }
    }
    Some(())
}

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
        let ran = match part.strip_prefix("proxy_") {
            Some(_) => call_host(&part, times).map(|()| 0),
            None => self.0.borrow_mut().as_mut().and_then(|parts| parts.run(&part, times, &SharedData)),
        };
        let took = began.elapsed().as_nanos().to_string();
        self.send_http_response(if ran.is_some() { 200 } else { 404 }, vec![], Some(took.as_bytes()));
        Action::Pause
    }
}
