//! Requests that need not pay by themselves: API keys that the backend checks, dummy keys, and bypass headers.

use crate::config::Access;

/// The header in which keys travel where the configuration names none.
const AUTHORIZATION: &str = "authorization";

/// What a request's key says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// There is none.
    Absent,
    /// It means nothing (`access.dummy_api_keys`) and is removed before the backend sees it.
    Dummy,
    /// The backend will know what it means.
    Real,
}

/// The name of the header in which keys travel.
pub(super) fn header(access: &Access) -> &str {
    let credits = access.credits.as_ref().map(|credits| &*credits.header);
    access.api_keys_header.as_deref().or(credits).unwrap_or(AUTHORIZATION)
}

/// Looks at every copy of the key header: one real key among dummies is a real key.
pub(super) fn key(access: &Access, headers: &[(&[u8], &[u8])]) -> Key {
    let mut found = Key::Absent;
    for (_, value) in headers.iter().filter(|(name, _)| *name == header(access).as_bytes()) {
        let token = bearer(value.trim_ascii());
        if token.is_empty() {
            continue;
        }
        if !access.dummy_api_keys.iter().any(|dummy| dummy.as_bytes() == token) {
            return Key::Real;
        }
        found = Key::Dummy;
    }
    found
}

/// The key of a request that has a real one: the first.
pub(super) fn real<'h>(access: &Access, headers: &[(&'h [u8], &'h [u8])]) -> Option<&'h [u8]> {
    let sent = headers.iter().filter(|(name, _)| *name == header(access).as_bytes());
    let mut tokens = sent.map(|(_, value)| bearer(value.trim_ascii()));
    tokens.find(|token| !token.is_empty() && !access.dummy_api_keys.iter().any(|dummy| dummy.as_bytes() == *token))
}

/// Whether a bypass header excuses this request. A header that was sent twice excuses nobody: the backend may see the other one.
pub(super) fn bypassed(access: &Access, headers: &[(&[u8], &[u8])]) -> bool {
    access.bypass.iter().any(|bypass| {
        let mut values = headers.iter().filter(|(name, _)| *name == bypass.header.as_bytes());
        matches!((values.next(), values.next()), (Some((_, value)), None) if bypass.value.matches(value))
    })
}

/// The token behind `Bearer`, or the whole value where there is none.
fn bearer(value: &[u8]) -> &[u8] {
    match value.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer") && rest.first().is_none_or(u8::is_ascii_whitespace) => {
            rest.trim_ascii()
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            dummy_api_keys: vec!["x402".into()],
            ..Access::default()
        }
    }

    #[test]
    fn a_dummy_key_is_told_from_a_real_one() {
        let key = |value: &'static [u8]| super::key(&access(), &[(b"authorization", value)]);
        assert_eq!(key(b"Bearer x402"), Key::Dummy);
        assert_eq!(key(b"bearer  x402 "), Key::Dummy);
        assert_eq!(key(b"x402"), Key::Dummy);
        assert_eq!(key(b"Bearer sk-1"), Key::Real);
        assert_eq!(key(b"Bearer \xff\xfe"), Key::Real);
        assert_eq!(key(b"Bearer "), Key::Absent);
        assert_eq!(key(b"bearer"), Key::Absent);
        assert_eq!(key(b"bearers"), Key::Real);
        assert_eq!(key(b""), Key::Absent);
        assert_eq!(super::key(&access(), &[]), Key::Absent);
    }

    #[test]
    fn one_real_key_among_dummies_is_real() {
        let headers: [(&[u8], &[u8]); 2] = [(b"authorization", b"Bearer x402"), (b"authorization", b"Bearer sk-1")];
        assert_eq!(super::key(&access(), &headers), Key::Real);
    }
}
