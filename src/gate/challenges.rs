//! Challenges that were made before: whoever asks for the same thing at the same price, and is the same kind of client, gets the same answer.

use super::order::Order;
use crate::pricing::Quote;
use crate::x402::{Answer, Hints};

/// How many are kept by a worker. Clients choose which, by what they ask for.
const SLOTS: usize = 64;
/// The longest URL of what is kept, in bytes: with it, the slots bound the memory to some 256 KiB.
const LONGEST: usize = 512;

/// What a challenge depends on, where it depends on no facilitator's word.
struct Made {
    route: usize,
    quote: Quote,
    resource: String,
    hints: Hints,
    answer: Answer,
}

impl Made {
    fn is_for(&self, order: &Order) -> bool {
        self.route == order.deal.route && self.hints == order.hints && self.resource == order.resource && self.quote == order.deal.quote
    }
}

/// The challenges of one worker, for one configuration.
#[derive(Default)]
pub struct Challenges(Vec<Option<Made>>);

impl Challenges {
    /// The answer to an order like this one.
    pub(super) fn find(&self, order: &Order) -> Option<&Answer> {
        let made = self.0.get(slot(&order.resource))?.as_ref()?;
        made.is_for(order).then_some(&made.answer)
    }

    /// Keeps an answer, in the place of another one.
    pub(super) fn keep(&mut self, order: &Order, answer: &Answer) {
        if order.resource.len() > LONGEST {
            return;
        }
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        if let Some(slot) = self.0.get_mut(slot(&order.resource)) {
            *slot = Some(Made {
                route: order.deal.route,
                quote: order.deal.quote.clone(),
                resource: order.resource.clone(),
                hints: order.hints,
                answer: answer.clone(),
            });
        }
    }
}

/// By FNV-1a: whoever finds two URLs of one slot makes challenges as dear as the first one, and no dearer.
fn slot(resource: &str) -> usize {
    let hash = resource
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash).unwrap_or(0).checked_rem(SLOTS).unwrap_or(0)
}
