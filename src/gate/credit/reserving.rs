//! Waiting for the ledger to reserve.

use super::super::Gate;
use super::super::answer::refuse;
use super::super::edits::Edits;
use super::super::effects::{CalloutReply, CalloutToken, RequestEffect, VerifiedEffect};
use super::super::env::{Env, Note};
use super::super::order::Order;
use super::super::redirect;
use super::super::request::Request;
use super::super::verifying::Dispatch;
use super::capture::Capture;
use super::wire::{Decision, decision};
use super::{Spending, Tab};
use crate::x402::Refusal;

/// What waits for a reservation that has yet to be asked for.
pub(in super::super) struct Asking {
    tab: Tab,
    /// What the request undergoes once it is reserved.
    edits: Edits,
}

impl Asking {
    /// Asks for the quote's maximum.
    pub(in super::super) fn begin(request: &Request<'_>, order: Order, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        let order = match Tab::open(order, env) {
            Some(tab) => match tab.reserve(request, env) {
                Some(call) => {
                    let asking = Box::new(Self { tab, edits });
                    return (Gate::Done, RequestEffect::Verify(Box::new(Dispatch::reserve(call, asking))));
                }
                None => tab.order,
            },
            // More than a ledger can count.
            None => {
                let answer = super::super::answer::refuse_plainly(env, Refusal::RouteConditionFailed, "it costs more than can be reserved");
                return (Gate::Answered, RequestEffect::Answer(answer));
            }
        };
        unavailable(&order, env)
    }

    /// The call was sent.
    pub(in super::super) fn sent(self, token: CalloutToken) -> Gate {
        let Self { tab, edits } = self;
        Gate::Reserving(Box::new(Reserving { token, tab, edits }))
    }

    /// It could not be sent: nothing is reserved.
    pub(in super::super) fn not_sent(&self, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        unavailable(&self.tab.order, env)
    }
}

/// A request that waits for its reservation.
pub struct Reserving {
    token: CalloutToken,
    tab: Tab,
    edits: Edits,
}

impl Reserving {
    pub(in super::super) fn waits_for(&self, token: CalloutToken) -> bool {
        self.token == token
    }

    /// The ledger answered, or the call failed.
    pub(in super::super) fn answered(self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> (Gate, VerifiedEffect) {
        let decided = match reply {
            CalloutReply::Answered { status, body } => decision(*status, body),
            CalloutReply::NotSent => {
                let (gate, effect) = unavailable(&self.tab.order, env);
                return (gate, VerifiedEffect::Request(effect));
            }
            CalloutReply::Lost => None,
        };
        let (gate, effect) = match decided {
            Some(Decision::Reserved { tenant, receipt }) => {
                env.notes.event(Note::Reserved("reserved"));
                env.notes.attribute("payer", &*tenant);
                env.notes.attribute("network", "credits");
                env.notes.attribute("amount", self.tab.quoted.to_string());
                let mut edits = self
                    .edits
                    .tell_backend_of_credit(&tenant, self.tab.quoted, redirect::mark(env.secret));
                if Spending::reads(&self.tab, env) {
                    edits = edits.unencoded();
                }
                let spending = Spending::new(self.tab, receipt);
                (Gate::Spending(Box::new(spending)), RequestEffect::Forward(edits))
            }
            Some(Decision::Answer(answer)) => {
                env.notes.event(Note::Reserved("answered"));
                if let (402, Some((route, _))) = (answer.status, self.tab.order.route(env)) {
                    env.notes.event(Note::Challenged(route));
                }
                env.notes
                    .attribute("outcome", if answer.status == 402 { "challenged" } else { "credit_refused" });
                (Gate::Answered, RequestEffect::Answer(answer))
            }
            // It may have reserved, or even settled a top-up: whatever is held goes back, and nobody is told to pay again.
            None => {
                let capture = self.tab.capture(0, env);
                env.notes.captures.push(capture);
                let (gate, effect) = unavailable(&self.tab.order, env);
                (gate, effect)
            }
        };
        (gate, VerifiedEffect::Request(effect))
    }

    /// The stream ended before: whatever was reserved goes back.
    pub(in super::super) fn gone(self, env: &mut Env<'_>) -> Capture {
        env.notes.event(Note::Released);
        env.notes.attribute("outcome", "gone_while_reserving");
        self.tab.capture(0, env)
    }
}

fn unavailable(order: &Order, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    env.notes.event(Note::Reserved("unavailable"));
    let answer = refuse(env, order, Refusal::LedgerUnavailable, None, "");
    (Gate::Answered, RequestEffect::Answer(answer))
}
