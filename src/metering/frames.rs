//! Server-sent events, taken apart as they come in (HTML Living Standard, "Parsing an event stream").
//!
//! Keeps nothing of them: an event may be of any length.

use super::bytes::before_line_end;
use super::prefix::Prefix;

/// The name of the field that matters.
const DATA: &[u8] = b"data";
/// A line of it, up to what the field says.
const LINE: &[u8] = b"data: ";

/// What some bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// Of no event: a blank line, or a comment before an event's first field.
    Between,
    /// Of an event, but not of its data.
    Field,
    /// Of an event; a line of its data begins after it.
    Line,
    /// The event's data, as far as it is on this line and has come.
    Data,
    /// The blank line that ends an event.
    End,
    /// The second half of a CRLF whose first half was the end of the piece before.
    SecondHalf,
}

/// The place in a stream.
#[derive(Debug)]
pub(super) struct Frames {
    bom: Prefix,
    place: Place,
    /// The last byte was a CR.
    after_cr: bool,
    in_event: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    LineStart,
    /// In a field's name, of which so many bytes are those of [`DATA`].
    Name(usize),
    /// After `data:`.
    Colon,
    Data,
    /// In the rest of a line that does not matter.
    Rest,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            bom: Prefix::BOM,
            place: Place::LineStart,
            after_cr: false,
            in_event: false,
        }
    }

    /// Whether an event has begun and not ended.
    pub(super) fn in_event(&self) -> bool {
        self.in_event
    }

    /// Splits the next piece off: its length, at least 1, and what it is.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<(usize, Piece)> {
        let first = *bytes.first()?;
        let after_bom = self.bom.take(bytes);
        let mark = bytes.len().saturating_sub(after_bom.len());
        if mark > 0 {
            return Some((mark, Piece::Between));
        }
        if core::mem::take(&mut self.after_cr) && first == b'\n' {
            return Some((1, Piece::SecondHalf));
        }
        if matches!(first, b'\r' | b'\n') {
            self.after_cr = first == b'\r';
            return Some((1, self.end_line()));
        }
        Some(match self.place {
            Place::LineStart if first == b':' => {
                self.place = Place::Rest;
                (1, self.here())
            }
            Place::LineStart => {
                self.in_event = true;
                // As nearly every line begins; the same as byte by byte.
                if bytes.starts_with(LINE) {
                    self.place = Place::Data;
                    return Some((LINE.len(), Piece::Line));
                }
                self.name(0, first)
            }
            Place::Name(matched) => self.name(matched, first),
            Place::Colon => {
                self.place = Place::Data;
                if first == b' ' {
                    (1, Piece::Field)
                } else {
                    (before_line_end(bytes), Piece::Data)
                }
            }
            Place::Data => (before_line_end(bytes), Piece::Data),
            Place::Rest => (before_line_end(bytes), self.here()),
        })
    }

    /// A byte of a field's name, or the colon after it.
    fn name(&mut self, matched: usize, byte: u8) -> (usize, Piece) {
        let (place, piece) = match DATA.get(matched) {
            Some(expected) if *expected == byte => (Place::Name(matched.saturating_add(1)), Piece::Field),
            None if byte == b':' => (Place::Colon, Piece::Line),
            _ => (Place::Rest, Piece::Field),
        };
        self.place = place;
        (1, piece)
    }

    fn end_line(&mut self) -> Piece {
        match core::mem::replace(&mut self.place, Place::LineStart) {
            Place::LineStart if core::mem::take(&mut self.in_event) => Piece::End,
            // A line that is `data` and nothing else is an empty line of data.
            Place::Name(matched) if matched == DATA.len() => Piece::Line,
            _ => self.here(),
        }
    }

    fn here(&self) -> Piece {
        if self.in_event { Piece::Field } else { Piece::Between }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event, and what is left of an event without an end.
    fn data(stream: &[u8], step: usize) -> Vec<String> {
        let mut frames = Frames::new();
        let mut events: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
        for chunk in stream.chunks(step) {
            let mut rest = chunk;
            while let Some((length, piece)) = frames.next(rest) {
                let event = events.last_mut().unwrap();
                match piece {
                    Piece::Line => event.push(Vec::new()),
                    Piece::Data => event.last_mut().unwrap().extend(&rest[..length]),
                    Piece::End => events.push(Vec::new()),
                    Piece::Between | Piece::Field | Piece::SecondHalf => {}
                }
                rest = &rest[length..];
            }
        }
        let joined = events.iter().map(|lines| String::from_utf8(lines.join(&b'\n')).unwrap());
        joined.collect()
    }

    #[test]
    fn events_are_found_however_lines_end_and_chunks_split() {
        for (stream, events) in [
            ("data: a\n\ndata:b\n\n", vec!["a", "b", ""]),
            ("\u{feff}data: a\n\n", vec!["a", ""]),
            (
                "\n\n: comment\n\n\ndata: a\n: data: no\ndata:  b\nevent: x\n\n\n",
                vec!["a\n b", ""],
            ),
            ("data: a\ndata\ndata:\n\n", vec!["a\n\n", ""]),
            ("data\n\n", vec!["", ""]),
            ("dat: x\ndatas: x\n data: x\nDATA: x\nid: 1\n\n", vec!["", ""]),
            (
                "event: a\ndata: {\"é\":\"\u{2028}\"}\nretry\n\ndata: cut",
                vec!["{\"é\":\"\u{2028}\"}", "cut"],
            ),
            ("data: x: y\n\n", vec!["x: y", ""]),
        ] {
            for end in ["\n", "\r\n", "\r"] {
                let stream = stream.replace('\n', end);
                for step in 1..=stream.len() {
                    assert_eq!(data(stream.as_bytes(), step), events, "{stream:?} by {step}");
                }
            }
        }
    }

    #[test]
    fn line_ends_can_be_mixed() {
        for step in 1..20 {
            assert_eq!(data(b"data: a\r\ndata: b\r\r\ndata: c\n\r\nx", step), ["a\nb", "c", ""]);
        }
    }
}
