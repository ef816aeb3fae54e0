//! Texts that end up in headers, and URLs.

/// An absolute http(s) URL, split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'u> {
    pub(super) scheme: &'static str,
    /// Host and port, as written but for a default port, which is left out.
    pub(super) authority: &'u str,
    /// Without a trailing slash; may be empty.
    pub(super) path: &'u str,
}

/// Splits an absolute http(s) URL without credentials, query and fragment.
pub(super) fn parse_url(text: &str) -> Option<Url<'_>> {
    let (scheme, default_port, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => ("https", ":443", rest),
        (_, Some(rest)) => ("http", ":80", rest),
        _ => return None,
    };
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#@\\\"<>`{}|^ ".contains(&byte);
    if text.len() > 1024 || !rest.bytes().all(fits) {
        return None;
    }
    let (authority, path) = match rest.find('/').and_then(|at| rest.split_at_checked(at)) {
        Some(parts) => parts,
        None => (rest, ""),
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    (port_fits && host_fits).then(|| Url {
        scheme,
        authority,
        path: path.trim_end_matches('/'),
    })
}

/// Whether a text is a header's name: HTTP's `token`, not a pseudo-header.
pub(super) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(is_token_byte)
}

/// Whether a text can be a header's value as it is: visible ASCII with spaces inside.
pub(super) fn is_header_value(value: &str) -> bool {
    value.len() <= 4096 && value.trim() == value && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// Whether a text is an HTTP method.
pub(super) fn is_method(method: &str) -> bool {
    !method.is_empty() && method.len() <= 32 && method.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let url = |scheme, authority, path| Some(Url { scheme, authority, path });
        assert_eq!(parse_url("https://x402.org/facilitator/"), url("https", "x402.org", "/facilitator"));
        assert_eq!(parse_url("http://127.0.0.1:4020"), url("http", "127.0.0.1:4020", ""));
        assert_eq!(parse_url("https://h:443/a/b"), url("https", "h", "/a/b"));
        assert_eq!(parse_url("http://[::1]"), url("http", "[::1]", ""));
        assert_eq!(parse_url("http://[::1]:8080/"), url("http", "[::1]:8080", ""));
    }

    #[test]
    fn other_texts_are_no_urls() {
        for text in [
            "",
            "x402.org",
            "ftp://h",
            "https://",
            "https:///x",
            "https://u:p@h",
            "https://h?x",
            "https://h/#",
            "https://h:0",
            "https://h:99999",
            "https://h\r\nX: y",
            "https://h/a b",
            "https://é",
        ] {
            assert_eq!(parse_url(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_can_split_a_header() {
        assert!(is_header_name("X-Api-Key"));
        assert!(!is_header_name(":authority"));
        assert!(!is_header_name("a b"));
        assert!(is_header_value("Bearer abc"));
        for value in ["a\r\nb", "a\0", "a\tb", " a", "é"] {
            assert!(!is_header_value(value), "{value}");
        }
    }
}
