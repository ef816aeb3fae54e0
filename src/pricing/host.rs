//! Hosts: exact names, and names under a domain.

/// A host condition: `api.example.com`, or `*.example.com` for any name under it. Compared without case, port and final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// This name.
    Exact(Box<[u8]>),
    /// Any name that ends so; begins with a dot.
    Under(Box<[u8]>),
}

impl Host {
    /// Reads a pattern; `None` if it is neither a host name nor `*.` and one.
    pub(crate) fn parse(pattern: &str) -> Option<Self> {
        let lower = pattern.to_ascii_lowercase();
        let (under, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let fits = match bracketed {
            Some(address) => !under && !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.'),
            None => name
                .split('.')
                .all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')),
        };
        if !fits || name.len() > 253 {
            return None;
        }
        Some(if under {
            Self::Under(format!(".{name}").into_bytes().into())
        } else {
            Self::Exact(name.as_bytes().into())
        })
    }

    /// Whether an `:authority` is of this host.
    pub(crate) fn matches(&self, authority: &[u8]) -> bool {
        let host = host_of(authority);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Under(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|before| *before > 0)
                .and_then(|before| host.get(before..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        }
    }

    /// Whether every host of the other is one of this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Under(suffix), Self::Under(inner)) => inner.ends_with(suffix),
            (Self::Exact(_), Self::Under(_)) => false,
            (_, Self::Exact(name)) => self.matches(name),
        }
    }
}

/// The host of an authority: without userinfo, port and final dot.
fn host_of(authority: &[u8]) -> &[u8] {
    let authority = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
    let host = if authority.first() == Some(&b'[') {
        match authority.iter().position(|byte| *byte == b']') {
            Some(end) => authority.get(..=end).unwrap_or_default(),
            None => authority,
        }
    } else {
        authority.split(|byte| *byte == b':').next().unwrap_or_default()
    };
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_case_and_final_dot_do_not_matter() {
        let host = Host::parse("API.example.com").unwrap();
        for authority in [
            "api.example.com",
            "Api.Example.Com:8443",
            "api.example.com.",
            "api.example.com.:80",
            "u@api.example.com",
        ] {
            assert!(host.matches(authority.as_bytes()), "{authority}");
        }
        for authority in ["example.com", "xapi.example.com", "api.example.com.evil", "", "\u{e9}"] {
            assert!(!host.matches(authority.as_bytes()), "{authority}");
        }
        assert!(Host::parse("[::1]").unwrap().matches(b"[::1]:80"));
    }

    #[test]
    fn a_wildcard_is_for_names_under_the_domain() {
        let host = Host::parse("*.example.com").unwrap();
        assert!(host.matches(b"a.b.example.com:1"));
        assert!(!host.matches(b"example.com"));
        assert!(!host.matches(b".example.com"));
        assert!(host.covers(&Host::parse("*.a.example.com").unwrap()));
        assert!(!Host::parse("a.example.com").unwrap().covers(&host));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for pattern in ["", "*", "*.", "a b", "a..b", "http://a", "a:80", "a*.b", "*.[::1]"] {
            assert!(Host::parse(pattern).is_none(), "{pattern}");
        }
    }
}
