//! What a gate asks of its host.

use std::rc::Rc;

use super::Gate;
use super::credit::Capture;
use super::edits::Edits;
use super::settlement::Settlement;
use super::verifying::Dispatch;
use crate::metering::Place;
use crate::x402::Answer;

/// A callout that was sent: the number under which its answer will arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CalloutToken(pub u32);

/// What is asked of a facilitator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// `POST /verify`
    Verify,
    /// `POST /settle`
    Settle,
    /// `GET /supported`
    Supported,
    /// `POST /internal/v1/reserve`, of the ledger
    Reserve,
    /// `POST /internal/v1/capture`, of the ledger
    Capture,
    /// `POST /report`, of the ledger where it stands before a facilitator
    Report,
}

impl Endpoint {
    /// The path, below the facilitator's URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Verify => "/verify",
            Self::Settle => "/settle",
            Self::Supported => "/supported",
            Self::Reserve => "/internal/v1/reserve",
            Self::Capture => "/internal/v1/capture",
            Self::Report => "/report",
        }
    }

    /// The HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Verify | Self::Settle | Self::Reserve | Self::Capture | Self::Report => "POST",
            Self::Supported => "GET",
        }
    }
}

/// A call to a facilitator, ready to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Index into the configuration's facilitators; of the ledger, [`crate::config::Config::ledger_index`].
    pub facilitator: usize,
    /// What is asked.
    pub endpoint: Endpoint,
    /// JSON; empty for a GET.
    pub body: Vec<u8>,
    /// How long the answer may take, in milliseconds.
    pub timeout_ms: u32,
    /// The name under which the claim is held, where the replicas share it: see [`Config::shared_claims`](crate::config::Config::shared_claims).
    pub intent: Option<String>,
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CalloutReply<'a> {
    /// The facilitator answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// The whole body, or as much of it as is ever looked at.
        body: &'a [u8],
    },
    /// The facilitator certainly did not get the request: no such cluster, no healthy endpoint, connection refused.
    NotSent,
    /// No answer, and no telling what the facilitator did: timeout or reset.
    Lost,
}

/// What the host does with a request.
#[must_use]
pub enum RequestEffect {
    /// Let it go on, with these changes to its headers.
    Forward(Edits),
    /// Answer it in the backend's place. Shared: a challenge that was made once is sent many times.
    Answer(Rc<Answer>),
    /// Pause it and send the call; or let it go on once the call is sent, if [`Waiting::sent`](super::Waiting::sent) says so.
    Verify(Box<Dispatch>),
    /// Pause it and hand this to the root context.
    Settle(Box<Settlement>),
}

/// What the host does when a payment has been verified.
#[must_use]
pub enum VerifiedEffect {
    /// Nothing: the request went on before, and its answer has not come.
    Nothing,
    /// This, with the request that was held back; or, if it was not, an answer in the backend's place.
    Request(RequestEffect),
    /// This, with the answer that was held back.
    Response(ResponseEffect),
}

/// What is still to be done when a stream has ended.
#[must_use]
pub enum Owed {
    /// A metered answer has to be settled.
    Settlement(Box<Settlement>),
    /// The ledger has to hear what is due.
    Capture(Capture),
}

/// What the host does with a request, or an answer, that waited for its settlement.
#[must_use]
pub enum Released {
    /// Let the request go on, with these changes to its headers, and with this gate.
    Forward(Edits, Box<Gate>),
    /// Let the answer go on, with these changes to its headers, and with this gate.
    Edit(Edits, Box<Gate>),
    /// Answer in the backend's place; no byte of its answer leaves.
    Answer(Answer),
    /// It was delivered already, but for its end.
    End(EndEffect),
    /// Nothing yet: send it again after so many milliseconds, whether or not the client waits.
    Again(Box<Settlement>, u64),
}

/// What the host does with the end of a metered answer.
#[must_use]
pub enum EndEffect {
    /// Let it end, with these words if there are any.
    Finish(Option<LastWords>),
    /// Let it not end: the client must see that something is missing.
    Break,
}

/// A receipt that comes after the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastWords {
    /// Name of the trailer, in lower case.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The same as the last comment of a stream of events; `None` if the answer is none.
    pub comment: Option<String>,
}

impl LastWords {
    pub(super) fn of(receipt: Option<(&'static str, String)>, place: Option<Place>) -> Option<Self> {
        receipt.map(|(name, value)| Self {
            name,
            comment: place.map(|place| comment(place, name, &value)),
            value,
        })
    }
}

/// A comment on a line of its own. It ends no event that the backend has not ended.
fn comment(place: Place, name: &str, value: &str) -> String {
    let (before, after) = match place {
        Place::Between => ("", "\n"),
        Place::LineStart => ("", ""),
        Place::Line => ("\n", ""),
    };
    format!("{before}: {name} {value}\n{after}")
}

/// What the host does with a part of an answer's body.
#[must_use]
pub struct BodyEffect {
    /// What passes in place of these bytes; `None`: they do.
    pub bytes: Option<Vec<u8>>,
    /// And then.
    pub next: Next,
}

/// A part of a body that has to be shown to [`Gate::on_response_body`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unread;

/// What comes after a part of a body.
#[must_use]
pub enum Next {
    /// The next part.
    Go,
    /// Hold the end back and hand this to the root context.
    Settle(Box<Settlement>),
    /// The end, at once.
    End(EndEffect),
}

/// What the host does with an answer's headers.
#[must_use]
pub enum ResponseEffect {
    /// Let them go on as they are.
    Pass,
    /// Let them go on, with these changes.
    Edit(Edits),
    /// Answer in the backend's place; no byte of its answer leaves.
    Answer(Answer),
    /// Pause and hand this to the root context.
    Settle(Box<Settlement>),
    /// Pause: the payment is being verified.
    Wait,
}
