//! What a plugin was configured with before: kept in the VM, which outlives the plugin's configurations.
//!
//! A VM that is made anew (another module, a trap) knows of none. Plugins are told apart by role and name, so that two of one name
//! in one VM would be taken for two configurations of one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::abi;
use crate::config::Config;
use crate::pricing::Former;

/// The last configuration of a plugin that requests came to.
struct Last {
    /// Counts the plugin's configurations.
    generation: u64,
    config: Rc<Config>,
    /// When another one came, in milliseconds since the epoch.
    replaced_ms: Option<u64>,
}

#[derive(Default)]
struct Slot {
    generations: Cell<u64>,
    last: RefCell<Option<Last>>,
}

/// By role and name.
type Slots = BTreeMap<(&'static str, Vec<u8>), Rc<Slot>>;

thread_local! {
    static SLOTS: RefCell<Slots> = RefCell::default();
}

/// A configuration's place among those of its plugin.
pub(super) struct Lineage {
    slot: Rc<Slot>,
    generation: u64,
}

impl Lineage {
    /// Takes up the configuration that this plugin has from now on; the prices of the one before, if they are to stay good for a while.
    ///
    /// What was refused, or never saw a request, is no configuration before.
    pub(super) fn begin(role: &'static str, config: &Config) -> (Self, Option<Former>) {
        let name = abi::property(&["plugin_name"]).unwrap_or_default();
        let slot = SLOTS.with_borrow_mut(|slots| Rc::clone(slots.entry((role, name)).or_default()));
        let generation = slot.generations.get().saturating_add(1);
        slot.generations.set(generation);
        let now_ms = now_ms();
        let former = slot.last.borrow_mut().as_mut().map(|last| {
            let replaced_ms = *last.replaced_ms.get_or_insert(now_ms);
            let until_ms = replaced_ms.saturating_add(config.quote_grace.saturating_mul(1000));
            Former::new(&last.config.routes, &config.routes, until_ms)
        });
        let former = former.filter(|former| former.at(now_ms).is_some());
        (Self { slot, generation }, former)
    }

    /// A request has come to it.
    pub(super) fn is_used(&self, config: &Rc<Config>) {
        let mut last = self.slot.last.borrow_mut();
        match &mut *last {
            // A listener on its way out still has requests, and is the one before all the same.
            Some(last) if last.generation > self.generation => {}
            Some(last) if last.generation == self.generation => last.replaced_ms = None,
            other => {
                *other = Some(Last {
                    generation: self.generation,
                    config: Rc::clone(config),
                    replaced_ms: None,
                });
            }
        }
    }
}

/// The wall clock, in milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    abi::now() / 1_000_000
}
