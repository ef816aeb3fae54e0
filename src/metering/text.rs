//! A JSON string, decoded as it comes in: its length, and its start.

use super::bytes::before_special;

/// How much of a string is kept: more than the longest key or event type that matters.
const HEAD: usize = 64;

/// What became of the bytes given to [`Text::take`].
pub(super) enum Taken<'a> {
    /// All belong to the string, which goes on.
    All,
    /// The string is closed; these bytes follow it.
    Closed(&'a [u8]),
    /// Not a JSON string.
    Broken,
}

/// The inside of a string: what follows its opening quote.
#[derive(Debug, Default)]
pub(super) struct Text {
    head: Vec<u8>,
    bytes: u64,
    escape: Escape,
    /// The first half of a character that is written as two escapes.
    high: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    No,
    /// After a backslash.
    Begun,
    /// Within `\u`: the digits so far, and how many are to come.
    Unicode { code: u16, left: u8 },
}

impl Text {
    /// Makes this the start of another string, keeping the memory.
    pub(super) fn restart(&mut self) {
        self.head.clear();
        self.bytes = 0;
        self.escape = Escape::No;
        self.high = None;
    }

    /// Makes this what another is, keeping the memory.
    pub(super) fn copy(&mut self, other: &Self) {
        self.head.clone_from(&other.head);
        self.bytes = other.bytes;
        self.escape = other.escape;
        self.high = other.high;
    }

    /// Length of the decoded string in bytes of UTF-8.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The decoded string, unless it is longer than what is kept.
    pub(super) fn short(&self) -> Option<&[u8]> {
        (u64::try_from(self.head.len()) == Ok(self.bytes)).then_some(&self.head)
    }

    /// Takes the next bytes.
    pub(super) fn take<'a>(&mut self, mut bytes: &'a [u8]) -> Taken<'a> {
        while let Some((byte, rest)) = bytes.split_first() {
            match self.escape {
                Escape::No => {
                    let plain = before_special(bytes);
                    if plain > 0 {
                        let (run, rest) = bytes.split_at_checked(plain).unwrap_or((bytes, &[]));
                        self.end_high();
                        self.push(run);
                        bytes = rest;
                        continue;
                    }
                    match byte {
                        b'"' => {
                            self.end_high();
                            return Taken::Closed(rest);
                        }
                        b'\\' => self.escape = Escape::Begun,
                        _ => return Taken::Broken,
                    }
                }
                Escape::Begun => {
                    let Some(escape) = self.simple(*byte) else {
                        return Taken::Broken;
                    };
                    self.escape = escape;
                }
                Escape::Unicode { code, left } => {
                    let Some(digit) = char::from(*byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
                        return Taken::Broken;
                    };
                    let code = code << 4 | digit;
                    self.escape = match left.checked_sub(1) {
                        None | Some(0) => {
                            self.unit(code);
                            Escape::No
                        }
                        Some(left) => Escape::Unicode { code, left },
                    };
                }
            }
            bytes = rest;
        }
        Taken::All
    }

    /// The byte after a backslash.
    fn simple(&mut self, byte: u8) -> Option<Escape> {
        let decoded = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            b'u' => return Some(Escape::Unicode { code: 0, left: 4 }),
            _ => return None,
        };
        self.end_high();
        self.push(&[decoded]);
        Some(Escape::No)
    }

    /// A UTF-16 code unit, from an escape.
    fn unit(&mut self, code: u16) {
        let decoded = match self.high.take() {
            Some(high) => char::decode_utf16([high, code]).next(),
            None => None,
        };
        if let Some(Ok(character)) = decoded {
            return self.push_char(character);
        }
        if decoded.is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER);
        }
        match code {
            0xd800..=0xdbff => self.high = Some(code),
            _ => self.push_char(char::from_u32(u32::from(code)).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }

    /// A first half whose second half did not come stands for itself.
    fn end_high(&mut self) {
        if self.high.take().is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER);
        }
    }

    fn push_char(&mut self, character: char) {
        self.push(character.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn push(&mut self, decoded: &[u8]) {
        // A head with a gap would be another string: after the first byte too many nothing is added.
        if self.short().is_some() {
            let room = HEAD.saturating_sub(self.head.len());
            self.head.extend_from_slice(decoded.get(..room).unwrap_or(decoded));
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(decoded.len()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(json: &[u8], split: usize) -> Option<Text> {
        let mut text = Text::default();
        let (first, second) = json[1..].split_at(split.min(json.len().saturating_sub(1)));
        let rest = match text.take(first) {
            Taken::Closed(rest) => rest,
            Taken::Broken => return None,
            Taken::All => match text.take(second) {
                Taken::Closed(rest) => rest,
                Taken::All | Taken::Broken => return None,
            },
        };
        assert!(rest.is_empty() || split < json.len());
        Some(text)
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for json in ["\"\\x\"", "\"\\u12g4\"", "\"\n\"", "\"", "\"\\\"", "\"\\u12\""] {
            assert!(decoded(json.as_bytes(), 1).is_none(), "{json}");
        }
    }

    #[test]
    fn lone_halves_are_three_bytes_each() {
        for (json, bytes) in [
            (r#""\ud83d\ude00""#, 4),
            (r#""\ud83d""#, 3),
            (r#""\ude00""#, 3),
            (r#""\ud83d\ud83d\ude00""#, 7),
            (r#""\ud83dx""#, 4),
            (r#""\ud83d\n""#, 4),
            (r#""\ud83d\u0041""#, 4),
        ] {
            assert_eq!(decoded(json.as_bytes(), 3).unwrap().bytes(), bytes, "{json}");
        }
    }

    proptest! {
        #[test]
        fn decodes_what_serde_json_encodes(text in ".{0,80}|[\\x00-\\x1f\"\\\\é😀]{0,40}", split in 0usize..200, ascii: bool) {
            let json = if ascii {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
                format!("\"{units}\"")
            } else {
                serde_json::to_string(&text).unwrap()
            };
            let read = decoded(json.as_bytes(), split).unwrap();
            prop_assert_eq!(read.bytes(), text.len() as u64);
            prop_assert_eq!(read.short(), (text.len() <= HEAD).then_some(text.as_bytes()));
        }
    }
}
