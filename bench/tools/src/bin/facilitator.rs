//! A facilitator that says yes: /verify, /settle and /supported, anything else is a plain 200 (what ext_authz asks).
//!
//!     facilitator --port 8001 [--delay-ms 0] [--supported FILE]
//!
//! GET /calls tells how often each was asked. `delay-ms` is for /verify and /settle.

use std::time::Duration;
use x402_bench_tools::arguments::Arguments;
use x402_bench_tools::message::find;
use x402_bench_tools::server::{json, serve};

fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let delay = Duration::from_millis(arguments.number("delay-ms", 0));
    let supported = arguments.text("supported").map(std::fs::read_to_string).transpose()?;
    let supported = supported.unwrap_or_else(|| r#"{"kinds":[],"extensions":[],"signers":{}}"#.into());
    let (mut verify, mut settle, mut plain) = (0_u64, 0_u64, 0_u64);
    serve(arguments.number("port", 8001) as u16, |request| {
        let path = request.line.split(' ').nth(1).unwrap_or_default();
        if path.ends_with("/verify") {
            verify += 1;
            json(&format!(r#"{{"isValid":true,"payer":"{}"}}"#, payer(request.body)), delay)
        } else if path.ends_with("/settle") {
            settle += 1;
            let text = format!(
                r#"{{"success":true,"payer":"{}","transaction":"0x{settle:064x}","network":"{}"{}}}"#,
                payer(request.body),
                text(request.body, b"\"network\":\"").unwrap_or("eip155:8453"),
                // What an `upto` payment settled at is what it was asked to settle at.
                text(request.body, b"\"amount\":\"")
                    .map(|amount| format!(r#","amount":"{amount}""#))
                    .unwrap_or_default(),
            );
            json(&text, delay)
        } else if path.ends_with("/supported") {
            json(&supported, Duration::ZERO)
        } else if path == "/calls" {
            json(
                &format!(r#"{{"verify":{verify},"settle":{settle},"plain":{plain}}}"#),
                Duration::ZERO,
            )
        } else {
            plain += 1;
            json("{}", Duration::ZERO)
        }
    })
}

/// The account that pays: both forms of an authorization name it `from`.
fn payer(body: &[u8]) -> &str {
    text(body, b"\"from\":\"").unwrap_or_default()
}

fn text<'a>(body: &'a [u8], before: &[u8]) -> Option<&'a str> {
    let start = find(body, before)? + before.len();
    let length = find(&body[start..], b"\"")?;
    std::str::from_utf8(&body[start..start + length]).ok()
}
