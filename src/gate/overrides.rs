//! `Settlement-Overrides`: the backend's own word on what is to be charged. Source: PROTOCOL, after the official servers' `upto`.

use serde_json::Value;

use crate::pricing::{Atomic, Decimal, Offer, Scheme};

/// The header, in lower case. It never reaches a client.
pub(super) const HEADER: &str = "settlement-overrides";

/// What the backend said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// This amount, which may be more than the quote.
    Amount(Atomic),
    /// Something that cannot be followed: it is not readable, or the payment is not `upto`.
    Ignored,
}

/// Reads the header: `{"amount": "1234"}` in the smallest unit, `{"amount": "50%"}` of the quote, `{"amount": "$0.05"}` for tokens
/// that are dollars. Fractions of a unit are rounded up.
#[inline(never)] // twice as large otherwise
pub(super) fn told(headers: &[(&[u8], &[u8])], offer: &Offer) -> Told {
    let mut values = headers
        .iter()
        .filter(|(name, _)| *name == HEADER.as_bytes())
        .map(|(_, value)| *value);
    match (values.next(), values.next()) {
        (None, _) => Told::Nothing,
        (Some(value), None) if offer.scheme == Scheme::Upto => amount(value, offer).map_or(Told::Ignored, Told::Amount),
        _ => Told::Ignored,
    }
}

fn amount(value: &[u8], offer: &Offer) -> Option<Atomic> {
    let value: Value = serde_json::from_slice(value).ok()?;
    let text = value.get("amount")?.as_str()?;
    if let Some(percent) = text.strip_suffix('%') {
        let percent = Decimal::parse_from_zero(percent, false).ok()?;
        let whole = 10u128.checked_pow(percent.scale().checked_add(2)?)?;
        return Some(Atomic(offer.amount.0.checked_mul(percent.mantissa())?.div_ceil(whole)));
    }
    if text.starts_with('$') {
        let in_dollars = &*offer.asset.currency == "usd";
        let dollars = Decimal::parse_from_zero(text, true).ok().filter(|_| in_dollars)?;
        return dollars.to_atomic(offer.asset.decimals).ok();
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().map(Atomic).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use serde_json::json;

    fn offer(scheme: &str) -> Offer {
        let config = json!({
            "pay_to": {"eip155": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"},
            "accept": [{"scheme": scheme, "network": "eip155:84532", "asset": "USDC"}],
            "facilitators": [{"cluster": "f", "url": "http://f"}],
            "unmatched": "deny",
            "routes": [{"name": "a", "match": {"path": "/a"}, "price": {"per_request": "$0.000999"}}],
        });
        let config = parse(config.to_string().as_bytes()).unwrap();
        config.routes.by_index(0).unwrap().offers[0].clone()
    }

    fn said(value: &str, scheme: &str) -> Told {
        told(&[(b"x", b"y"), (HEADER.as_bytes(), value.as_bytes())], &offer(scheme))
    }

    #[test]
    fn amounts_are_units_percent_or_dollars() {
        for (text, amount) in [
            ("1234", 1234),
            ("0", 0),
            ("50%", 500),
            ("0%", 0),
            ("0.1%", 1),
            ("200%", 1998),
            ("$0.0005", 500),
            ("$0.0000001", 1),
            ("$0", 0),
        ] {
            let said = said(&format!("{{\"amount\":\"{text}\"}}"), "upto");
            assert_eq!(said, Told::Amount(Atomic(amount)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_ignored() {
        for text in [
            "",
            "-1",
            "1.5",
            "+1",
            "1e3",
            "%",
            "$",
            "5 %",
            "€1",
            "99999999999999999999999999999999999999999",
        ] {
            assert_eq!(said(&format!("{{\"amount\":\"{text}\"}}"), "upto"), Told::Ignored, "{text}");
        }
        for value in ["", "1234", "{}", "[]", "{\"amount\":1234}", "\u{e9}", "{\"amount\":\"1\"} x"] {
            assert_eq!(said(value, "upto"), Told::Ignored, "{value}");
        }
        assert_eq!(said("{\"amount\":\"1\"}", "exact"), Told::Ignored);
        let twice: [(&[u8], &[u8]); 2] = [(HEADER.as_bytes(), b"{\"amount\":\"1\"}"); 2];
        assert_eq!(told(&twice, &offer("upto")), Told::Ignored);
        assert_eq!(told(&[], &offer("upto")), Told::Nothing);
    }
}
