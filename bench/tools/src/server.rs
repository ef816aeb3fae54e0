//! A server of one thread, much faster than one Envoy worker: what to answer is a function's business, and when.

use crate::message::{Body, Chunks, head};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A request that is there in full.
pub struct Request<'a> {
    /// Method, target and version.
    pub line: &'a str,
    /// The body as it came, in chunks if it came so.
    pub body: &'a [u8],
}

/// A piece of an answer, and how long after the piece before it is written (with nothing: in the next turn).
pub struct Piece {
    /// How long it waits.
    pub after: Duration,
    /// The bytes.
    pub bytes: Rc<[u8]>,
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// What the socket did not take.
    rest: Vec<u8>,
    /// Tells a timer of this connection from one of those before it in the same place.
    born: u64,
}

const LISTENER: Token = Token(usize::MAX);

/// Serves until the process is ended.
pub fn serve(port: u16, mut answer: impl FnMut(&Request<'_>) -> Vec<Piece>) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(([127, 0, 0, 1], port).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut timers: BinaryHeap<Reverse<(Instant, usize, u64)>> = BinaryHeap::new();
    let mut births = 0;
    loop {
        let wait = timers.peek().map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let place = connections.iter().position(Option::is_none).unwrap_or(connections.len());
                    poll.registry()
                        .register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
                    births += 1;
                    let fresh = Some(Connection {
                        stream,
                        input: Vec::new(),
                        pieces: VecDeque::new(),
                        rest: Vec::new(),
                        born: births,
                    });
                    if place == connections.len() {
                        connections.push(fresh);
                    } else {
                        connections[place] = fresh;
                    }
                }
                continue;
            }
            let place = event.token().0;
            let Some(connection) = connections.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            let idle = connection.pieces.is_empty();
            if !connection.flush() || !connection.read(&mut answer) {
                connections[place] = None;
                continue;
            }
            if idle && !connection.pieces.is_empty() {
                schedule(place, connection, &mut timers, Instant::now());
            }
        }
        // One piece of each connection in a turn: pieces are writes of their own.
        let now = Instant::now();
        let mut due = Vec::new();
        while let Some(Reverse((at, place, born))) = timers.peek().copied() {
            if at > now {
                break;
            }
            timers.pop();
            due.push((place, born));
        }
        for (place, born) in due {
            let Some(connection) = connections.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            if connection.born != born {
                continue;
            }
            if let Some(piece) = connection.pieces.pop_front() {
                connection.write(&piece.bytes);
            }
            schedule(place, connection, &mut timers, now);
        }
    }
}

/// Writes what need not wait for anything, and sets a timer for the next piece.
fn schedule(place: usize, connection: &mut Connection, timers: &mut BinaryHeap<Reverse<(Instant, usize, u64)>>, now: Instant) {
    if let Some(piece) = connection.pieces.front() {
        timers.push(Reverse((now + piece.after, place, connection.born)));
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) {
        if !self.rest.is_empty() {
            self.rest.extend_from_slice(bytes);
            return;
        }
        let written = self.stream.write(bytes).unwrap_or(0);
        self.rest.extend_from_slice(&bytes[written..]);
    }

    /// False once the peer is gone.
    fn flush(&mut self) -> bool {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes what has come and answers it; false once the peer is gone.
    fn read(&mut self, answer: &mut impl FnMut(&Request<'_>) -> Vec<Piece>) -> bool {
        let mut buffer = [0; 16384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(size) => self.input.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        while let Some(head) = head(&self.input) {
            let end = match head.body {
                Body::Length(length) if self.input.len() >= head.end + length => head.end + length,
                Body::Length(_) => break,
                Body::Chunked => {
                    let mut chunks = Chunks::from(head.end);
                    if !chunks.advance(&self.input) {
                        break;
                    }
                    chunks.at
                }
            };
            let line = self.input.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = std::str::from_utf8(line).unwrap_or_default();
            let mut pieces = answer(&Request {
                line,
                body: &self.input[head.end..end],
            });
            // An answer without a wait goes out at once.
            let at_once = self.pieces.is_empty() && pieces.first().is_some_and(|piece| piece.after.is_zero());
            if at_once {
                let first = pieces.remove(0);
                self.write(&first.bytes);
            }
            self.pieces.extend(pieces);
            self.input.drain(..end);
        }
        true
    }
}

/// An answer of JSON, in one piece.
pub fn json(text: &str, after: Duration) -> Vec<Piece> {
    let bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    vec![Piece {
        after,
        bytes: bytes.into_bytes().into(),
    }]
}
