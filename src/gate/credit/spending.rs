//! A request whose price is reserved: what of it is due once its answer is known.

use super::capture::Capture;
use super::{Tab, micros};
use crate::gate::Gate;
use crate::gate::answer::refuse;
use crate::gate::edits::Edits;
use crate::gate::effects::{BodyEffect, Next, ResponseEffect, Unread};
use crate::gate::env::{Env, Note};
use crate::gate::metered::{self, Metered, withholds_usage};
use crate::gate::response::Response;
use crate::pricing::{Atomic, Basis, Delivery, End, MeteredTerms, Offer, Route, Scheme};
use crate::x402::Refusal;

/// See the module.
pub struct Spending {
    tab: Tab,
    /// What tells the client of a top-up that was made with this request.
    receipt: Option<(&'static str, String)>,
    stage: Stage,
}

enum Stage {
    /// The backend is at work.
    Sent,
    /// So much is due, in millionths of a dollar.
    Fixed(u64),
    /// That depends on what the answer uses.
    Metered(Box<Metered>),
}

impl Spending {
    pub(super) fn new(tab: Tab, receipt: Option<(&'static str, String)>) -> Self {
        Self {
            tab,
            receipt,
            stage: Stage::Sent,
        }
    }

    /// Whether what is due is read from the answer.
    pub(super) fn reads(tab: &Tab) -> bool {
        !matches!(tab.order.deal.quote.basis(), Basis::Fixed)
    }

    /// How long the answer may take, in milliseconds.
    pub(in crate::gate) fn longest_ms(&self, env: &Env<'_>) -> Option<u64> {
        self.tab.longest_ms(env)
    }

    /// Whether the answer is on its way.
    pub(in crate::gate) fn has_begun(&self) -> bool {
        !matches!(self.stage, Stage::Sent)
    }

    pub(in crate::gate) fn reads_response(&self) -> bool {
        matches!(self.stage, Stage::Metered(_))
    }

    /// The answer's headers are here.
    pub(in crate::gate) fn answered(mut self: Box<Self>, response: &Response<'_>, env: &mut Env<'_>) -> (Gate, ResponseEffect) {
        if self.has_begun() {
            return (Gate::Spending(self), ResponseEffect::Pass);
        }
        let mut edits = Edits::strip_answer(response.headers);
        edits.set.extend(self.receipt.take());
        if response.is_paid_for() {
            let mut edits = edits.private_to(response.headers, self.tab.order.hints.origin);
            let told = self.told(response, env);
            if !Self::reads(&self.tab) {
                let due = told.and_then(|amount| self.in_micros(amount, env)).unwrap_or(self.tab.quoted);
                self.stage = Stage::Fixed(due.min(self.tab.quoted));
                return (Gate::Spending(self), ResponseEffect::Edit(edits));
            }
            let basis = self.tab.order.deal.quote.basis();
            if withholds_usage(basis) {
                // What is withheld does not fit an announced length.
                edits.remove.push("content-length".into());
            }
            self.stage = Stage::Metered(Box::new(Metered::begin(basis, told, response, env)));
            env.notes.attribute("outcome", "streaming");
            return (Gate::Spending(self), ResponseEffect::Edit(edits));
        }
        self.stage = Stage::Fixed(0);
        if response.is_failure() {
            return (Gate::Spending(self), ResponseEffect::Edit(edits));
        }
        // Another filter's answer: it is not ours to sell, nor to give away.
        let mut answer = refuse(env, &self.tab.order, Refusal::AnswerNotSold, None, "");
        answer.headers.extend(edits.set);
        (Gate::Spending(self), ResponseEffect::Answer(answer))
    }

    /// More of a metered answer.
    pub(in crate::gate) fn pass(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Unread> {
        match &mut self.stage {
            Stage::Metered(metered) => Ok(metered.pass(bytes, false)),
            Stage::Sent | Stage::Fixed(_) => Err(Unread),
        }
    }

    /// The next bytes of a metered answer.
    pub(in crate::gate) fn chunk(mut self: Box<Self>, bytes: &[u8], last: bool) -> (Gate, BodyEffect) {
        let bytes = match &mut self.stage {
            Stage::Metered(metered) => metered.pass(bytes, last),
            Stage::Sent | Stage::Fixed(_) => None,
        };
        let next = Next::Go;
        (Gate::Spending(self), BodyEffect { bytes, next })
    }

    /// The stream has ended: what is due is captured, and the rest given back.
    pub(in crate::gate) fn ended(mut self, end: End, env: &mut Env<'_>) -> Option<Capture> {
        let due = match &mut self.stage {
            Stage::Sent => 0,
            Stage::Fixed(due) => *due,
            Stage::Metered(metered) => {
                let delivery = metered.delivery(end, env);
                self.charge(&delivery, env)
            }
        };
        let outcome = match (&self.stage, due, end) {
            (Stage::Sent, ..) => "gone_before_answer",
            (_, 0, _) => "not_charged",
            (_, _, End::Complete) => "charged",
            (_, _, End::ClientGone) => "client_gone",
            (_, _, End::BackendFailed) => "backend_failed",
            (_, _, End::Interrupted) => "interrupted",
        };
        env.notes.attribute("outcome", outcome);
        env.notes.attribute("settled", due.to_string());
        if due == 0 {
            env.notes.event(Note::Released);
        }
        self.tab.end(due, env)
    }

    /// What a metered answer costs, in millionths of a dollar.
    fn charge(&self, delivery: &Delivery, env: &mut Env<'_>) -> u64 {
        let default = MeteredTerms::default();
        let Some(route) = self.route(env) else { return 0 };
        let terms = route.metered(Scheme::Upto).unwrap_or(&default);
        let Some(charged) = self.tab.order.deal.quote.charge(route, self.tab.offer, terms, delivery) else {
            return 0;
        };
        if charged.capped {
            env.notes.event(Note::UsageAboveQuote);
        }
        self.in_micros(charged.amount, env).unwrap_or(self.tab.quoted).min(self.tab.quoted)
    }

    /// What the backend says is to be charged. Nothing was signed, so that every price may be lowered.
    fn told(&self, response: &Response<'_>, env: &mut Env<'_>) -> Option<Atomic> {
        let offer = Offer {
            scheme: Scheme::Upto,
            ..self.offer(env)?
        };
        metered::told(&offer, response.headers, env)
    }

    fn route<'a>(&self, env: &Env<'a>) -> Option<&'a Route> {
        self.tab.order.route(env).map(|(_, route)| route)
    }

    fn offer(&self, env: &Env<'_>) -> Option<Offer> {
        let route = self.route(env)?;
        self.tab
            .order
            .deal
            .quote
            .offer(route, self.tab.offer)
            .map(std::borrow::Cow::into_owned)
    }

    fn in_micros(&self, amount: Atomic, env: &Env<'_>) -> Option<u64> {
        let decimals = self.route(env)?.offers.get(self.tab.offer)?.asset.decimals;
        micros(amount, decimals)
    }
}
