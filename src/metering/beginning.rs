//! What the events of a stream begin with, most of them with the same: the id of the answer, its model, the keys around the text.

use super::found::Found;
use super::scanner::Scanner;

/// The longest beginning that is kept, in bytes.
const MOST: usize = 512;
/// The shortest that is worth it, in bytes.
const LEAST: usize = 16;

/// The beginning that two events shared, and what reading it led to: an event that begins so too need not be read from its start.
///
/// The outcome is the same, for what is found in an event depends on its bytes alone.
#[derive(Debug)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    scanner: Scanner,
    found: Found,
    /// How the last event began that did not begin so.
    other: Vec<u8>,
}

impl Beginning {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            scanner: Scanner::new(),
            found: Found::default(),
            other: Vec::new(),
        }
    }

    /// Reads the first bytes of an event's data as far as they are known, or begin to be; gives those that are left to read.
    pub(super) fn read<'a>(&mut self, data: &'a [u8], scanner: &mut Scanner, found: &mut Found) -> &'a [u8] {
        if self.bytes.len() >= LEAST
            && let Some(rest) = data.strip_prefix(&*self.bytes)
        {
            scanner.copy(&self.scanner);
            *found = self.found;
            return rest;
        }
        // The event's first bytes alone, its others being still to come, would be taken for all that events share.
        if self.bytes.starts_with(data) {
            return data;
        }
        let shared = data.iter().zip(&self.other).take_while(|(one, other)| one == other).count();
        // Up to a quote: what comes after it in a text is shared by chance.
        let quote = data.get(..shared).and_then(|shared| shared.iter().rposition(|byte| *byte == b'"'));
        let length = quote.map_or(0, |at| at.saturating_add(1));
        self.other.clear();
        self.other.extend_from_slice(data.get(..MOST).unwrap_or(data));
        let Some((start, rest)) = data.split_at_checked(length).filter(|_| length >= LEAST) else {
            return data;
        };
        scanner.feed(start, found);
        self.scanner.copy(scanner);
        self.found = *found;
        self.bytes.clear();
        self.bytes.extend_from_slice(start);
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECES: [&str; 8] = [
        "{\"id\":\"abcdefgh\",",
        "\"choices\":[{\"delta\":{\"content\":\"",
        "\\u00e9\"",
        "wor\\",
        "d\"}}]",
        "}",
        "\"usage\":{\"prompt_tokens\":1",
        ",\"type\":\"message_stop\"",
    ];

    proptest! {
        #[test]
        fn an_event_says_what_it_says_when_read_from_its_start(
            events in proptest::collection::vec(proptest::collection::vec((0usize..8).prop_map(|piece| PIECES[piece]), 0..8), 0..12),
            in_one in proptest::collection::vec(1usize..200, 12),
        ) {
            let mut beginning = Beginning::new();
            for (event, first) in events.iter().zip(in_one) {
                let event = event.concat();
                let (first, later) = event.as_bytes().split_at(first.min(event.len()));
                let (mut scanner, mut found) = (Scanner::new(), Found::default());
                let rest = beginning.read(first, &mut scanner, &mut found);
                scanner.feed(rest, &mut found);
                scanner.feed(later, &mut found);
                let (mut plain, mut expected) = (Scanner::new(), Found::default());
                plain.feed(event.as_bytes(), &mut expected);
                prop_assert_eq!(format!("{scanner:?} {found:?}"), format!("{plain:?} {expected:?}"));
                prop_assert_eq!(found.said(), expected.said());
            }
        }
    }

    #[test]
    fn what_all_events_share_is_read_twice() {
        let mut beginning = Beginning::new();
        let left = |beginning: &mut Beginning, text: &str| {
            let event = format!(r#"{{"id":"chatcmpl-1","choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
            let (mut scanner, mut found) = (Scanner::new(), Found::default());
            beginning.read(event.as_bytes(), &mut scanner, &mut found).len()
        };
        assert!(left(&mut beginning, "word") > 40);
        for text in ["work", "play"] {
            assert_eq!(left(&mut beginning, text), "play\"}}]}".len());
        }
    }
}
