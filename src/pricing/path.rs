//! Paths: one normal form for comparing, and every reading of those that have more than one.
//!
//! A backend that reads a path differently from the filter would serve a priced answer free. So what cannot be read in
//! one way only is reported as ambiguous, with the readings that servers in use are known to make.

use std::borrow::Cow;

use super::readings::of;

/// A path in normal form: decoded once, without `.` and `..`, repeated and trailing slashes, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal<'a> {
    /// The normal form, case kept: bytes, because a decoded path need not be UTF-8. Starts with `/`, or is `*` alone.
    pub path: Cow<'a, [u8]>,
    /// Whether servers differ in how they read it.
    pub ambiguity: Ambiguity,
}

/// Whether a path can be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// It cannot.
    None,
    /// It starts with two slashes: some servers take the first segment for a host (`new URL(path, base)`).
    NetworkPath,
    /// It holds an encoded slash, a backslash, NUL or another control character, a bad escape, a `%` left after one decoding,
    /// `;`, `#`, an encoded `?`, or a segment that ends in a space.
    Open,
}

impl Normal<'_> {
    /// Whether servers differ in how they read the path.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguity != Ambiguity::None
    }
}

/// Brings a raw `:path` into normal form. Borrows where nothing has to change.
pub fn normalise(raw: &[u8]) -> Normal<'_> {
    let raw = without_query(origin_form(raw));
    if raw == b"*" || is_plain(raw) {
        return Normal {
            path: Cow::Borrowed(raw),
            ambiguity: Ambiguity::None,
        };
    }
    let ambiguity = if is_open(raw) {
        Ambiguity::Open
    } else if raw.starts_with(b"//") {
        Ambiguity::NetworkPath
    } else {
        Ambiguity::None
    };
    Normal {
        path: Cow::Owned(resolve(&decode(before_fragment(raw)))),
        ambiguity,
    }
}

/// Every way in which servers may read an ambiguous `:path`, each in normal form, the normal reading first.
pub fn readings(raw: &[u8]) -> Vec<Vec<u8>> {
    of(without_query(origin_form(raw)))
}

/// The normal path as a URL's path: what is neither unreserved, nor a sub-delimiter, nor `:`, `@` or `/`, is encoded.
///
/// Case is kept, and the query is left out: this is what `resource.url` ends in.
pub fn resource_path(raw: &[u8]) -> String {
    let normal = normalise(raw);
    let is_literal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(byte);
    if let Ok(text) = core::str::from_utf8(&normal.path)
        && normal.path.iter().all(is_literal)
    {
        return text.to_owned();
    }
    let mut out = String::with_capacity(normal.path.len());
    for byte in normal.path.iter().copied() {
        if is_literal(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    out
}

/// A path or pattern as it is compared where case does not matter: Unicode's case folding where it is UTF-8.
pub(crate) fn fold(path: &[u8]) -> Cow<'_, [u8]> {
    if path.is_ascii() {
        if !path.iter().any(u8::is_ascii_uppercase) {
            return Cow::Borrowed(path);
        }
        return Cow::Owned(path.to_ascii_lowercase());
    }
    match core::str::from_utf8(path) {
        Ok(text) => Cow::Owned(text.to_uppercase().to_lowercase().into_bytes()),
        Err(_) => Cow::Owned(path.to_ascii_lowercase()),
    }
}

/// What is left of an absolute-form target (`http://host/path`) after its origin; other targets as they are.
fn origin_form(raw: &[u8]) -> &[u8] {
    if raw.first() == Some(&b'/') {
        return raw;
    }
    let scheme_end = raw.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte));
    let Some(after) = scheme_end
        .filter(|end| *end > 0)
        .and_then(|end| raw.get(end..))
        .and_then(|rest| rest.strip_prefix(b"://"))
    else {
        return raw;
    };
    match after.iter().position(|byte| b"/?#".contains(byte)) {
        Some(at) => after.get(at..).unwrap_or_default(),
        None => b"/",
    }
}

/// What comes before the query.
pub(crate) fn without_query(raw: &[u8]) -> &[u8] {
    raw.split(|byte| *byte == b'?').next().unwrap_or_default()
}

fn before_fragment(raw: &[u8]) -> &[u8] {
    raw.split(|byte| *byte == b'#').next().unwrap_or_default()
}

/// Whether a path is in normal form already.
fn is_plain(raw: &[u8]) -> bool {
    let Some(b'/') = raw.first() else { return false };
    if raw == b"/" {
        return true;
    }
    let mut segments = raw.split(|byte| *byte == b'/').skip(1);
    segments.all(|segment| {
        !segment.is_empty()
            && segment != b"."
            && segment != b".."
            && !segment.iter().any(|byte| b"%\\;# ".contains(byte) || byte.is_ascii_control())
    })
}

/// Whether a raw path (without its query) holds what servers read differently. See [`Ambiguity::Open`].
fn is_open(raw: &[u8]) -> bool {
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'\\' | b';' | b'#' => return true,
            byte if byte.is_ascii_control() => return true,
            b' ' if ends_segment(after) => return true,
            b'%' => match escape(after) {
                None | Some(b'/' | b'\\' | b';' | b'#' | b'?' | b'%') => return true,
                Some(decoded) if decoded.is_ascii_control() => return true,
                Some(b' ') if ends_segment(after.get(2..).unwrap_or_default()) => return true,
                Some(_) => rest = after.get(2..).unwrap_or_default(),
            },
            _ => {}
        }
    }
    false
}

fn ends_segment(after: &[u8]) -> bool {
    after.first().is_none_or(|byte| *byte == b'/')
}

/// The byte that the two hexadecimal digits after a `%` stand for.
pub(super) fn escape(after: &[u8]) -> Option<u8> {
    let [high, low, ..] = after else { return None };
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(nibble(*high)? << 4 | nibble(*low)?).ok()
}

/// Decodes percent-escapes once; bad ones stay as they are.
pub(super) fn decode(raw: &[u8]) -> Vec<u8> {
    decode_except(raw, |_| false)
}

/// Decodes percent-escapes once, but for those of bytes that are to be `kept`.
pub(super) fn decode_except(raw: &[u8], kept: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match escape(after).filter(|decoded| *byte == b'%' && !kept(*decoded)) {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => out.push(*byte),
        }
    }
    out
}

/// Resolves `.` and `..`, collapses slashes and takes the trailing one off.
pub(super) fn resolve(decoded: &[u8]) -> Vec<u8> {
    if decoded == b"*" {
        return decoded.to_vec();
    }
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len().saturating_add(1));
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(raw: &str) -> (String, Ambiguity) {
        let normal = normalise(raw.as_bytes());
        (String::from_utf8_lossy(&normal.path).into_owned(), normal.ambiguity)
    }

    #[test]
    fn one_form_for_what_means_the_same() {
        for (raw, path) in [
            ("/", "/"),
            ("", "/"),
            ("/v1/x", "/v1/x"),
            ("/v1/x?a=/../b", "/v1/x"),
            ("/v1//x", "/v1/x"),
            ("/v1/x/", "/v1/x"),
            ("/v1/./x/../y", "/v1/y"),
            ("/../../x", "/x"),
            ("/v1/%2e%2E/x", "/x"),
            ("/%76%31/x", "/v1/x"),
            ("/caf%C3%A9", "/café"),
            ("http://host:80/v1/x?q", "/v1/x"),
            ("HTTPS://host", "/"),
            ("http://host?q", "/"),
            ("*", "*"),
            ("v1/x", "/v1/x"),
            ("/a+b", "/a+b"),
        ] {
            assert_eq!(normal(raw), (path.to_owned(), Ambiguity::None), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_ambiguous() {
        for raw in [
            "/a%2fb", "/a%2Fb", "/a\\b", "/a%5cb", "/a%00", "/a\0", "/a%", "/a%4", "/a%zz", "/a%2561", "/a;b", "/a%3bb", "/a#b", "/a%23b",
            "/a%3Fb",
        ] {
            assert_eq!(normal(raw).1, Ambiguity::Open, "{raw}");
        }
        assert_eq!(normal("//v1/x"), ("/v1/x".to_owned(), Ambiguity::NetworkPath));
    }

    #[test]
    fn nothing_is_allocated_for_a_plain_path() {
        for raw in ["/", "/v1/x", "/v1/x?y", "*", "/.well-known/x", "/a..b"] {
            assert!(matches!(normalise(raw.as_bytes()).path, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn a_resource_path_is_encoded_and_keeps_its_case() {
        assert_eq!(resource_path(b"/V1/caf%c3%a9/%20x?q=1"), "/V1/caf%C3%A9/%20x");
        assert_eq!(resource_path(b"/a\xff\r\n"), "/a%FF%0D%0A");
        assert_eq!(resource_path(b"http://h/x/"), "/x");
    }

    #[test]
    fn folding_knows_more_than_ascii() {
        assert_eq!(&*fold("/É".as_bytes()), "/é".as_bytes());
        assert_eq!(&*fold("/\u{212a}ey".as_bytes()), b"/key");
        assert_eq!(&*fold(b"/A\xff"), b"/a\xff");
    }

    proptest! {
        #[test]
        fn idempotent_on_its_own_output(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let once = normalise(&raw);
            let encoded = resource_path(&raw);
            if once.ambiguity != Ambiguity::Open {
                let again = normalise(encoded.as_bytes());
                prop_assert_eq!(&again.path, &once.path);
                prop_assert_eq!(again.ambiguity, Ambiguity::None);
                prop_assert_eq!(resource_path(encoded.as_bytes()), encoded);
            }
        }

        #[test]
        fn idempotent_on_path_like_input(raw in "(/|\\.|\\.\\.|%2e|%2E|%41|a|b|\\*|\\?){0,12}") {
            let once = normalise(raw.as_bytes());
            let encoded = resource_path(raw.as_bytes());
            prop_assert_eq!(normalise(encoded.as_bytes()).path, once.path);
        }

        #[test]
        fn the_normal_form_is_the_first_reading(raw in "[/.;a%25#\\\\]{0,20}") {
            let first = readings(raw.as_bytes()).into_iter().next().unwrap();
            prop_assert_eq!(&first[..], &*normalise(raw.as_bytes()).path);
        }
    }
}
