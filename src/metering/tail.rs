//! How the part of a stream of events that has been passed on ends: what may be added to it depends on that.

/// So many bytes at the end tell a blank line.
const LOOK_BACK: usize = 4;

/// The last bytes that were passed on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tail {
    /// In order, the last of them last; zeros before there were any.
    bytes: [u8; LOOK_BACK],
    any: bool,
}

/// Where a stream of events stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Between two events: nothing has begun.
    Between,
    /// At the start of a line, perhaps of an event that has no end yet.
    LineStart,
    /// Within a line.
    Line,
}

impl Tail {
    /// Bytes that were passed on.
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        self.any |= !bytes.is_empty();
        let kept = bytes.get(bytes.len().saturating_sub(LOOK_BACK)..).unwrap_or(bytes);
        for byte in kept {
            self.bytes.rotate_left(1);
            if let Some(last) = self.bytes.last_mut() {
                *last = *byte;
            }
        }
    }

    /// Where that leaves the stream. A comment on a line of its own counts as an event without an end, which does no harm.
    pub(super) fn place(&self) -> Place {
        match self.bytes {
            _ if !self.any => Place::Between,
            // A CR and an LF after it are one line end.
            [.., b'\n' | b'\r', b'\r'] | [.., b'\n', b'\n'] | [.., b'\n' | b'\r', b'\r', b'\n'] => Place::Between,
            [.., b'\n' | b'\r'] => Place::LineStart,
            _ => Place::Line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_known_however_lines_end_and_chunks_split() {
        for (stream, place) in [
            ("", Place::Between),
            ("data: a\n\n", Place::Between),
            ("data: a\r\n\r\n", Place::Between),
            ("data: a\r\r", Place::Between),
            ("data: a\r\n\n", Place::Between),
            ("data: a\n\r\n", Place::Between),
            ("data: a\n", Place::LineStart),
            ("data: a\r\n", Place::LineStart),
            ("data: a\r", Place::LineStart),
            ("data: a\n\ndata: b\n", Place::LineStart),
            ("data: a\n\n:", Place::Line),
            ("data", Place::Line),
        ] {
            for step in 1..=stream.len().max(1) {
                let mut tail = Tail::default();
                for chunk in stream.as_bytes().chunks(step) {
                    tail.passed(chunk);
                    tail.passed(b"");
                }
                assert_eq!(tail.place(), place, "{stream:?} by {step}");
            }
        }
    }
}
