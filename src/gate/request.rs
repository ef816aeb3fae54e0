//! The first event: a request's headers, and what the reader found in its body.

use std::rc::Rc;

use super::Gate;
use super::admission::{Admission, Denied};
use super::answer::{deny, refuse, refuse_for, refuse_plainly};
use super::challenges::{challenge, kept, turned_down};
use super::credit::Asking;
use super::delivery::Delivery;
use super::edits::Edits;
use super::effects::RequestEffect;
use super::env::{Env, Note};
use super::hold::Hold;
use super::identifier;
use super::keys::{self, Key};
use super::order::{self, Deal, Order};
use super::redirect;
use super::response::Keyed;
use super::sale::{Sale, short_hash};
use super::trust;
use super::verifying;
use crate::precheck::{self, Claiming, Terms};
use crate::pricing::{Atomic, Condition, Located, Offer, Place, QuoteRefusal, RequestFacts, Scheme, Selection};
use crate::reader::{BodyFacts, Why};
use crate::replay::SHARED_SECRET;
use crate::x402::{Answer, Dialect, Payment, Refusal, decode};

/// A request, as the gate sees it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where it goes.
    pub place: Place<'a>,
    /// `:scheme`.
    pub scheme: &'a [u8],
    /// Every header, repeated ones as often as they were sent, names in lower case.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// What the reader found; `None` if no reader is in front.
    pub body: Option<&'a BodyFacts>,
    /// Whether the headers are all of it.
    pub ended: bool,
}

impl Request<'_> {
    fn has(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|(sent, _)| *sent == name)
    }

    /// What tells this request from others; `None` if its body is not known.
    fn hash(&self) -> Option<[u8; 16]> {
        let (kind, digest) = match (self.body, self.ended) {
            (Some(BodyFacts::Json(facts)), _) => (b'J', &facts.digest[..]),
            (Some(BodyFacts::None), _) | (None, true) => (b'N', &[][..]),
            (Some(BodyFacts::Unreadable(_)) | None, _) => return None,
        };
        let Place {
            method, authority, path, ..
        } = self.place;
        let ends = [authority.len(), path.len()].map(|length| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        let [authority_ends, path_ends] = &ends;
        let authority = authority.to_ascii_lowercase();
        Some(short_hash(&[authority_ends, &authority, path_ends, path, &[kind], digest, method]))
    }

    fn upgrades(&self) -> bool {
        self.place.method.eq_ignore_ascii_case(b"connect") || self.has(b"upgrade") || self.has(b":protocol")
    }
}

/// Decides what happens to a request.
pub fn open(request: &Request<'_>, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    open_at(request, env.config.routes.locate(&request.place), env)
}

/// The same, for a request that has been located among the routes of the configuration.
pub fn open_at(request: &Request<'_>, located: Located, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    let facts = RequestFacts {
        place: request.place,
        headers: request.headers,
        body: request.body,
    };
    if redirect::is_from_here(request.headers, env.mark) {
        let answer = refuse_plainly(env, Refusal::InternalRedirect, "");
        return (Gate::Answered, RequestEffect::Answer(answer.into()));
    }
    let selection = env.config.routes.select_at(located, &facts);
    if request.upgrades() && !matches!(selection, Selection::Free(_) | Selection::Unmatched | Selection::Preflight) {
        // An upgraded request has no end, so that conditions over its body say nothing.
        let answer = refuse_plainly(env, Refusal::UpgradeNotPayable, "");
        return (Gate::Answered, RequestEffect::Answer(answer.into()));
    }
    let refused = match selection {
        Selection::Priced(route) => return priced(request, &facts, route, env),
        Selection::Free(_) => return (Gate::Done, RequestEffect::Forward(free(request, env))),
        Selection::Unmatched | Selection::Preflight => {
            return (Gate::Done, RequestEffect::Forward(Edits::default().distrust(request.headers)));
        }
        Selection::Denied => (Refusal::NoRoute, String::new()),
        Selection::Ambiguous => (Refusal::AmbiguousPath, String::new()),
        Selection::NeedsBody => {
            let (refusal, detail) = unseen(request);
            (refusal, detail.into())
        }
        Selection::UnreadableBody { .. } => (Refusal::UnreadableBody, unreadable(request.body).into()),
        Selection::ConditionFailed { condition, .. } => (Refusal::RouteConditionFailed, condition_text(&condition)),
    };
    (
        Gate::Answered,
        RequestEffect::Answer(refuse_plainly(env, refused.0, &refused.1).into()),
    )
}

fn unreadable(body: Option<&BodyFacts>) -> &'static str {
    match body {
        Some(BodyFacts::Unreadable(why)) => match why {
            Why::Encoded => "the body is encoded: send it without content-encoding",
            Why::NotJson => "the body's content-type is not application/json",
            Why::Malformed => "the body is not well-formed JSON in UTF-8",
            Why::NotAnObject => "the body is not a JSON object",
            Why::Duplicate => "the body has a key that matters for its price, such as model, more than once, or in other letters",
            Why::BadModel => "the body's model is not a short string",
            Why::BadLimit => "one of the body's limits, such as max_tokens or n, is not a whole number above zero",
            Why::Unpriced(key) => key.detail(),
        },
        _ => "",
    }
}

fn condition_text(condition: &Condition) -> String {
    match condition {
        Condition::Model => "the body's model is not one that is sold here".into(),
        Condition::Header(name) => format!("the header {name} is not as a route of this path asks for"),
        Condition::Body => "a JSON body with a model is asked for".into(),
    }
}

/// A free route passes everything on, a payment too: it may be meant for the backend. A dummy key means nothing there either.
fn free(request: &Request<'_>, env: &Env<'_>) -> Edits {
    let dummy = keys::key(&env.config.access, request.headers) == Key::Dummy;
    Edits::default()
        .distrust(request.headers)
        .without(dummy.then(|| keys::header(&env.config.access)))
}

fn priced(request: &Request<'_>, facts: &RequestFacts<'_>, route: usize, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    if let Some(route) = env.config.routes.by_index(route) {
        env.notes.attribute("route", String::from(&*route.name));
    }
    if keys::bypassed(&env.config.access, request.headers) {
        env.notes.attribute("outcome", "bypassed");
        return (Gate::Done, RequestEffect::Forward(free(request, env).keep_payment(request.headers)));
    }
    let deal = match env.config.routes.quote(route, facts) {
        Ok(quote) => Deal { route, quote },
        Err(reason) => {
            let (refusal, detail) = unquotable(reason, request);
            return answered(refuse_plainly(env, refusal, detail));
        }
    };
    if super::credit::pays_by_credit(env.config, request.headers) {
        let edits = edits(request, env).without(Some(keys::header(&env.config.access)));
        return Asking::begin(request, Order::new(request, deal, env), edits, env);
    }
    match decode(request.headers.iter().copied()) {
        Ok(None) => unpaid(request, deal, env),
        Ok(Some(payment)) => paid(request, facts, Order::new(request, deal, env), payment, env),
        Err(error) => {
            let order = Order::new(request, deal, env);
            answered(refuse(env, &order, error.refusal, None, &error.detail))
        }
    }
}

/// The price depends on a body that no reader has seen. Readers need not be asked about a GET.
fn unseen(request: &Request<'_>) -> (Refusal, &'static str) {
    if request.place.method == b"GET" && request.body.is_none() && !request.ended {
        let detail = "the price depends on the body, and that of a GET request is not read: send it without, or with another method";
        return (Refusal::UnreadableBody, detail);
    }
    (Refusal::ReaderMissing, "")
}

fn unquotable(reason: QuoteRefusal, request: &Request<'_>) -> (Refusal, &'static str) {
    match reason {
        QuoteRefusal::NeedsBody | QuoteRefusal::FactsMissing => unseen(request),
        QuoteRefusal::Unreadable => (Refusal::UnreadableBody, unreadable(request.body)),
        QuoteRefusal::NoBody | QuoteRefusal::UnknownModel | QuoteRefusal::ExternalInput | QuoteRefusal::TooLarge => {
            (Refusal::RouteConditionFailed, reason.detail())
        }
    }
}

fn answered(answer: impl Into<Rc<Answer>>) -> (Gate, RequestEffect) {
    (Gate::Answered, RequestEffect::Answer(answer.into()))
}

/// No payment: a real key goes to a backend that checks keys itself, everybody else gets a challenge.
fn unpaid(request: &Request<'_>, deal: Deal, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    let hints = order::hints(request, env);
    if env.config.access.api_keys_header.is_some() && hints.api_key {
        env.notes.attribute("outcome", "api_key");
        let edits = Edits::default().distrust(request.headers).keep_payment(request.headers);
        let order = Order::of(request, deal, hints, env);
        return (Gate::Keyed(Keyed::new(order)), RequestEffect::Forward(edits));
    }
    if let Some(answer) = kept(Refusal::PaymentRequired, request, &deal, hints, env) {
        return answered(answer);
    }
    let order = Order::of(request, deal, hints, env);
    answered(challenge(Refusal::PaymentRequired, request, &order, env))
}

fn paid(request: &Request<'_>, facts: &RequestFacts<'_>, order: Order, payment: Payment, env: &mut Env<'_>) -> (Gate, RequestEffect) {
    let identifier = match identifier::of(&payment, env) {
        Ok(identifier) => identifier.map(Box::from),
        Err((refusal, detail)) => return answered(refuse(env, &order, refusal, None, detail)),
    };
    let offers = order.offers(env);
    let terms = Terms {
        offers: &offers,
        supported: env.supported,
        bounds: &env.config.pre_check,
        resource: &order.resource,
        secret: if env.config.shared_claims { &SHARED_SECRET } else { env.secret },
        payers: Some(env.payers),
        now: env.now,
        grace: 0,
    };
    let (former, approved, late) = match precheck::pre_check(&payment, &terms) {
        Ok(approved) => (None, approved, None),
        Err(refused) => {
            let formerly = formerly(&payment, refused.refusal, &order, facts, &terms, env);
            match formerly.or_else(|| Some((None, late(&payment, refused.refusal, &order, &terms, env)?))) {
                Some((None, approved)) => (None, approved, Some(refused)),
                Some((former, approved)) => (former, approved, None),
                None => return answered(turned_down(refused.refusal, &refused.detail, request, &order, env)),
            }
        }
    };
    let (is_former, proven) = (former.is_some(), approved.proven());
    let mut sale = Sale {
        order,
        former,
        offer: approved.offer,
        ready: approved.ready,
        payment,
        proven,
        payer: approved.payer,
        resumes: false,
        request: request.hash(),
        identifier,
        hold: Hold::new(approved.claim, approved.expiry).shared(env),
    };
    let edits = edits(request, env);
    let taken = match &late {
        // Nothing but what was paid for before.
        Some(_) => Err(Taken::Before),
        None => hold(&mut sale, approved.claiming, env),
    };
    let answer = match taken {
        Ok(()) => {
            if is_former {
                env.notes.event(Note::FormerQuote);
            }
            return verifying::proceed(sale, edits, env);
        }
        Err(Taken::Not(answer)) => answer,
        Err(Taken::Before) => match (Delivery::left(&sale, env), late) {
            (Ok(left), _) => {
                let delivery = Delivery::of(sale, left, env);
                return verifying::serve(delivery, edits, env);
            }
            (Err(Refusal::NonceAlreadyUsed), Some(late)) => match sale.hold.is_free(env) {
                // A replica that died may have left it paid and not delivered.
                Ok(()) if sale.may_be_owed(&late, env) => return verifying::settle_first(sale.late(), edits, env),
                Ok(()) => refuse(env, &sale.order, late.refusal, None, &late.detail),
                // Another request is paying with it, or that is in doubt: nobody is told to sign a new one. Or it is spent, which says more.
                Err(refusal) => refuse(env, &sale.order, refusal, None, ""),
            },
            (Err(refusal), _) => refuse(env, &sale.order, refusal, None, ""),
        },
    };
    env.notes.attribute("payer", sale.payer);
    answered(answer)
}

/// What every request with a payment loses on its way to the backend.
fn edits(request: &Request<'_>, env: &Env<'_>) -> Edits {
    let dummy = keys::key(&env.config.access, request.headers) == Key::Dummy;
    Edits::default()
        .distrust(request.headers)
        .keep_payment(request.headers)
        .ask_once(request.headers)
        .without(dummy.then(|| keys::header(&env.config.access)))
}

/// A payment that is good for nothing but what it may have paid for before: it has expired, or was made for another resource, or a higher
/// quote, of a route on which a payment buys several.
///
/// However long ago it has expired: an answer may break off long after that, and what it left says until when it is to be had.
fn late(payment: &Payment, refusal: Refusal, order: &Order, terms: &Terms<'_>, env: &Env<'_>) -> Option<precheck::Approved> {
    let several = order.route(env)?.1.requests_per_payment > 1;
    let mut late = Terms { grace: u64::MAX, ..*terms };
    let offers: Vec<Offer>;
    match refusal {
        Refusal::ValidBefore => {}
        Refusal::ResourceMismatch | Refusal::ValueMismatch | Refusal::NoMatchingRequirements if several => {
            late = *terms;
            late.resource = payment.resource_url.as_deref().unwrap_or(terms.resource);
            let paid = payment.amount().unwrap_or(Atomic(0));
            offers = terms
                .offers
                .iter()
                .map(|offer| Offer {
                    amount: offer.amount.max(paid),
                    ..offer.clone()
                })
                .collect();
            late.offers = &offers;
        }
        _ => return None,
    }
    precheck::pre_check(payment, &late).ok()
}

/// Why a claim was not taken.
enum Taken {
    /// It is not to be had: this is answered.
    Not(Answer),
    /// An earlier request has spent it, and may have left something.
    Before,
}

/// Takes the claim at once, unless it has to wait until the facilitator has vouched for the payment.
fn hold(sale: &mut Sale, claiming: Claiming, env: &mut Env<'_>) -> Result<(), Taken> {
    if let Some(seconds) = trust::banned(sale, env) {
        let answer = refuse_for(seconds, env, &sale.order, Refusal::PayerBanned, None, "");
        return Err(Taken::Not(answer));
    }
    if let Some(detail) = trust::too_short(sale, env) {
        // Unless its settlement is in doubt: then nobody is told to sign another one.
        let (refusal, detail) = match sale.hold.is_free(env) {
            Ok(()) => (Refusal::ValidBefore, &*detail),
            Err(refusal) => (refusal, ""),
        };
        return Err(Taken::Not(refuse(env, &sale.order, refusal, None, detail)));
    }
    let trust = trust::of(sale, env);
    sale.hold.entrust(trust);
    // Nobody is counted, and nothing has a name, by the word of somebody else: see `Verifying::valid`.
    if sale.proven {
        let admission = Admission::of(sale, env);
        sale.hold.admit(admission);
    }
    let held = sale.hold.check(env).and_then(|()| match claiming {
        Claiming::OnceVerified => sale.hold.is_free(env).map_err(Denied::from),
        Claiming::AtOnce => take(sale, env),
    });
    held.map_err(|denied| match denied.refusal {
        Refusal::NonceAlreadyUsed => Taken::Before,
        _ => Taken::Not(deny(env, &sale.order, denied)),
    })
}

/// Takes the claim. One whose settlement is pending is taken over, to find out about it: not where the answer may have been delivered
/// already, nor where it may have cost less than the quote.
fn take(sale: &mut Sale, env: &mut Env<'_>) -> Result<(), Denied> {
    let resumable = sale.proven && sale.offer(env).is_some_and(|offer| offer.scheme == Scheme::Exact);
    match sale.hold.take(env) {
        Err(Denied {
            refusal: Refusal::SettlementPending,
            ..
        }) if resumable => {
            sale.hold.resume(env)?;
            sale.resumes = true;
            Ok(())
        }
        taken => taken,
    }
}

/// The price that this payment was quoted before the configuration changed, where it is still good.
///
/// Only a payment whose amount is none of today's is looked at, on the route of the same name; [`Former`](crate::pricing::Former) has
/// no other difference to the offers of today. The reader relies on the amount too: see [`Reading`](crate::pricing::Reading).
fn formerly(
    payment: &Payment,
    refusal: Refusal,
    order: &Order,
    facts: &RequestFacts<'_>,
    terms: &Terms<'_>,
    env: &Env<'_>,
) -> Option<(Option<Deal>, precheck::Approved)> {
    let by_amount = match refusal {
        Refusal::ValueMismatch | Refusal::NoMatchingRequirements => true,
        // A signature over an amount that the payment does not say.
        Refusal::InvalidSignature => payment.dialect == Dialect::Plain,
        _ => false,
    };
    let asked_now = |amount| terms.offers.iter().any(|offer| offer.amount == amount);
    if !by_amount || payment.amount().is_some_and(asked_now) {
        return None;
    }
    let former = env.former?.at(env.now_ms)?;
    let Selection::Priced(route) = former.select(facts) else {
        return None;
    };
    if former.by_index(route)?.name != order.route(env)?.1.name {
        return None;
    }
    let quote = former.quote(route, facts).ok()?;
    let deal = Deal { route, quote };
    let offers = deal.offers(former);
    let approved = precheck::pre_check(payment, &Terms { offers: &offers, ..*terms }).ok()?;
    drop(offers);
    Some((Some(deal), approved))
}

impl Env<'_> {
    pub(super) fn refused(&mut self, refusal: Refusal, route: Option<usize>) {
        match (refusal, route) {
            (Refusal::PaymentRequired, Some(route)) => self.notes.event(Note::Challenged(route)),
            _ => self.notes.event(Note::Refused(refusal)),
        }
        let outcome = if refusal == Refusal::PaymentRequired {
            "challenged"
        } else {
            refusal.row().reason
        };
        self.notes.attribute("outcome", outcome);
    }
}
