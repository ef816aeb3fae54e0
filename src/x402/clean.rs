//! Text from facilitators and clients, made fit for a header, a page or a log line.

/// The longest text that is passed on, in bytes.
pub const MAX_CLEAN: usize = 200;

/// Printable ASCII of at most [`MAX_CLEAN`] bytes, without URLs, IP addresses and long hexadecimal numbers, which may be signatures.
///
/// Facilitators send pages of text with their RPC provider's address, key included, in it. White space is collapsed to single blanks.
///
/// ```
/// use x402_envoy::x402::clean;
/// assert_eq!(clean("failed:\r\n  https://rpc.example/v2/SECRET at 10.0.0.7:8545"), "failed: (url) at (address)");
/// ```
pub fn clean(text: &str) -> String {
    let mut out = String::new();
    // What is looked at is bounded before anything is done for it.
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .take(MAX_CLEAN)
    {
        let word = if is_url(word) {
            "(url)".to_owned()
        } else if is_secret(word) {
            "(hex)".to_owned()
        } else if is_address(word) {
            "(address)".to_owned()
        } else {
            word.chars()
                .take(MAX_CLEAN)
                .map(|c| if c.is_ascii_graphic() { c } else { '?' })
                .collect()
        };
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
        if out.len() >= MAX_CLEAN {
            break;
        }
    }
    out.truncate(MAX_CLEAN);
    out
}

fn is_url(word: &str) -> bool {
    let has_path = word.split_once('.').is_some_and(|(_, rest)| rest.contains('/'));
    has_path || word.contains("//") || word.to_ascii_lowercase().contains("www.")
}

/// Signatures, or halves of them, which nodes repeat with a call's arguments.
fn is_secret(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= 64)
}

/// Dotted quads, IPv6, and names with a port.
fn is_address(word: &str) -> bool {
    let has_quad = word
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .any(|run| run.split('.').filter(|part| !part.is_empty()).count() >= 4);
    let is_v6 = |part: &str| part.len() >= 2 && part.parse::<core::net::Ipv6Addr>().is_ok();
    let has_v6 = word.split(|c: char| !c.is_ascii_hexdigit() && c != ':').any(is_v6);
    let port = |text: &str| !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = word
        .split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | ':'))
        .any(|run| {
            run.rsplit_once(':')
                .is_some_and(|(host, rest)| port(rest) && (host.contains('.') || host == "localhost"))
        });
    has_quad || has_v6 || has_port
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reasons_pass_and_addresses_do_not() {
        assert_eq!(
            clean("invalid_exact_evm_insufficient_balance"),
            "invalid_exact_evm_insufficient_balance"
        );
        assert_eq!(
            clean(
                "URL:\u{a0}http://1.2.3.4:8545/key\nRequest body: {} (127.0.0.1) [::1]:80 rpc.internal:8545 localhost:1 v2.27.0 at 12:30"
            ),
            "URL: (url) Request body: {} (address) (address) (address) (address) v2.27.0 at 12:30"
        );
        assert_eq!(clean("rpc.example.com/v2/KEY"), "(url)");
        assert_eq!(clean(&format!("args: (0x{})", "ab".repeat(65))), "args: (hex)");
        assert_eq!(clean("a\r\nSet-Cookie: x=1\u{7f}é"), "a Set-Cookie: x=1 ?");
    }

    proptest! {
        #[test]
        fn is_always_short_printable_ascii(text in any::<String>(), more in "[ -~]{0,500}") {
            let cleaned = clean(&format!("{text}{more}"));
            prop_assert!(cleaned.len() <= MAX_CLEAN);
            prop_assert!(cleaned.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert!(!cleaned.contains("://"));
        }
    }
}
