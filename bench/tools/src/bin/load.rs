//! A closed loop: so many connections, each sends its next request when the answer to the one before is there.
//!
//!     load --port 10000 --file REQUESTS [--connections 32] [--requests N] [--seconds S] [--status 200] [--needs HEADER]
//!
//! The file holds requests, each behind its length (4 bytes, little endian). They are sent in order; without `requests` each
//! once, with it as often round as it takes. `seconds` ends it early. Any status but `status` (0: those of 500 and above), or an answer without the header
//! `needs`, is counted as wrong. Prints JSON: requests, seconds, wrong, statuses, and microseconds (to the end of the answer,
//! to the first byte of its body) as quantiles.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};
use x402_bench_tools::arguments::Arguments;
use x402_bench_tools::message::{Body, Chunks, Head, head};

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    head: Option<Head>,
    chunks: Chunks,
    sent: Instant,
    first: Option<Duration>,
    busy: bool,
}

struct Run {
    port: u16,
    requests: Vec<Vec<u8>>,
    next: usize,
    count: usize,
    until: Option<Instant>,
    status: u16,
    needs: Option<Vec<u8>>,
    wrong: u64,
    statuses: BTreeMap<u16, u64>,
    whole: Vec<Duration>,
    first: Vec<Duration>,
    example: Option<String>,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let requests = requests(&std::fs::read(arguments.text("file").unwrap_or("requests"))?);
    let count = arguments.number("requests", requests.len() as u64) as usize;
    let mut run = Run {
        port: arguments.number("port", 10000) as u16,
        next: 0,
        count,
        until: None,
        status: arguments.number("status", 200) as u16,
        needs: arguments
            .text("needs")
            .map(|name| format!("\r\n{}:", name.to_ascii_lowercase()).into_bytes()),
        wrong: 0,
        statuses: BTreeMap::new(),
        whole: Vec::with_capacity(count.min(1 << 22)),
        first: Vec::with_capacity(count.min(1 << 22)),
        example: None,
        requests,
    };
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Vec::new();
    // Connected before the clock starts.
    for place in 0..(arguments.number("connections", 32) as usize).min(count) {
        connections.push(connect(run.port, place, &poll)?);
    }
    let began = Instant::now();
    if let Some(seconds) = arguments.text("seconds").and_then(|text| text.parse().ok()) {
        run.until = Some(began + Duration::from_secs_f64(seconds));
    }
    let mut busy = connections
        .iter_mut()
        .map(|connection| run.send(connection))
        .filter(|sent| *sent)
        .count();
    while busy > 0 {
        match poll.poll(&mut events, Some(Duration::from_secs(30))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        if events.is_empty() {
            eprintln!("no answer within 30 s to {busy} requests");
            std::process::exit(1);
        }
        for event in &events {
            let place = event.token().0;
            let connection = &mut connections[place];
            let (answered, open) = run.receive(connection)?;
            if !open {
                if connection.busy && !answered {
                    run.wrong += 1;
                    *run.statuses.entry(0).or_default() += 1;
                }
                let was_busy = connection.busy || answered;
                connections[place] = connect(run.port, place, &poll)?;
                if was_busy && !run.send(&mut connections[place]) {
                    busy -= 1;
                }
            } else if answered && !run.send(connection) {
                busy -= 1;
            }
        }
    }
    println!("{}", run.report(began.elapsed()));
    if let Some(example) = &run.example {
        eprintln!("an answer that was not expected:\n{example}");
    }
    Ok(())
}

fn requests(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (request, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        found.push(request.to_vec());
        rest = after;
    }
    assert!(!found.is_empty(), "the file holds no requests");
    found
}

fn connect(port: u16, place: usize, poll: &Poll) -> std::io::Result<Connection> {
    let stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
    Ok(Connection {
        stream,
        input: Vec::with_capacity(16384),
        head: None,
        chunks: Chunks::default(),
        sent: Instant::now(),
        first: None,
        busy: false,
    })
}

impl Run {
    /// Sends the next request; false if there is none.
    fn send(&mut self, connection: &mut Connection) -> bool {
        if self.next >= self.count || self.until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        let request = &self.requests[self.next % self.requests.len()];
        self.next += 1;
        connection.sent = Instant::now();
        connection.first = None;
        connection.busy = true;
        // A request fits into a socket's buffer, so that this is one call; what is left is pushed, for a request is small.
        let mut rest = &request[..];
        while !rest.is_empty() {
            match connection.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break, // closed: the answer, or its absence, says so
            }
        }
        true
    }

    /// Takes what has come: whether the answer is complete, and whether the connection can be used on.
    fn receive(&mut self, connection: &mut Connection) -> std::io::Result<(bool, bool)> {
        let mut buffer = [0; 65536];
        let mut open = true;
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(size) => {
                    connection.input.extend_from_slice(&buffer[..size]);
                    if size < buffer.len() {
                        break; // edge-triggered, but the rest raises an event of its own
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    open = false;
                    break;
                }
            }
        }
        if connection.head.is_none() {
            connection.head = head(&connection.input);
            if let Some(head) = &connection.head {
                connection.chunks = Chunks::from(head.end);
            }
        }
        let Some(found) = &connection.head else { return Ok((false, open)) };
        if connection.first.is_none() && connection.input.len() > found.end {
            connection.first = Some(connection.sent.elapsed());
        }
        let done = match found.body {
            Body::Length(length) => connection.input.len() >= found.end + length,
            Body::Chunked => connection.chunks.advance(&connection.input),
        };
        if !done {
            return Ok((false, open));
        }
        let whole = connection.sent.elapsed();
        self.whole.push(whole);
        self.first.push(connection.first.unwrap_or(whole));
        open &= !found.close;
        self.judge(&connection.input, found.end);
        connection.input.clear();
        connection.head = None;
        connection.busy = false;
        Ok((true, open))
    }

    fn judge(&mut self, answer: &[u8], end: usize) {
        let status = std::str::from_utf8(&answer[9..12])
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        *self.statuses.entry(status).or_default() += 1;
        let has = |name: &[u8]| answer[..end].windows(name.len()).any(|part| part.eq_ignore_ascii_case(name));
        if (status != self.status && (self.status != 0 || status >= 500)) || self.needs.as_deref().is_some_and(|name| !has(name)) {
            self.wrong += 1;
            self.example
                .get_or_insert_with(|| String::from_utf8_lossy(&answer[..answer.len().min(3000)]).into_owned());
        }
    }

    fn report(&mut self, took: Duration) -> serde_json::Value {
        let quantiles = |values: &mut Vec<Duration>| {
            values.sort_unstable();
            let at = |share: f64| {
                let index = (values.len() as f64 * share) as usize;
                values
                    .get(index.min(values.len().saturating_sub(1)))
                    .map_or(0.0, |value| value.as_nanos() as f64 / 1000.0)
            };
            serde_json::json!({"p05": at(0.05), "p25": at(0.25), "p50": at(0.5), "p75": at(0.75), "p95": at(0.95), "p99": at(0.99)})
        };
        serde_json::json!({
            "requests": self.whole.len(),
            "seconds": took.as_secs_f64(),
            "wrong": self.wrong,
            "statuses": self.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect::<BTreeMap<_, _>>(),
            "whole_us": quantiles(&mut self.whole),
            "first_us": quantiles(&mut self.first),
        })
    }
}
