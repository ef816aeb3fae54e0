//! What one payer may ask for.

use super::super::client::Visit;
use super::super::shop::Way;
use super::super::wallet::Payment;
use super::super::world::World;
use super::{must, violated};

/// A request goes on with a payment of its own.
pub fn let_in(world: &World, visit: usize, seen: &Visit, payment: &Payment) {
    let Some((seconds, most)) = world.shop.limit.filter(|_| !seen.resumes) else {
        return;
    };
    let mut all = world.let_in.borrow_mut();
    let times = all.entry((payment.payer, payment.way == Way::Solana)).or_default();
    times.push(seen.came_at);
    let since = seen.came_at.saturating_sub(seconds * 1000);
    let lately = times.iter().filter(|at| **at > since && **at <= seen.came_at).count();
    // In parts of two windows; and those that had to be vouched for were counted later than they came, in another one perhaps.
    must!(
        lately as u64 <= 3 * most,
        "payers are limited",
        "visit {visit} is the {lately}th of its payer within {seconds} s, of {most}"
    );
}
