//! Where a message of HTTP/1.1 ends: heads, and bodies by length or in chunks. Bytes in, positions out.

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// After so many bytes.
    Length(usize),
    /// With an empty chunk and what trailers follow it.
    Chunked,
}

/// The head at the start of some bytes.
pub struct Head {
    /// Where the body begins.
    pub end: usize,
    /// How it ends.
    pub body: Body,
    /// Whether the peer closes the connection after the message.
    pub close: bool,
}

/// The head, once all of it is there.
pub fn head(bytes: &[u8]) -> Option<Head> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let (mut body, mut close) = (Body::Length(0), false);
    for line in bytes[..end - 4].split(|byte| *byte == b'\n').skip(1) {
        // Envoy writes names in lower case, Node does not; only these few matter.
        if let Some(value) = field(line, b"content-length:") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            body = Body::Length(text.trim().parse().unwrap_or(0));
        } else if field(line, b"transfer-encoding:").is_some() {
            body = Body::Chunked;
        } else if let Some(value) = field(line, b"connection:") {
            close = value.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }
    Some(Head { end, body, close })
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = line.get(..name.len())?;
    start.eq_ignore_ascii_case(name).then(|| &line[name.len()..])
}

/// Where a chunked body has been read to.
#[derive(Clone, Copy, Default)]
pub struct Chunks {
    /// Bytes of the buffer that are done with.
    pub at: usize,
    /// Whether the last chunk has come: trailers follow.
    last: bool,
}

impl Chunks {
    /// Starts at a position of the buffer.
    pub fn from(at: usize) -> Self {
        Self { at, last: false }
    }

    /// Goes on as far as it can; true at the end of the body, and `at` is then the first byte after it.
    pub fn advance(&mut self, bytes: &[u8]) -> bool {
        while let Some(length) = find(&bytes[self.at..], b"\r\n") {
            let line = &bytes[self.at..self.at + length];
            if self.last {
                self.at += length + 2;
                if line.is_empty() {
                    return true;
                }
                continue;
            }
            let text = std::str::from_utf8(line).unwrap_or_default();
            let size = usize::from_str_radix(text.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
            if size == 0 {
                self.last = true;
                self.at += length + 2;
            } else if bytes.len() >= self.at + length + 2 + size + 2 {
                self.at += length + 2 + size + 2;
            } else {
                return false;
            }
        }
        false
    }
}

/// Where a short needle begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
