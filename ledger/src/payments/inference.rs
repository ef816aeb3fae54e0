//! Whether "nonce used" counts as settled where nothing proves it: for little money, and for one payment of a payer in an hour.

use x402_envoy::config::Config;
use x402_envoy::pricing::{Asset, Atomic};
use x402_envoy::replay::{Bans, ClaimKey, MemoryStore, UnixSeconds};
use x402_envoy::x402::Network;

use super::facilitator::now_seconds;

/// How long a payer whose settlement was inferred is not trusted so again, in seconds.
const HOUR: u64 = 3600;

/// `settlement.accept_used_nonce_up_to`, and who has been trusted so.
pub(super) struct Inference {
    limits: Vec<(Box<str>, u64)>,
    assets: Vec<Asset>,
    room: u32,
    secret: [u8; 16],
    trusted: MemoryStore,
}

impl Inference {
    pub(super) fn new(config: &Config, secret: [u8; 16]) -> Self {
        let offers = config.routes.iter().flat_map(|route| route.offers.iter());
        Self {
            limits: config.settlement.accept_used_nonce_up_to.clone(),
            assets: offers.map(|offer| offer.asset.clone()).collect(),
            room: config.max_claims,
            secret,
            trusted: MemoryStore::new(),
        }
    }

    /// So many millionths of a currency, by this payer.
    pub(super) fn infers(&self, currency: &str, millionths: u64, payer: &str) -> bool {
        let limit = self.limits.iter().find(|(name, _)| **name == *currency);
        if limit.is_none_or(|(_, most)| millionths > *most) {
            return false;
        }
        let (payer, now) = (ClaimKey::payer(&self.secret, "", "inferred", payer), UnixSeconds(now_seconds()));
        let until = UnixSeconds(now.0.saturating_add(HOUR));
        Bans::new(self.room).ban_first(&self.trusted, &payer, until, now) == Ok(true)
    }

    /// So much of a token by its address: of one that is not for sale here nothing is inferred.
    pub(super) fn infers_of(&self, network: &Network, address: &str, amount: &str, payer: &str) -> bool {
        let same = |asset: &&Asset| asset.network == *network && asset.address.eq_ignore_ascii_case(address);
        let Some(asset) = self.assets.iter().find(same) else { return false };
        let amount = amount.parse().ok().map(|amount| never_less(Atomic(amount), asset.decimals));
        amount.is_some_and(|millionths| self.infers(&asset.currency, millionths, payer))
    }
}

/// In millionths of a token, rounded up.
pub(super) fn never_less(amount: Atomic, decimals: u8) -> u64 {
    let whole = amount.millionths(decimals);
    let is_more = decimals > 6 && whole < u128::MAX && amount.0 != 0;
    u64::try_from(whole.saturating_add(u128::from(is_more))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_stake_is_never_told_less() {
        assert_eq!(never_less(Atomic(1_000_000), 6), 1_000_000);
        assert_eq!(never_less(Atomic(1_000_000_000_000_000_001), 18), 1_000_001);
    }
}
