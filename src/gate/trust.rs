//! Trust in the payers of metered answers, who have them before they pay: how much is given, and to whom none is for a while.

use super::env::Env;
use super::sale::Sale;
use crate::pricing::{Asset, Atomic};
use crate::replay::{ClaimKey, Limits, RateLimits, Trust};

/// The trust that a metered sale takes, and its limits; `None`: it takes none, or it is not limited.
pub(super) fn of(sale: &Sale, env: &Env<'_>) -> Option<(Trust, Limits)> {
    let (route, offer) = (sale.route(env)?, sale.offer(env)?);
    let currency = &offer.asset.currency;
    let limits = sale.terms(env)?.limits(currency)?;
    let trust = Trust {
        payer: ClaimKey::payer(env.secret, &route.name, currency, &sale.payer),
        all: ClaimKey::all_payers(env.secret, &route.name, currency),
        amount: millionths(offer.amount, &offer.asset),
        expiry: sale.hold.expiry(),
    };
    let limits = Limits {
        payer: limits.payer,
        total: limits.total,
    };
    Some((trust, limits))
}

/// Whether a metered payment is good for so short a time that its answer could outlive it; what to say then.
///
/// Official clients sign for `maxTimeoutSeconds`; half of that is left to slow ones. A stream is ended in time to be settled, so that
/// nobody gains anything by a payment that expires while its answer is on its way: see [`Sale::longest_ms`].
pub(super) fn too_short(sale: &Sale, env: &Env<'_>) -> Option<String> {
    sale.terms(env)?;
    let (left, asked) = (sale.seconds_left(env), sale.offer(env)?.max_timeout_seconds);
    let least = asked.div_ceil(2);
    (left < least).then(|| format!("valid for {left} s more: sign for maxTimeoutSeconds, {asked} s; at least {least} s must be left"))
}

/// For how many seconds the sale's payer is not served, if it is banned.
pub(super) fn banned(sale: &Sale, env: &Env<'_>) -> Option<u32> {
    let terms = sale.terms(env)?;
    if terms.ban_seconds == 0 {
        return None;
    }
    let left = env.bans().banned(env.store, &key(sale, env)?, env.now)?;
    // A ban of a configuration before may have been longer.
    Some(u32::try_from(left.min(terms.ban_seconds)).unwrap_or(u32::MAX))
}

/// Serves the sale's payer no more for a while: what it had was not paid for.
pub(super) fn ban(sale: &Sale, env: &mut Env<'_>) {
    let seconds = sale.terms(env).map_or(0, |terms| terms.ban_seconds);
    let Some(key) = key(sale, env).filter(|_| seconds > 0) else {
        return;
    };
    let until = env.now.plus(seconds);
    if env.bans().ban(env.store, &key, until, env.now).is_err() {
        env.notes
            .warnings
            .push("a payer could not be banned: the shared data is contended".into());
    }
}

/// What the sale's payer is counted under, where payers are limited.
pub(super) fn rate(sale: &Sale, env: &Env<'_>) -> Option<(ClaimKey, RateLimits, u64)> {
    // One whom nobody names would be counted with all others like it.
    let limits = env.config.payer_limits.as_ref().filter(|_| !sale.payer.is_empty())?;
    let offer = sale.offer(env)?;
    let currency = &offer.asset.currency;
    let spend = limits.spend.iter().find(|(limited, _)| limited == currency);
    let limits = RateLimits {
        window_ms: limits.window_ms,
        requests: limits.requests,
        spend: spend.map(|(_, most)| *most),
        cooldown_ms: limits.cooldown_ms,
    };
    let payer = ClaimKey::payer(env.secret, "", currency, &sale.payer);
    Some((payer, limits, millionths(offer.amount, &offer.asset)))
}

/// Less was settled than the quote, which the payer was counted for.
pub(super) fn refund(sale: &Sale, settled: Atomic, env: &Env<'_>) {
    if let Some(offer) = sale.offer(env) {
        let quoted = millionths(offer.amount, &offer.asset);
        sale.hold.refund(quoted.saturating_sub(millionths(settled, &offer.asset)), env);
    }
}

/// Whether "nonce used" counts as settled where nothing proves it: for little money, and for one payment of a payer in an hour.
pub(super) fn infers(sale: &Sale, amount: Atomic, env: &mut Env<'_>) -> bool {
    const HOUR: u64 = 3600;
    let Some(offer) = sale.offer(env) else { return false };
    let limits = &env.config.settlement.accept_used_nonce_up_to;
    let limit = limits.iter().find(|(currency, _)| *currency == offer.asset.currency);
    if limit.is_none_or(|(_, most)| millionths(amount, &offer.asset) > *most) {
        return false;
    }
    let payer = ClaimKey::payer(env.secret, "", "inferred", &sale.payer);
    env.bans().ban_first(env.store, &payer, env.now.plus(HOUR), env.now) == Ok(true)
}

fn key(sale: &Sale, env: &Env<'_>) -> Option<ClaimKey> {
    Some(ClaimKey::payer(env.secret, &sale.route(env)?.name, "", &sale.payer))
}

/// Never less than it is.
fn millionths(amount: Atomic, asset: &Asset) -> u64 {
    let whole = amount.millionths(asset.decimals);
    let is_more = asset.decimals > 6 && whole < u128::MAX && amount.0 != 0;
    u64::try_from(whole.saturating_add(u128::from(is_more))).unwrap_or(u64::MAX)
}
