//! Waiting for the ledger to reserve.

use super::capture::Capture;
use super::wire::{Decision, Granted, decision};
use super::{Spending, Tab};
use crate::gate::Gate;
use crate::gate::answer::{refuse, refuse_plainly};
use crate::gate::edits::Edits;
use crate::gate::effects::{CalloutReply, CalloutToken, RequestEffect, VerifiedEffect};
use crate::gate::env::{Env, Note};
use crate::gate::order::Order;
use crate::gate::request::Request;
use crate::gate::verifying::Dispatch;
use crate::x402::{Answer, Refusal, decode};

/// The tenant of a request that the ledger could not be asked about.
const UNKNOWN: &str = "unknown";

/// What waits for a reservation that has yet to be asked for.
pub(in crate::gate) struct Asking {
    tab: Tab,
    /// What the request undergoes once it is reserved.
    edits: Edits,
}

impl Asking {
    /// Asks for the quote's maximum.
    pub(in crate::gate) fn begin(request: &Request<'_>, order: Order, edits: Edits, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        // A payment that nobody can read is refused here: the ledger may have the money without it, and the client would think that it paid.
        if let Err(error) = decode(request.headers.iter().copied()) {
            let answer = refuse_plainly(env, error.refusal, &error.detail);
            return (Gate::Answered, RequestEffect::Answer(answer.into()));
        }
        let Some(tab) = Tab::open(order, request, env) else {
            // More than a ledger can count.
            let answer = refuse_plainly(env, Refusal::RouteConditionFailed, "it costs more than can be reserved");
            return (Gate::Answered, RequestEffect::Answer(answer.into()));
        };
        let mut tab = tab;
        if let Some(tenant) = tab.take_from_lease(env) {
            env.notes.event(Note::Reserved("leased"));
            return serve(tab, edits, &tenant, None, env);
        }
        match tab.reserve(request, env) {
            Some(call) => {
                let asking = Box::new(Self { tab, edits });
                (Gate::Done, RequestEffect::Verify(Box::new(Dispatch::reserve(call, asking))))
            }
            None => unavailable(tab, edits, false, env),
        }
    }

    /// The call was sent.
    pub(in crate::gate) fn sent(self, token: CalloutToken) -> Gate {
        let Self { tab, edits } = self;
        Gate::Reserving(Box::new(Reserving { token, tab, edits }))
    }

    /// It could not be sent: nothing is reserved.
    pub(in crate::gate) fn not_sent(self, env: &mut Env<'_>) -> (Gate, RequestEffect) {
        unavailable(self.tab, self.edits, false, env)
    }
}

/// A request that waits for its reservation.
pub struct Reserving {
    token: CalloutToken,
    tab: Tab,
    edits: Edits,
}

impl Reserving {
    pub(in crate::gate) fn waits_for(&self, token: CalloutToken) -> bool {
        self.token == token
    }

    /// The ledger answered, or the call failed.
    pub(in crate::gate) fn answered(self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> (Gate, VerifiedEffect) {
        let Self { mut tab, edits, .. } = self;
        let decided = match reply {
            CalloutReply::Answered { status, body } => decision(*status, body),
            CalloutReply::NotSent => {
                let (gate, effect) = unavailable(tab, edits, false, env);
                return (gate, VerifiedEffect::Request(effect));
            }
            CalloutReply::Lost => None,
        };
        let (gate, effect) = match decided {
            Some(Decision::Reserved { tenant, receipt, lease }) => {
                if let (Some(Granted { amount, ttl_ms }), Some(id)) = (lease, tab.wanted.take()) {
                    let until = env.now_ms.saturating_add(ttl_ms);
                    env.leases.borrow_mut().grant(id, &tab.key, &tenant, amount, until);
                }
                env.notes.event(Note::Reserved("reserved"));
                serve(tab, edits, &tenant, receipt, env)
            }
            Some(Decision::Answer(answer)) => {
                env.notes.event(Note::Reserved("answered"));
                if let (402, Some((route, _))) = (answer.status, tab.order.route(env)) {
                    env.notes.event(Note::Challenged(route));
                }
                env.notes
                    .attribute("outcome", if answer.status == 402 { "challenged" } else { "credit_refused" });
                (Gate::Answered, RequestEffect::Answer(answer.into()))
            }
            // It may have reserved, or even settled a top-up: whatever is held goes back, and nobody is told to pay again.
            None => {
                if matches!(reply, CalloutReply::Answered { status: 400..500, .. }) {
                    // It does not know Envoy: that is no failure which passes.
                    return (
                        Gate::Answered,
                        VerifiedEffect::Request(RequestEffect::Answer(refused(&tab.order, env).into())),
                    );
                }
                tab.give_lease_up(env);
                unavailable(tab, edits, true, env)
            }
        };
        (gate, VerifiedEffect::Request(effect))
    }

    /// The stream ended before: whatever was reserved goes back.
    pub(in crate::gate) fn gone(mut self, env: &mut Env<'_>) -> Capture {
        self.tab.give_lease_up(env);
        env.notes.event(Note::Released);
        env.notes.attribute("outcome", "gone_while_reserving");
        self.tab.capture(0, env)
    }
}

/// The request goes to the backend, in the name of a tenant.
fn serve(tab: Tab, edits: Edits, tenant: &str, receipt: Option<(&'static str, String)>, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    env.notes.attribute("payer", tenant.to_owned());
    env.notes.attribute("network", "credits");
    env.notes.attribute("amount", tab.quoted.to_string());
    let mut edits = edits.tell_backend_of_credit(tenant, tab.quoted, env.mark.into());
    if Spending::reads(&tab) {
        edits = edits.unencoded();
    }
    let spending = Spending::new(tab, receipt);
    (Gate::Spending(Box::new(spending)), RequestEffect::Forward(edits))
}

/// The ledger has no word for it: within what may be open of such requests it is served, and charged when the ledger is back. Else what it
/// may hold goes back.
fn unavailable(tab: Tab, edits: Edits, may_be_held: bool, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    if tab.trust(env) {
        env.notes.event(Note::Reserved("trusted"));
        return serve(tab, edits, UNKNOWN, None, env);
    }
    if may_be_held {
        let capture = tab.capture(0, env);
        env.notes.captures.push(capture);
    }
    (Gate::Answered, RequestEffect::Answer(refused(&tab.order, env).into()))
}

fn refused(order: &Order, env: &mut Env<'_>) -> Answer {
    env.notes.event(Note::Reserved("unavailable"));
    refuse(env, order, Refusal::LedgerUnavailable, None, "")
}
