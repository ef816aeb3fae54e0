//! Replies, as the host reads them.

use std::fmt;

use serde_json::Value;
use x402_envoy::gate::CalloutReply;

use super::super::chain::Told;

/// A reply as the host reads it, and what it means.
#[derive(Clone)]
pub struct Reply {
    pub body: Body,
    /// /verify: the payment was said to be good.
    pub valid: bool,
    /// /settle.
    pub told: Option<Told>,
    /// It names the transaction of the attempt.
    pub names: bool,
    /// It says that the transaction of this attempt was reverted.
    pub reverted: Option<usize>,
}

#[derive(Clone)]
pub enum Body {
    Answered(u16, String),
    NotSent,
    Lost,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Answered(status, body) => write!(f, "{status} {body}"),
            Body::NotSent => f.write_str("not sent"),
            Body::Lost => f.write_str("lost"),
        }
    }
}

impl Reply {
    pub fn new(body: Body, told: Told) -> Self {
        Self {
            body,
            valid: false,
            told: Some(told),
            names: false,
            reverted: None,
        }
    }

    pub fn not_sent() -> Self {
        Self::new(Body::NotSent, Told::NotSent)
    }

    pub fn lost() -> Self {
        Self::new(Body::Lost, Told::Unknown)
    }

    pub fn json(status: u16, body: &Value, told: Told) -> Self {
        Self::new(Body::Answered(status, body.to_string()), told)
    }

    pub fn read(&self) -> CalloutReply<'_> {
        match &self.body {
            Body::Answered(status, body) => CalloutReply::Answered {
                status: *status,
                body: body.as_bytes(),
            },
            Body::NotSent => CalloutReply::NotSent,
            Body::Lost => CalloutReply::Lost,
        }
    }
}
