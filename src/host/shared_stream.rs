//! A stream as the SDK has it, and as the root context reaches it while a call of its is in flight.

use std::cell::{RefCell, RefMut};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::gate_stream::GateStream;
use super::worker::Worker;

/// One stream. No two callbacks of one run at once.
pub(super) struct SharedStream(Rc<RefCell<GateStream>>);

impl SharedStream {
    pub(super) fn new(context: u32, worker: &Rc<Worker>) -> Self {
        Self(Rc::new_cyclic(|me| {
            RefCell::new(GateStream::new(context, Rc::clone(worker), me.clone()))
        }))
    }

    /// The stream, at the beginning of a callback.
    fn begin(&self) -> RefMut<'_, GateStream> {
        let stream = self.0.borrow_mut();
        stream.worker.wake();
        stream
    }
}

impl Context for SharedStream {}

impl HttpContext for SharedStream {
    fn on_http_request_headers(&mut self, num_headers: usize, end_of_stream: bool) -> Action {
        self.begin().on_http_request_headers(num_headers, end_of_stream)
    }

    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.begin().on_http_request_body(body_size, end_of_stream)
    }

    fn on_http_request_trailers(&mut self, num_trailers: usize) -> Action {
        self.begin().on_http_request_trailers(num_trailers)
    }

    fn on_http_response_headers(&mut self, num_headers: usize, end_of_stream: bool) -> Action {
        self.begin().on_http_response_headers(num_headers, end_of_stream)
    }

    fn on_http_response_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.begin().on_http_response_body(body_size, end_of_stream)
    }

    fn on_http_response_trailers(&mut self, num_trailers: usize) -> Action {
        self.begin().on_http_response_trailers(num_trailers)
    }

    fn on_log(&mut self) {
        self.begin().on_log();
    }
}
