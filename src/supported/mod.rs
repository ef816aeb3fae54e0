//! What facilitators say of themselves (`GET /supported`), fetched by one worker and shared by all.
//!
//! Some offers cannot be made without it: `upto` names the facilitator's address, Solana's `exact` its fee payer. Every worker
//! must quote the same, so the answer lives in shared data; and because a quote must outlive the fact it was made from, the facts
//! of the answer before stay valid for [`GRACE`].

mod record;
#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::evm::Address;
use crate::pricing::{Offer, Scheme, Transfer};
use crate::replay::{Cas, SharedStore, UnixSeconds};
use crate::x402::Facts;
use crate::x402::facilitator::Supported;

use record::Record;

/// How long a good answer is used before it is asked for again, in seconds.
const REFRESH: u64 = 300;
/// How long to wait after a failure, in seconds.
const RETRY: u64 = 5;
/// How long one worker has the sole right to ask, in seconds.
const LEASE: u64 = 15;
/// How long a former fact stays valid for payments that were quoted with it, in seconds.
const GRACE: u64 = 60;

/// What one facilitator is known to support.
#[derive(Clone, Debug, Default)]
struct Known {
    /// The version of the shared record that this was read from.
    version: Option<u32>,
    record: Record,
}

impl Known {
    fn former(&self, now: UnixSeconds) -> Option<&Supported> {
        self.record.former.as_ref().filter(|_| self.record.former_until > now)
    }
}

/// What is known of each facilitator, by its index in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Table {
    known: Vec<Known>,
}

/// A way to carry out an offer now: which facilitator, and the facts that the requirements state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Index into the configuration's facilitators.
    pub facilitator: usize,
    /// `upto` with Permit2: the account that may settle.
    pub facilitator_address: Option<Box<str>>,
    /// Solana: who pays the network's fee.
    pub fee_payer: Option<Box<str>>,
}

impl Ready {
    /// The facts as requirements state them.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            facilitator_address: self.facilitator_address.as_deref(),
            fee_payer: self.fee_payer.as_deref(),
        }
    }

    /// Whether this is the account that may settle.
    pub fn is_facilitator(&self, account: Address) -> bool {
        self.facilitator_address.as_deref().and_then(|text| text.parse::<Address>().ok()) == Some(account)
    }
}

impl Table {
    /// Takes over what the workers share. Cheap where nothing has changed: a read of each record, and no decoding.
    pub fn refresh(&mut self, store: &dyn SharedStore, config: &Config) {
        self.known.resize(config.facilitators.len(), Known::default());
        for (index, known) in self.known.iter_mut().enumerate() {
            let Some((bytes, version)) = key(config, index).and_then(|key| store.get(&key)) else {
                continue;
            };
            if known.version != Some(version) {
                *known = Known {
                    version: Some(version),
                    record: Record::decode(&bytes),
                };
            }
        }
    }

    /// What the facilitator at this index is known to support.
    pub fn known(&self, facilitator: usize) -> Option<&Supported> {
        self.known.get(facilitator)?.record.current.as_ref()
    }

    /// When the facilitator at this index last answered, whichever worker asked; `None` if it has been asked again since, or was never heard.
    pub fn heard_at(&self, facilitator: usize, now: UnixSeconds) -> Option<UnixSeconds> {
        // Only a good answer puts the next turn off for so long.
        let due = self.known.get(facilitator)?.record.due.0;
        let is_known = due > now.0.saturating_add(LEASE);
        is_known.then(|| UnixSeconds(due.saturating_sub(REFRESH)))
    }

    /// How an offer can be made now; `None` while a fact that it needs is not known.
    pub fn ready(&self, offer: &Offer) -> Option<Ready> {
        self.ways(offer, |known| known.record.current.as_ref()).next()
    }

    /// The same with facts that were quoted a moment ago.
    pub fn formerly_ready(&self, offer: &Offer, now: UnixSeconds) -> Option<Ready> {
        if needs(offer) == Need::Nothing {
            return None;
        }
        self.ways(offer, |known| known.former(now)).next()
    }

    /// The way after this one, for a facilitator that cannot be reached; `None` where the payment is bound to the one it was made for.
    pub fn next(&self, offer: &Offer, after: &Ready) -> Option<Ready> {
        if needs(offer) != Need::Nothing {
            return None;
        }
        self.ways(offer, |known| known.record.current.as_ref())
            .skip_while(|way| way != after)
            .nth(1)
    }

    fn ways<'a>(&'a self, offer: &'a Offer, pick: impl Fn(&'a Known) -> Option<&'a Supported> + 'a) -> impl Iterator<Item = Ready> + 'a {
        let network = &offer.asset.network;
        offer.facilitators.iter().filter_map(move |&facilitator| {
            let said = || self.known.get(facilitator).and_then(&pick);
            let (facilitator_address, fee_payer) = match needs(offer) {
                Need::Nothing => (None, None),
                Need::FacilitatorAddress => (Some(said()?.facilitator_address(network)?.into()), None),
                Need::FeePayer => (None, Some(said()?.fee_payer(network)?.into())),
            };
            Some(Ready {
                facilitator,
                facilitator_address,
                fee_payer,
            })
        })
    }
}

#[derive(PartialEq, Eq)]
enum Need {
    Nothing,
    FacilitatorAddress,
    FeePayer,
}

fn needs(offer: &Offer) -> Need {
    match (&offer.transfer, offer.scheme) {
        (Transfer::Solana, _) => Need::FeePayer,
        (Transfer::Permit2, Scheme::Upto) => Need::FacilitatorAddress,
        _ => Need::Nothing,
    }
}

/// Whether any offer depends on what a facilitator says of itself.
pub fn is_needed(config: &Config) -> bool {
    config.routes.iter().any(|route| needs_facts(&route.offers))
}

/// The same of some offers.
pub fn needs_facts(offers: &[Offer]) -> bool {
    offers.iter().any(|offer| needs(offer) != Need::Nothing)
}

/// Takes the right to ask a facilitator, if it is time to and no other worker has it.
pub fn take_turn(store: &dyn SharedStore, config: &Config, facilitator: usize, now: UnixSeconds) -> bool {
    let Some(key) = key(config, facilitator) else { return false };
    let (mut record, cas) = load(store, &key);
    if record.due.0 > now.0 {
        return false;
    }
    record.due = UnixSeconds(now.0.saturating_add(LEASE));
    store.compare_and_swap(&key, &record.encode(), cas).is_ok()
}

/// Shares an answer, or with `None` that there was none.
///
/// A lost race is no loss: the other worker's answer is as good, and the next turn comes.
pub fn share(store: &dyn SharedStore, config: &Config, facilitator: usize, answer: Option<Supported>, now: UnixSeconds) {
    let Some(key) = key(config, facilitator) else { return };
    let (mut record, cas) = load(store, &key);
    match answer {
        Some(fresh) => {
            if record.current.as_ref().is_some_and(|current| *current != fresh) {
                record.former = record.current.take();
                record.former_until = UnixSeconds(now.0.saturating_add(GRACE));
            }
            record.current = Some(fresh);
            record.due = UnixSeconds(now.0.saturating_add(REFRESH));
        }
        None => record.due = UnixSeconds(now.0.saturating_add(RETRY)),
    }
    let _ = store.compare_and_swap(&key, &record.encode(), cas);
}

/// Offers that none of their facilitators says it supports, all of them having been heard: a line each, for the log.
pub fn unsupported(config: &Config, table: &Table) -> Vec<String> {
    let offers = config
        .routes
        .iter()
        .flat_map(|route| route.offers.iter().map(move |offer| (route, offer)));
    offers
        .filter(|(_, offer)| {
            offer
                .facilitators
                .iter()
                .all(|index| table.known(*index).is_some_and(|said| !supports(said, offer)))
        })
        .map(|(route, offer)| {
            let (scheme, asset) = (offer.scheme.name(), &offer.asset);
            format!(
                "no facilitator says that it supports {scheme} on {}, which route {} offers for {}",
                asset.network, route.name, asset.symbol
            )
        })
        .collect()
}

fn supports(said: &Supported, offer: &Offer) -> bool {
    let speaks = said.speaks(offer);
    speaks.v1 || speaks.v2
}

fn load(store: &dyn SharedStore, key: &str) -> (Record, Cas) {
    match store.get(key) {
        Some((bytes, version)) => (Record::decode(&bytes), Cas::Version(version)),
        None => (Record::default(), Cas::Absent),
    }
}

/// Named for what is asked, not for its place in the list: a reload may move it.
fn key(config: &Config, facilitator: usize) -> Option<String> {
    let facilitator = config.facilitators.get(facilitator)?;
    Some(format!(
        "x402/supported/{}/{}{}",
        facilitator.cluster, facilitator.authority, facilitator.path_prefix
    ))
}
