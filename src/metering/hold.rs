//! Holding an event back until it is known whether it is to be passed on.

use std::borrow::Cow;

/// The longest event that is withheld, in bytes; a longer one is passed on whatever it is.
pub(super) const MAX_HELD: usize = 256 * 1024;

/// Bytes that are held back over chunks.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// What earlier chunks had of the event.
    carried: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between events.
    #[default]
    Open,
    /// In an event that is held, from so far into the chunk.
    Holding(usize),
    /// In an event that is passed on.
    Passing,
    /// After an event that was dropped; the second half of its line end may follow.
    Dropped,
}

/// What of a chunk is passed on: a part of it as it is, until something is left out or put before it.
pub(super) struct Outlet<'a> {
    chunk: &'a [u8],
    from: usize,
    to: usize,
    rewritten: Option<Vec<u8>>,
}

impl Hold {
    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.carried.len()
    }

    /// Bytes of an event, at `from..to` of the chunk; `held`: if it is new, hold it; if it is held, go on.
    pub(super) fn event(&mut self, from: usize, to: usize, held: bool, outlet: &mut Outlet<'_>) {
        let begin = match self.state {
            State::Open | State::Dropped => from,
            State::Holding(begin) => begin,
            State::Passing => return outlet.pass(from, to),
        };
        self.state = State::Holding(begin);
        if !held || self.length(begin, to) > MAX_HELD {
            self.release(begin, to, outlet);
            self.state = State::Passing;
        }
    }

    /// The event ends with the bytes at `from..to`.
    pub(super) fn end(&mut self, from: usize, to: usize, drop: bool, outlet: &mut Outlet<'_>) {
        let state = core::mem::take(&mut self.state);
        match state {
            State::Holding(begin) if drop && self.length(begin, to) <= MAX_HELD => {
                self.carried.clear();
                self.state = State::Dropped;
            }
            State::Holding(begin) => self.release(begin, to, outlet),
            State::Open | State::Passing | State::Dropped => outlet.pass(from, to),
        }
    }

    /// Bytes between events.
    pub(super) fn between(&mut self, from: usize, to: usize, outlet: &mut Outlet<'_>) {
        self.state = State::Open;
        outlet.pass(from, to);
    }

    /// The second half of a line end, which goes the way of the first.
    pub(super) fn second_half(&mut self, from: usize, to: usize, outlet: &mut Outlet<'_>) {
        match self.state {
            State::Dropped => self.state = State::Open,
            State::Holding(_) => {}
            State::Open | State::Passing => outlet.pass(from, to),
        }
    }

    /// Keeps what is held of a chunk that is over.
    pub(super) fn carry(&mut self, chunk: &[u8]) {
        if let State::Holding(begin) = self.state {
            self.carried.extend(chunk.iter().skip(begin));
            self.state = State::Holding(0);
        }
    }

    /// Ends the stream: what is held is given out, or dropped.
    pub(super) fn finish(&mut self, drop: bool) -> Vec<u8> {
        self.state = State::Open;
        let held = core::mem::take(&mut self.carried);
        if drop && held.len() <= MAX_HELD { Vec::new() } else { held }
    }

    fn length(&self, begin: usize, to: usize) -> usize {
        self.carried.len().saturating_add(to.saturating_sub(begin))
    }

    fn release(&mut self, begin: usize, to: usize, outlet: &mut Outlet<'_>) {
        if !self.carried.is_empty() {
            outlet.insert(&core::mem::take(&mut self.carried));
        }
        outlet.pass(begin, to);
    }
}

impl<'a> Outlet<'a> {
    pub(super) fn new(chunk: &'a [u8]) -> Self {
        Self {
            chunk,
            from: 0,
            to: 0,
            rewritten: None,
        }
    }

    /// Passes `from..to` of the chunk on, which follows what was passed on before, not necessarily at once.
    fn pass(&mut self, from: usize, to: usize) {
        match &mut self.rewritten {
            None if self.from == self.to => (self.from, self.to) = (from, to),
            None if self.to == from => self.to = to,
            _ => self.insert(self.chunk.get(from..to).unwrap_or_default()),
        }
    }

    /// Passes on bytes that are not of the chunk.
    fn insert(&mut self, bytes: &[u8]) {
        let unchanged = self.chunk.get(self.from..self.to).unwrap_or_default();
        self.rewritten.get_or_insert_with(|| unchanged.to_vec()).extend_from_slice(bytes);
    }

    /// What is passed on.
    pub(super) fn done(self) -> Cow<'a, [u8]> {
        match self.rewritten {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(self.chunk.get(self.from..self.to).unwrap_or_default()),
        }
    }
}
