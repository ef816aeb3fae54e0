//! `routes`: places and prices, joined with the offers.

use std::collections::BTreeSet;

use super::accept::{self, Surroundings, Template};
use super::charge::{self, Placed};
use super::facilitators::for_network;
use super::fields::{Errors, Node};
use super::price::{self, Charge};
use super::text::is_header_value;
use super::{ChallengeStyle, Facilitator, flow, limits, matching};
use crate::pricing::{Offer, Route, Scheme, Transfer};

/// Fields of a route that other versions have.
const LATER: &[&str] = &["settle_on", "redeliver", "settlement"];

/// What routes are compiled with.
pub(super) struct Base<'b> {
    pub(super) around: Surroundings<'b>,
    pub(super) facilitators: &'b [Facilitator],
    pub(super) challenge: ChallengeStyle,
    /// The offers for routes that name none.
    pub(super) accept: Option<Node<'b>>,
}

/// A route, and whether each of its offers is in a token that the official clients pay in by default.
pub(super) struct Compiled {
    pub(super) route: Route,
    pub(super) defaults: Vec<bool>,
}

/// Reads `routes`.
pub(super) fn read(node: Option<Node<'_>>, base: &Base<'_>, errors: &mut Errors) -> Vec<Compiled> {
    let Some(node) = node else { return Vec::new() };
    let items = node.items("a list of routes", errors);
    if items.is_empty() && node.value.is_array() {
        errors.add(&node.path, "an empty list", "at least one route");
    }
    let common = base.accept.as_ref().map(|node| accept::read(node, &base.around, errors));
    let mut names = BTreeSet::new();
    let mut complained = BTreeSet::new();
    let mut compiled = Vec::new();
    for item in &items {
        if let Some(route) = read_one(item, base, common.as_ref(), &mut names, &mut complained, errors) {
            compiled.push(route);
        }
    }
    compiled
}

fn read_one<'v>(
    node: &Node<'v>,
    base: &Base<'_>,
    common: Option<&Option<Vec<Template>>>,
    names: &mut BTreeSet<&'v str>,
    complained: &mut BTreeSet<String>,
    errors: &mut Errors,
) -> Option<Compiled> {
    let known = [
        "name",
        "match",
        "price",
        "accept",
        "flow",
        "verify",
        "metered",
        "limits",
        "description",
        "mime_type",
    ];
    let fields = node.fields(&known, LATER, errors)?;
    let name = fields.require("name", "a name of letters, digits, '-' and '_'", errors);
    let name = name.and_then(|node| name_of(&node, names, errors));
    let matcher = fields.get("match").map(|node| matching::read(&node, errors)).unwrap_or_default();
    let description = fields.get("description").map_or(Some(""), |node| {
        text(&node, 500, "a text of at most 500 bytes without control characters", errors)
    });
    let mime_type = fields.get("mime_type").map_or(Some(""), |node| {
        const EXPECTED: &str = "a media type such as application/json";
        let text = text(&node, 128, EXPECTED, errors)?;
        let fits = is_header_value(text);
        if !fits {
            node.reject(EXPECTED, errors);
        }
        fits.then_some(text)
    });
    let spec = fields
        .require("price", "free, or a price such as {per_request: \"$0.01\"}", errors)
        .and_then(|node| price::read(&node, errors));
    let of_price = spec.as_ref().and_then(|spec| spec.accept.clone());
    if let (Some(_), Some(second)) = (fields.get("accept"), &of_price) {
        errors.add(
            &second.path,
            "a second list of offers for this route",
            "one, here or in the route's accept",
        );
    }
    let own = fields
        .get("accept")
        .or(of_price)
        .map(|node| accept::read(&node, &base.around, errors));
    let charge = spec?.charge;
    let templates = match (&charge, own.as_ref().or(common)) {
        (Charge::Free, _) => Vec::new(),
        (_, Some(templates)) => templates.clone()?,
        (_, None) => {
            errors.add(&format!("{}.accept", node.path), "nothing", "offers, here or in accept");
            return None;
        }
    };
    let defaults = templates.iter().map(|template| template.default_of_clients).collect();
    let settled = |template| settled_by(template, base.facilitators, complained, errors);
    let mut placed: Vec<Placed> = templates.into_iter().map(settled).collect();
    let price = charge::compile(&charge, &mut placed, errors);
    let around = flow::Around {
        price_path: &format!("{}.price", node.path),
        price: price.as_ref(),
        facilitators: base.facilitators,
    };
    let is_free = placed.is_empty();
    let flow = flow::read(&fields, &mut placed, &around, errors);
    let of_flow = flow.as_ref().map(|(flow, _)| flow);
    let requests_per_payment = limits::requests_per_payment(fields.get("limits"), of_flow, is_free, errors);
    let offers: Vec<Offer> = placed.into_iter().map(|(offer, _)| offer).collect();
    check_permits(node, &offers, base.challenge, errors);
    let (flow, start) = flow?;
    Some(Compiled {
        route: Route {
            name: name?.into(),
            matcher,
            price: price?,
            flow,
            start,
            requests_per_payment: requests_per_payment?,
            offers,
            description: description?.into(),
            mime_type: mime_type?.into(),
        },
        defaults,
    })
}

fn name_of<'v>(node: &Node<'v>, names: &mut BTreeSet<&'v str>, errors: &mut Errors) -> Option<&'v str> {
    const EXPECTED: &str = "a name of 1 to 64 letters, digits, '-' and '_'";
    let name = node.text(EXPECTED, errors)?;
    let fits = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits {
        node.reject(EXPECTED, errors);
    } else if !names.insert(name) {
        node.reject("a name that no other route has", errors);
    }
    Some(name)
}

fn text<'v>(node: &Node<'v>, longest: usize, expected: &str, errors: &mut Errors) -> Option<&'v str> {
    let text = node.text(expected, errors)?;
    if text.len() > longest || text.chars().any(char::is_control) {
        node.reject(expected, errors);
        return None;
    }
    Some(text)
}

/// Fills in who settles an offer.
fn settled_by(template: Template, facilitators: &[Facilitator], complained: &mut BTreeSet<String>, errors: &mut Errors) -> Placed {
    let Template { mut offer, path, .. } = template;
    offer.facilitators = for_network(facilitators, &offer.asset.network);
    if offer.facilitators.is_empty() && complained.insert(path.clone()) {
        let network = format!("\"{}\"", offer.asset.network);
        let expected = "a network that at least one of facilitators serves";
        errors.add(&format!("{path}.network"), network, expected);
    }
    (offer, path)
}

/// A LibertAI client reads the first item of the v1 body alone, a published v1 client nothing but `exact` ones: one body
/// cannot serve both.
fn check_permits(node: &Node<'_>, offers: &[Offer], challenge: ChallengeStyle, errors: &mut Errors) {
    let permit = |offer: &Offer| matches!(offer.transfer, Transfer::Permit { .. });
    if !offers.iter().any(permit) {
        return;
    }
    let path = format!("{}.accept", node.path);
    if offers.iter().any(readable_by_v1_clients) {
        errors.add(
            &path,
            "an offer with transfer: permit beside an exact one that v1 clients read",
            "a route of its own for transfer: permit (its clients read the first v1 offer only)",
        );
    }
    if !challenge.v1 {
        errors.add(
            &path,
            "an offer with transfer: permit while challenge.v1 is false",
            "challenge.v1: true, the only place where it is offered",
        );
    }
}

/// Whether the published v1 clients can pay an offer.
pub(super) fn readable_by_v1_clients(offer: &Offer) -> bool {
    offer.scheme == Scheme::Exact
        && offer.asset.network.known_to_v1_clients()
        && matches!(offer.transfer, Transfer::Eip3009 | Transfer::Solana)
}
