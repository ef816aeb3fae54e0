//! What a plugin was configured with before: kept in the VM, which outlives the plugin's configurations.
//!
//! A VM that is made anew (another module, a trap) knows of none. Plugins are told apart by role and name, so that two of one name
//! in one VM would be taken for two configurations of one.
//!
//! Reader and gate must mean the same by it: the limits that the reader writes into a body are those of the price that the gate takes. A
//! request that comes to one of them, as a GET may, therefore counts for the other too, if its configuration is the same; and the reader
//! tells the gate which one it has had in mind ([`Lineage::former`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::abi;
use super::configured::Configured;
use crate::config::Config;
use crate::pricing::Former;

/// The last configuration of a plugin that requests came to.
struct Last {
    /// Counts the plugin's configurations.
    generation: u64,
    fingerprint: u64,
    config: Rc<Config>,
    /// When another one came, in milliseconds since the epoch.
    replaced_ms: Option<u64>,
}

#[derive(Default)]
struct Slot {
    generations: Cell<u64>,
    /// Each that has not gone: its generation and fingerprint.
    alive: RefCell<Vec<(u64, u64, Weak<Config>)>>,
    last: RefCell<Option<Last>>,
}

impl Slot {
    /// A request has come to a configuration of this plugin.
    fn is_used(&self, generation: u64, fingerprint: u64, config: &Rc<Config>) {
        let mut last = self.last.borrow_mut();
        match &mut *last {
            // A listener on its way out still has requests, and is the one before all the same.
            Some(last) if last.generation > generation => {}
            Some(last) if last.generation == generation => last.replaced_ms = None,
            other => {
                *other = Some(Last {
                    generation,
                    fingerprint,
                    config: Rc::clone(config),
                    replaced_ms: None,
                });
            }
        }
    }

    /// The newest of its configurations with this fingerprint.
    fn alive(&self, fingerprint: u64) -> Option<(u64, Rc<Config>)> {
        let alive = self.alive.borrow();
        let same = alive.iter().rev().filter(|(_, found, _)| *found == fingerprint);
        same.filter_map(|(generation, _, config)| Some((*generation, config.upgrade()?)))
            .next()
    }
}

/// By role and name.
type Slots = BTreeMap<(&'static str, Vec<u8>), Rc<Slot>>;

thread_local! {
    static SLOTS: RefCell<Slots> = RefCell::default();
    /// Counts configurations, of whichever plugin.
    static EPOCH: Cell<u64> = const { Cell::new(0) };
}

/// A configuration's place among those of its plugin.
pub(super) struct Lineage {
    slot: Rc<Slot>,
    generation: u64,
    fingerprint: u64,
    /// The configuration before, by its fingerprint; 0 if there is none.
    former: u64,
    /// The epoch in which a request came last.
    used: Cell<u64>,
}

impl Lineage {
    /// Takes up the configuration that this plugin has from now on; the prices of the one before, if they are to stay good for a while.
    ///
    /// What was refused, or never saw a request, is no configuration before.
    pub(super) fn begin(role: &'static str, configured: &Configured) -> (Self, Option<Former>) {
        let Configured { config, fingerprint } = configured;
        let name = abi::property(&["plugin_name"]).unwrap_or_default();
        let slot = SLOTS.with_borrow_mut(|slots| Rc::clone(slots.entry((role, name)).or_default()));
        let generation = slot.generations.get().saturating_add(1);
        slot.generations.set(generation);
        EPOCH.set(EPOCH.get().saturating_add(1));
        let mut alive = slot.alive.borrow_mut();
        alive.retain(|(_, _, config)| config.strong_count() > 0);
        alive.push((generation, *fingerprint, Rc::downgrade(config)));
        drop(alive);
        let now_ms = now_ms();
        let former = slot.last.borrow_mut().as_mut().map(|last| {
            let replaced_ms = *last.replaced_ms.get_or_insert(now_ms);
            let until_ms = replaced_ms.saturating_add(config.quote_grace.saturating_mul(1000));
            (last.fingerprint, Former::new(&last.config.routes, &config.routes, until_ms))
        });
        let former = former.filter(|(_, former)| former.at(now_ms).is_some());
        let (former_fingerprint, former) = former.unzip();
        let lineage = Self {
            slot,
            generation,
            fingerprint: *fingerprint,
            former: former_fingerprint.unwrap_or(0),
            used: Cell::new(0),
        };
        (lineage, former)
    }

    /// A request has come to it.
    pub(super) fn is_used(&self, config: &Rc<Config>) {
        let epoch = EPOCH.get();
        // It says nothing new until another configuration comes.
        if self.used.replace(epoch) == epoch {
            return;
        }
        self.slot.is_used(self.generation, self.fingerprint, config);
        SLOTS.with_borrow(|slots| {
            for slot in slots.values().filter(|slot| !Rc::ptr_eq(slot, &self.slot)) {
                if let Some((generation, config)) = slot.alive(self.fingerprint) {
                    slot.is_used(generation, self.fingerprint, &config);
                }
            }
        });
    }

    /// Which configuration was before, for comparison only: 0 if none was.
    pub(super) fn former(&self) -> u64 {
        self.former
    }
}

/// The wall clock, in milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    abi::now() / 1_000_000
}
