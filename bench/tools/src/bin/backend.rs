//! A backend: a small JSON answer, or a stream of server-sent events for a target that begins with `/sse` (`/sse-short`: 20 of them).
//!
//!     backend --port 8000 [--first-ms 0] [--every-us 0] [--chunks 200]
//!
//! A stream begins after `first-ms`, and each event is a write of its own; the last one carries the usage.

use std::rc::Rc;
use std::time::Duration;
use x402_bench_tools::arguments::Arguments;
use x402_bench_tools::server::{Piece, json, serve};

/// Events of a stream at /sse-short.
const SHORT: u64 = 20;

fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let first = Duration::from_millis(arguments.number("first-ms", 0));
    let every = Duration::from_micros(arguments.number("every-us", 0));
    let (long, short) = (stream(arguments.number("chunks", 200)), stream(SHORT));
    serve(arguments.number("port", 8000) as u16, |request| {
        if !request.line.contains(" /sse") {
            return json(
                r#"{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"}}]}"#,
                first,
            );
        }
        let stream = if request.line.contains(" /sse-short") { &short } else { &long };
        let after = |index| if index == 0 { first } else { every };
        stream
            .iter()
            .enumerate()
            .map(|(index, bytes)| Piece {
                after: after(index),
                bytes: Rc::clone(bytes),
            })
            .collect()
    })
}

/// The writes of a stream: the head with the first event, the events, and the usage with the end.
fn stream(chunks: u64) -> Vec<Rc<[u8]>> {
    let event = |data: &str| {
        let text = format!("data: {data}\n\n");
        format!("{:x}\r\n{text}\r\n", text.len())
    };
    let mut writes = Vec::new();
    for number in 0..chunks {
        let data = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{{"index":0,"delta":{{"content":"word{number} "}},"finish_reason":null}}]}}"#
        );
        let mut text = event(&data);
        if number == 0 {
            text.insert_str(
                0,
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            );
        }
        writes.push(text.into_bytes().into());
    }
    let usage = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":{chunks},"total_tokens":{}}}}}"#,
        chunks + 9
    );
    writes.push(format!("{}{}0\r\n\r\n", event(&usage), event("[DONE]")).into_bytes().into());
    writes
}
