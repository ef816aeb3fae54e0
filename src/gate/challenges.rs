//! Challenges that were made before: whoever asks for the same thing at the same price, is the same kind of client, and is refused for the
//! same reason, gets the same answer.

use std::rc::Rc;

use super::answer::refuse;
use super::env::Env;
use super::order::{Deal, Order};
use super::request::Request;
use crate::pricing::{Quote, without_query};
use crate::supported;
use crate::x402::{Answer, Hints, Refusal};

/// How many are kept by a worker. Clients choose which, by what they ask for.
const SLOTS: usize = 64;
/// The longest place of what is kept, and the longest URL, in bytes: with it, the slots bound the memory to some 256 KiB.
const LONGEST: usize = 512;

/// What a challenge depends on, where it depends on no facilitator's word. As it came: a URL is made of it only where the answer is.
#[derive(Clone, Copy)]
struct Asked<'a> {
    refusal: Refusal,
    route: usize,
    quote: &'a Quote,
    /// Scheme, authority and path.
    place: [&'a [u8]; 3],
    hints: Hints,
}

impl<'a> Asked<'a> {
    fn new(refusal: Refusal, request: &Request<'a>, deal: &'a Deal, hints: Hints, env: &Env<'_>) -> Self {
        let path = without_query(request.place.path);
        let place = match env.config.public_url {
            // It says what the resource's URL begins with, whatever the request does.
            Some(_) => [b"", b"", path],
            None => [request.scheme, request.place.authority, path],
        };
        Self {
            refusal,
            route: deal.route,
            quote: &deal.quote,
            place,
            hints,
        }
    }

    /// By FNV-1a: whoever finds two places of one slot makes challenges as dear as the first one, and no dearer.
    fn slot(&self) -> usize {
        let hash = self
            .place
            .iter()
            .flat_map(|part| part.iter())
            .fold(0x811c_9dc5_u32 ^ self.refusal as u32, |hash, byte| {
                (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
            });
        usize::try_from(hash).unwrap_or(0).checked_rem(SLOTS).unwrap_or(0)
    }
}

/// A challenge, and what it answers.
struct Made {
    refusal: Refusal,
    route: usize,
    quote: Quote,
    place: [Box<[u8]>; 3],
    hints: Hints,
    answer: Rc<Answer>,
}

impl Made {
    fn is_for(&self, asked: &Asked<'_>) -> bool {
        let is_there = self.place.iter().zip(asked.place).all(|(one, other)| **one == *other);
        is_there && self.refusal == asked.refusal && self.route == asked.route && self.hints == asked.hints && self.quote == *asked.quote
    }
}

/// The challenges of one worker, for one configuration.
#[derive(Default)]
pub struct Challenges(Vec<Option<Made>>);

impl Challenges {
    /// The answer to the same thing.
    fn find(&self, asked: &Asked<'_>) -> Option<&Rc<Answer>> {
        let made = self.0.get(asked.slot())?.as_ref()?;
        made.is_for(asked).then_some(&made.answer)
    }

    /// Keeps an answer, in the place of another one.
    fn keep(&mut self, asked: &Asked<'_>, answer: &Rc<Answer>) {
        if asked.place.iter().map(|part| part.len()).sum::<usize>() > LONGEST {
            return;
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        if let Some(slot) = self.0.get_mut(asked.slot()) {
            *slot = Some(Made {
                refusal: asked.refusal,
                route: asked.route,
                quote: asked.quote.clone(),
                place: asked.place.map(Box::from),
                hints: asked.hints,
                answer: Rc::clone(answer),
            });
        }
    }
}

/// The answer that another one like this got before.
pub(super) fn kept(refusal: Refusal, request: &Request<'_>, deal: &Deal, hints: Hints, env: &mut Env<'_>) -> Option<Rc<Answer>> {
    let asked = Asked::new(refusal, request, deal, hints, env);
    let answer = env.challenges.borrow().find(&asked).cloned()?;
    env.refused(refusal, Some(deal.route));
    Some(answer)
}

/// Refuses a request with a challenge that says no more than why, and keeps it.
pub(super) fn challenge(refusal: Refusal, request: &Request<'_>, order: &Order, env: &mut Env<'_>) -> Rc<Answer> {
    let answer = Rc::new(refuse(env, order, refusal, None, ""));
    // Where it depends on what facilitators say, it is made anew each time.
    let depends = order.route(env).is_none_or(|(_, route)| supported::needs_facts(&route.offers));
    // The URL, which the answer has in it more than once, may be three times what it was made of.
    if !depends && order.resource.len() <= LONGEST {
        let asked = Asked::new(refusal, request, &order.deal, order.hints, env);
        env.challenges.borrow_mut().keep(&asked, &answer);
    }
    answer
}

/// The same, with what was found wrong in a payment. Most of a flood of them are told the same.
pub(super) fn turned_down(refusal: Refusal, detail: &str, request: &Request<'_>, order: &Order, env: &mut Env<'_>) -> Rc<Answer> {
    if !detail.is_empty() || refusal.row().status != 402 {
        return refuse(env, order, refusal, None, detail).into();
    }
    match kept(refusal, request, &order.deal, order.hints, env) {
        Some(answer) => answer,
        None => challenge(refusal, request, order, env),
    }
}
