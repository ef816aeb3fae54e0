//! The usage in an answer that is a stream of server-sent events, and the event that is withheld.

use std::borrow::Cow;

use super::event::Event;
use super::found::Said;
use super::frames::{Frames, Piece};
use super::hold::{Hold, Outlet};
use super::usage::Counts;

/// A stream as it passes.
#[derive(Debug)]
pub(super) struct Sse {
    frames: Frames,
    event: Event,
    hold: Option<Hold>,
    heard: Heard,
}

/// What the events so far said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// What was used.
    pub(super) counts: Option<Counts>,
    /// Generated text, in bytes of UTF-8.
    pub(super) text: u64,
    /// The part of it that came after the last count.
    pub(super) uncounted: u64,
    /// The part of it that came since the count of output last rose.
    pub(super) stale: u64,
    /// The last event was there.
    pub(super) finished: bool,
}

impl Sse {
    /// `withhold_usage` as in [`Meter::new`](super::Meter::new).
    pub(super) fn new(withhold_usage: bool) -> Self {
        Self {
            frames: Frames::new(),
            event: Event::new(),
            hold: withhold_usage.then(Hold::default),
            heard: Heard::default(),
        }
    }

    /// What the events said.
    pub(super) fn heard(&self) -> Heard {
        self.heard
    }

    /// Bytes that are held back.
    pub(super) fn held_bytes(&self) -> usize {
        self.hold.as_ref().map_or(0, Hold::len)
    }

    /// Takes the next bytes and gives those to pass on.
    pub(super) fn chunk<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let mut outlet = Outlet::new(chunk);
        let mut from = 0usize;
        let mut rest = chunk;
        while let Some((length, piece)) = self.frames.next(rest) {
            let (bytes, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            let to = from.saturating_add(bytes.len());
            let said = self.read(piece, bytes);
            if let Some(hold) = &mut self.hold {
                match piece {
                    Piece::Between => hold.between(from, to, &mut outlet),
                    Piece::SecondHalf => hold.second_half(from, to, &mut outlet),
                    Piece::End => hold.end(from, to, said.usage_only, &mut outlet),
                    Piece::Field | Piece::Line | Piece::Data => hold.event(from, to, self.event.may_be_usage_only(), &mut outlet),
                }
            }
            (from, rest) = (to, after);
        }
        match &mut self.hold {
            Some(hold) => {
                hold.carry(chunk);
                outlet.done()
            }
            None => Cow::Borrowed(chunk),
        }
    }

    /// Ends the stream; an event that lacks its blank line is taken for complete, as the official SDKs do.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let said = if self.frames.in_event() {
            self.frames = Frames::new();
            self.read(Piece::End, b"")
        } else {
            Said::default()
        };
        self.hold.as_mut().map(|hold| hold.finish(said.usage_only)).unwrap_or_default()
    }

    fn read(&mut self, piece: Piece, bytes: &[u8]) -> Said {
        match piece {
            Piece::Line => self.event.line(),
            Piece::Data => self.event.data(bytes),
            Piece::End => {
                let said = self.event.end();
                self.heard.add(said);
                return said;
            }
            Piece::Between | Piece::Field | Piece::SecondHalf => {}
        }
        Said::default()
    }
}

impl Heard {
    fn add(&mut self, said: Said) {
        self.text = self.text.saturating_add(said.text);
        self.uncounted = self.uncounted.saturating_add(said.text);
        self.stale = self.stale.saturating_add(said.text);
        if let Some(counts) = said.counts {
            let known = self.counts.get_or_insert_default();
            let before = known.usage().output;
            known.merge(counts);
            self.uncounted = 0;
            if known.usage().output > before {
                self.stale = 0;
            }
        }
        self.finished |= said.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metering::hold::MAX_HELD;

    const TEXT: &str = r#"{"choices":[{"delta":{"content":"Hi"}}],"usage":null}"#;
    const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;

    /// What is passed on, by chunks of so many bytes.
    fn passed(stream: &str, step: usize) -> String {
        let mut sse = Sse::new(true);
        let mut out = Vec::new();
        for chunk in stream.as_bytes().chunks(step) {
            out.extend_from_slice(&sse.chunk(chunk));
        }
        out.extend(sse.end());
        assert_eq!(sse.heard().counts.unwrap().usage().input, 5);
        assert_eq!(sse.held_bytes(), 0);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_usage_event_is_left_out_whole() {
        for (stream, expected) in [
            ("data: TEXT\n\ndata: USAGE\n\ndata: [DONE]\n\n", "data: TEXT\n\ndata: [DONE]\n\n"),
            ("data: USAGE\n\n", ""),
            ("data: USAGE", ""),
            ("data: USAGE\n", ""),
            ("data: USAGE\n\n\n", "\n"),
            (": ping\n\n: ping\nid: 7\ndata: USAGE\n: note\n\n: x", ": ping\n\n: ping\n: x"),
            ("data: {\"choices\":[],\ndata:\"usage\":{\"prompt_tokens\":5}}\n\nx", "x"),
            (
                "data: {\"error\":0,\"usage\":{\"prompt_tokens\":5}}\n\nx",
                "data: {\"error\":0,\"usage\":{\"prompt_tokens\":5}}\n\nx",
            ),
        ] {
            for end in ["\n", "\r\n", "\r"] {
                let with_ends = |text: &str| text.replace('\n', end).replace("TEXT", TEXT).replace("USAGE", USAGE);
                let (stream, expected) = (with_ends(stream), with_ends(expected));
                for step in 1..=stream.len() {
                    assert_eq!(passed(&stream, step), expected, "{stream:?} by {step}");
                }
            }
        }
    }

    #[test]
    fn only_what_may_be_the_usage_event_waits() {
        let mut sse = Sse::new(true);
        for (chunk, expected) in [
            (": pi", ": pi"),
            ("ng\n\n", "ng\n\n"),
            ("data: {\"id\":\"c\",\"choices\":[", ""),
            (
                "{\"delta\":{\"content\":\"H",
                "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"H",
            ),
            ("i\"}}]}", "i\"}}]}"),
            ("\n\ndata: {\"choices\":[]", "\n\n"),
            (",\"usage\":{}", ""),
            ("}\n\ndata: [D", "data: [D"),
            ("ONE]\n\n", "ONE]\n\n"),
        ] {
            assert_eq!(*sse.chunk(chunk.as_bytes()), *expected.as_bytes(), "{chunk}");
        }
        assert!(sse.end().is_empty());
    }

    #[test]
    fn what_passes_unchanged_is_not_copied() {
        let stream = format!("data: {TEXT}\n\ndata: {TEXT}\n\ndata: {USAGE}\n\n");
        let mut sse = Sse::new(true);
        assert!(matches!(sse.chunk(stream.as_bytes()), Cow::Borrowed(passed) if passed.len() == 2 * TEXT.len() + 16));
        let mut sse = Sse::new(false);
        for chunk in stream.as_bytes().chunks(7) {
            assert!(matches!(sse.chunk(chunk), Cow::Borrowed(passed) if passed == chunk));
        }
    }

    #[test]
    fn no_more_than_the_cap_is_held() {
        for (padding, is_withheld) in [(0, true), (1, false)] {
            let event = format!("data: {USAGE}\n\n");
            let event = event.replace(
                "{\"choices",
                &format!("{{{}\"choices", " ".repeat(MAX_HELD + padding - event.len())),
            );
            for step in [1, 1000, event.len()] {
                let mut sse = Sse::new(true);
                let mut out = Vec::new();
                for chunk in event.as_bytes().chunks(step) {
                    out.extend_from_slice(&sse.chunk(chunk));
                    assert!(sse.held_bytes() <= MAX_HELD);
                }
                assert_eq!(out.is_empty(), is_withheld, "{padding} {step}");
                assert!(is_withheld || out == event.as_bytes());
                assert_eq!(sse.heard().counts.unwrap().usage().input, 5);
            }
        }
    }

    #[test]
    fn text_after_the_last_count_is_known() {
        let mut sse = Sse::new(false);
        sse.chunk(b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n");
        sse.chunk(b"data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"abcde\"}}\n\n");
        assert_eq!((sse.heard().text, sse.heard().uncounted), (5, 5));
        sse.chunk(b"data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\n");
        assert_eq!((sse.heard().text, sse.heard().uncounted), (5, 0));
    }
}
