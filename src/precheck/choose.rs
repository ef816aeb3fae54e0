//! Which of the offers a payment means to take.

use super::{Refused, Terms};
use crate::pricing::Offer;
use crate::supported::Ready;
use crate::x402::{Payable, Payment, Refusal, fits};

/// An offer that a payment may mean, and the way to carry it out.
pub(super) struct Candidate<'a> {
    pub(super) index: usize,
    pub(super) offer: &'a Offer,
    pub(super) ready: Ready,
}

/// The offers that a payment may mean, in order of preference.
///
/// v2 payments name one; v1 and plain ones leave the token open where a network has several, and the signature decides.
/// Facts of a facilitator are those of now, or those that were quoted a moment ago.
///
/// # Errors
///
/// Why none fits, as seen from the offer that comes nearest.
pub(super) fn candidates<'a>(payment: &Payment, terms: &Terms<'a>) -> Result<Vec<Candidate<'a>>, Refused> {
    let mut found = Vec::new();
    let mut nearest: Option<Refusal> = None;
    for (index, offer) in terms.offers.iter().enumerate() {
        for ready in [terms.supported.ready(offer), terms.supported.formerly_ready(offer, terms.now)]
            .into_iter()
            .flatten()
        {
            let payable = Payable {
                offer,
                facts: ready.facts(),
            };
            match fits(payment, &payable) {
                Ok(()) => found.push(Candidate { index, offer, ready }),
                Err(refusal) if nearest.is_none_or(|nearest| progress(refusal) > progress(nearest)) => nearest = Some(refusal),
                Err(_) => {}
            }
        }
    }
    match (found.is_empty(), nearest) {
        (false, _) => Ok(found),
        (true, Some(refusal)) => Err(refusal.into()),
        (true, None) => Err(Refusal::OffersNotReady.into()),
    }
}

/// How many tests a payment passed before it was refused so.
fn progress(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::UnsupportedScheme => 0,
        Refusal::InvalidNetwork => 1,
        Refusal::InvalidAsset => 2,
        Refusal::TransferMethodNotOffered => 3,
        _ => 4,
    }
}
