//! Challenges that were made before: whoever asks for the same thing at the same price, and is the same kind of client, gets the same answer.

use std::rc::Rc;

use super::env::Env;
use super::order::Deal;
use super::request::Request;
use crate::pricing::{Quote, without_query};
use crate::x402::{Answer, Hints};

/// How many are kept by a worker. Clients choose which, by what they ask for.
const SLOTS: usize = 64;
/// The longest place of what is kept, in bytes: with it, the slots bound the memory to some 256 KiB.
const LONGEST: usize = 512;

/// What a challenge depends on, where it depends on no facilitator's word. As it came: a URL is made of it only where the answer is.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    route: usize,
    quote: &'a Quote,
    /// Scheme, authority and path.
    place: [&'a [u8]; 3],
    hints: Hints,
}

impl<'a> Asked<'a> {
    pub(super) fn new(request: &Request<'a>, deal: &'a Deal, hints: Hints, env: &Env<'_>) -> Self {
        let path = without_query(request.place.path);
        let place = match env.config.public_url {
            // It says what the resource's URL begins with, whatever the request does.
            Some(_) => [b"", b"", path],
            None => [request.scheme, request.place.authority, path],
        };
        Self {
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
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        usize::try_from(hash).unwrap_or(0).checked_rem(SLOTS).unwrap_or(0)
    }
}

/// A challenge, and what it answers.
struct Made {
    route: usize,
    quote: Quote,
    place: [Box<[u8]>; 3],
    hints: Hints,
    answer: Rc<Answer>,
}

impl Made {
    fn is_for(&self, asked: &Asked<'_>) -> bool {
        let is_there = self.place.iter().zip(asked.place).all(|(one, other)| **one == *other);
        is_there && self.route == asked.route && self.hints == asked.hints && self.quote == *asked.quote
    }
}

/// The challenges of one worker, for one configuration.
#[derive(Default)]
pub struct Challenges(Vec<Option<Made>>);

impl Challenges {
    /// The answer to the same thing.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&Rc<Answer>> {
        let made = self.0.get(asked.slot())?.as_ref()?;
        made.is_for(asked).then_some(&made.answer)
    }

    /// Keeps an answer, in the place of another one.
    pub(super) fn keep(&mut self, asked: &Asked<'_>, answer: &Rc<Answer>) {
        if asked.place.iter().map(|part| part.len()).sum::<usize>() > LONGEST {
            return;
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        if let Some(slot) = self.0.get_mut(asked.slot()) {
            *slot = Some(Made {
                route: asked.route,
                quote: asked.quote.clone(),
                place: asked.place.map(Box::from),
                hints: asked.hints,
                answer: Rc::clone(answer),
            });
        }
    }
}
