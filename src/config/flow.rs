//! `flow` and `metered` of a route: when money moves, and what is charged where an answer does not say.

use super::Facilitator;
use super::amount::{Amounts, Least};
use super::charge::Placed;
use super::fields::{Errors, Fields, Node};
use crate::pricing::{ExposureLimits, Flow, MeteredTerms, MissingUsage, MoneyError, OnBackendFailure, OnClientAbort, Price, Scheme, Start};

/// Longest that the end of an answer may wait for its receipt: five minutes.
const LONGEST_WAIT_MS: u64 = 300_000;

/// Longest ban, in seconds: 30 days.
const LONGEST_BAN: u64 = 30 * 86_400;

/// What `flow` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Authorization,
    Upfront,
    Metered,
}

/// What the flow of a route has to fit.
pub(super) struct Around<'a> {
    /// Where the route's price is.
    pub(super) price_path: &'a str,
    pub(super) price: Option<&'a Price>,
    pub(super) facilitators: &'a [Facilitator],
}

/// Reads a route's `flow`, `verify` and `metered`; marks offers that are settled up front.
pub(super) fn read(fields: &Fields<'_>, offers: &mut [Placed], around: &Around<'_>, errors: &mut Errors) -> Option<(Flow, Start)> {
    let words = [
        ("authorization", Word::Authorization),
        ("upfront", Word::Upfront),
        ("metered", Word::Metered),
    ];
    let word = match fields.get("flow") {
        None => Word::Authorization,
        Some(node) => node.one_of(&words, errors)?,
    };
    for (offer, _) in offers.iter_mut() {
        offer.upfront = word == Word::Upfront;
    }
    let start = start(fields, word, offers.is_empty(), errors);
    let flow = flow(fields, word, offers, errors)?;
    if word == Word::Metered {
        check_time(offers, around, errors);
    }
    Some((flow, start?))
}

/// A metered answer has to end as long before its payment expires as its settlement may take.
fn check_time(offers: &[Placed], around: &Around<'_>, errors: &mut Errors) {
    for (offer, path) in offers.iter().filter(|(offer, _)| offer.scheme == Scheme::Upto) {
        let theirs = offer.facilitators.iter().filter_map(|index| around.facilitators.get(*index));
        let settling = theirs
            .map(|facilitator| u64::from(facilitator.settle_timeout_ms))
            .max()
            .unwrap_or(0);
        let valid = offer.max_timeout_seconds.saturating_mul(1000);
        let needed = settling.saturating_mul(2);
        if valid < needed {
            errors.add(
                &format!("{path}.max_timeout"),
                format!("{} s for an answer that is metered", offer.max_timeout_seconds),
                format!("at least {} s, twice the facilitator's settle_timeout", needed.div_ceil(1000)),
            );
        }
        let Some(Price::PerMinute(price)) = around.price else { continue };
        let needed = price.longest_ms().saturating_add(settling);
        if valid < needed {
            errors.add(
                &format!("{}.per_minute.maximum", around.price_path),
                "minutes beyond the end of the payments that are metered by them",
                format!(
                    "fewer, or a max_timeout of at least {} s in {path}: the answer and settle_timeout",
                    needed.div_ceil(1000)
                ),
            );
        }
    }
}

fn start(fields: &Fields<'_>, word: Word, is_free: bool, errors: &mut Errors) -> Option<Start> {
    let Some(node) = fields.get("verify") else {
        return Some(Start::Verified);
    };
    let words = [
        ("before", Start::Verified),
        ("overlap", Start::Meanwhile),
        ("local", Start::Checked),
    ];
    let start = node.one_of(&words, errors)?;
    let wrong = match (word, start) {
        _ if is_free => Some(("verify on a free route", "no verify: nothing is paid here")),
        (Word::Upfront, _) => Some((
            "verify on a route that is settled up front",
            "no verify beside flow: upfront, which has nothing to verify",
        )),
        (Word::Metered, Start::Checked) => Some((
            "local on a metered route, whose answers would leave unverified",
            "before or overlap",
        )),
        _ => None,
    };
    if let Some((found, expected)) = wrong {
        errors.add(&node.path, found, expected);
        return None;
    }
    Some(start)
}

fn flow(fields: &Fields<'_>, word: Word, offers: &[Placed], errors: &mut Errors) -> Option<Flow> {
    let terms = fields.get("metered");
    if word != Word::Metered {
        if let Some(node) = terms {
            errors.add(
                &node.path,
                "terms of metering on a route that is not metered",
                "flow: metered beside it",
            );
        }
        return Some(if word == Word::Upfront {
            Flow::Upfront
        } else {
            Flow::Authorization
        });
    }
    if !offers.iter().any(|(offer, _)| offer.scheme == Scheme::Upto) {
        let path = fields.get("flow").map(|node| node.path).unwrap_or_default();
        errors.add(
            &path,
            "metered on a route without an offer that can be metered",
            "an offer of scheme upto (an exact one pays the whole quote)",
        );
    }
    let terms = match terms {
        Some(node) => metered_terms(&node, offers, errors)?,
        None => MeteredTerms::default(),
    };
    Some(Flow::Metered(Box::new(terms)))
}

fn metered_terms(node: &Node<'_>, offers: &[Placed], errors: &mut Errors) -> Option<MeteredTerms> {
    let known = [
        "missing_usage",
        "on_client_abort",
        "on_backend_failure",
        "receipt_wait",
        "exposure",
        "ban",
    ];
    let fields = node.fields(&known, &[], errors)?;
    let mut terms = MeteredTerms::default();
    if let Some(node) = fields.get("missing_usage") {
        let words = [
            ("estimate", MissingUsage::Estimate),
            ("maximum", MissingUsage::Maximum),
            ("free", MissingUsage::Free),
        ];
        terms.missing_usage = node.one_of(&words, errors)?;
    }
    if let Some(node) = fields.get("on_client_abort") {
        let words = [("estimate", OnClientAbort::Estimate), ("maximum", OnClientAbort::Maximum)];
        terms.on_client_abort = node.one_of(&words, errors)?;
    }
    if let Some(node) = fields.get("on_backend_failure") {
        let words = [("delivered", OnBackendFailure::Delivered), ("free", OnBackendFailure::Free)];
        terms.on_backend_failure = node.one_of(&words, errors)?;
    }
    if let Some(node) = fields.get("receipt_wait") {
        terms.receipt_wait_ms = u32::try_from(node.milliseconds(0, LONGEST_WAIT_MS, errors)?).ok()?;
    }
    if let Some(node) = fields.get("exposure") {
        terms.exposure = exposure(&node, offers, errors)?;
    }
    if let Some(node) = fields.get("ban") {
        terms.ban_seconds = node.seconds(0, LONGEST_BAN, errors)?;
    }
    Some(terms)
}

/// Limits in each currency that can be metered on the route, in millionths.
fn exposure(node: &Node<'_>, offers: &[Placed], errors: &mut Errors) -> Option<Vec<ExposureLimits>> {
    let fields = node.fields(&["payer", "total"], &[], errors)?;
    let mut read = |name| match fields.get(name) {
        Some(node) => Amounts::read(&node, Least::AboveZero, errors).map(Some),
        None => Some(None),
    };
    let (payer, total) = (read("payer")?, read("total")?);
    if payer.is_none() && total.is_none() {
        node.reject("payer, total or both, such as {payer: \"$1\", total: \"$100\"}", errors);
        return None;
    }
    let mut all: Vec<ExposureLimits> = Vec::new();
    for (offer, path) in offers.iter().filter(|(offer, _)| offer.scheme == Scheme::Upto) {
        if all.iter().any(|limits| limits.currency == offer.asset.currency) {
            continue;
        }
        let mut limit = |amounts: &Option<Amounts<'_>>| match amounts {
            None => Some(None),
            Some(amounts) => {
                let units = amounts.of(&offer.asset, path, errors)?.to_atomic(6);
                let limit = units.and_then(|units| u64::try_from(units.0).map_err(|_| MoneyError::TooLarge));
                limit
                    .map_err(|error| errors.add(&amounts.path, "more than can be counted in millionths", error.to_string()))
                    .ok()
                    .map(Some)
            }
        };
        all.push(ExposureLimits {
            currency: offer.asset.currency.clone(),
            payer: limit(&payer)?,
            total: limit(&total)?,
        });
    }
    Some(all)
}
