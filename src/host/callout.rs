//! Calls to facilitators, and telling their answers from Envoy's own.

use std::time::Duration;

use super::abi::{self, Buffer, Failed, Map};
use crate::config::Facilitator;
use crate::gate::{Call, CalloutReply, CalloutToken, Endpoint};
use crate::x402::facilitator::{MAX_ANSWER, is_answer};

/// Present on answers that came over the wire, absent from those that Envoy made up in the place of whoever was asked.
pub(super) const FROM_UPSTREAM: &str = "x-envoy-upstream-service-time";

/// Envoy's words, in the body of its own 503, for a connection that was never made: nothing can have been sent over it.
const NEVER_CONNECTED: [&[u8]; 4] = [
    b"delayed connect error",
    b"remote connection failure",
    b"reset reason: connection failure",
    b"reset reason: connection timeout",
];

/// Sends a call, in the name of the context that is active. `Err`: nothing was sent and nothing will arrive.
pub(super) fn send(facilitator: &Facilitator, call: &Call) -> Result<CalloutToken, Failed> {
    let path = format!("{}{}", facilitator.path_prefix, call.endpoint.path());
    let mut headers = vec![
        (":method", call.endpoint.method()),
        (":scheme", facilitator.scheme),
        (":authority", &facilitator.authority),
        (":path", &path),
        ("accept", "application/json"),
        // From 1.37 on a retry policy of the cluster applies to callouts too. A settlement that Envoy repeats behind our back has an
        // answer that means something else: "nonce used" by itself, "refused" after a first attempt that moved the money.
        ("x-envoy-max-retries", "0"),
    ];
    let body = (!call.body.is_empty()).then_some(&*call.body);
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    if let Some(intent) = &call.intent {
        headers.push(("x-x402-intent", intent));
    }
    headers.extend(facilitator.headers.iter().map(|(name, value)| (&**name, value.expose())));
    // Envoy does not send a call with a timeout below a millisecond.
    let timeout = Duration::from_millis(u64::from(call.timeout_ms.max(1)));
    abi::call(&facilitator.cluster, headers, body, timeout).map(CalloutToken)
}

/// An answer that has arrived, read from the host.
pub(super) struct Arrived {
    outcome: Outcome,
    body: Vec<u8>,
}

enum Outcome {
    Answered(u16),
    NotSent,
    Lost,
}

impl Arrived {
    /// Reads the answer of the callout whose callback is running. `num_headers` is 0 where it was reset in mid-body.
    pub(super) fn read(num_headers: usize) -> Self {
        let status = match num_headers {
            0 => None,
            _ => abi::header(Map::CallResponse, ":status"),
        };
        let status = status.and_then(|status| std::str::from_utf8(&status).ok()?.parse::<u16>().ok());
        // One byte more than is ever looked at, so that what is too long is seen to be.
        let body = abi::buffer(Buffer::CallResponseBody, MAX_ANSWER.saturating_add(1));
        let made_up = || abi::header(Map::CallResponse, FROM_UPSTREAM).is_none();
        let outcome = match status {
            None => Outcome::Lost,
            Some(status @ (503 | 504)) if made_up() => match status == 503 && contains_any(&body, &NEVER_CONNECTED) {
                true => Outcome::NotSent,
                false => Outcome::Lost,
            },
            Some(status) => Outcome::Answered(status),
        };
        Self { outcome, body }
    }

    /// Whether whoever was asked is to blame for there being no verdict and no outcome.
    pub(super) fn has_failed(&self, endpoint: Endpoint) -> bool {
        match (&self.outcome, endpoint) {
            (Outcome::Answered(status), Endpoint::Reserve) => *status != 200,
            (Outcome::Answered(status), Endpoint::Capture | Endpoint::Report) => !matches!(status, 200 | 404 | 409),
            (Outcome::Answered(status), _) => !is_answer(*status, &self.body),
            _ => true,
        }
    }

    pub(super) fn reply(&self) -> CalloutReply<'_> {
        match self.outcome {
            Outcome::Answered(status) => CalloutReply::Answered { status, body: &self.body },
            Outcome::NotSent => CalloutReply::NotSent,
            Outcome::Lost => CalloutReply::Lost,
        }
    }
}

fn contains_any(text: &[u8], parts: &[&[u8]]) -> bool {
    parts.iter().any(|part| text.windows(part.len()).any(|window| window == *part))
}
