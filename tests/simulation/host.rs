//! One worker: what `src/host` does between Envoy and the gate, and nothing that decides.
//!
//! `stream` has the requests, `response` their answers, `root` the settlements, `store` the shared data. The names are those of `src/host`.

pub mod former;
mod response;
pub mod root;
pub mod store;
pub mod stream;

use std::collections::BTreeMap;

use x402_envoy::gate::{Env, Notes};
use x402_envoy::replay::UnixSeconds;
use x402_envoy::supported::Table;

use super::invariants;
use super::wallet::SECRET;
use super::world::World;
use former::Lineage;
use root::Root;
use store::Shared;
use stream::Stream;

/// A worker and its VM.
pub struct Worker {
    pub index: usize,
    /// Counts the VMs: what was meant for one that was killed happens to nobody.
    pub vm: u32,
    /// Root contexts by their number; the last one has the configuration that new streams get.
    pub roots: BTreeMap<u32, Root>,
    pub streams: BTreeMap<u32, Stream>,
    table: Table,
    pub lineage: Lineage,
    contexts: u32,
}

impl Worker {
    pub fn new(index: usize) -> Self {
        Self {
            index,
            vm: 0,
            roots: BTreeMap::from([(0, Root::default())]),
            streams: BTreeMap::new(),
            table: Table::default(),
            lineage: Lineage::default(),
            contexts: 0,
        }
    }

    fn new_context(&mut self) -> u32 {
        self.contexts += 1;
        self.contexts
    }

    /// The root that new streams belong to.
    fn newest(&self) -> u32 {
        *self.roots.last_key_value().unwrap().0
    }

    fn root(&mut self, root: u32) -> &mut Root {
        self.roots.get_mut(&root).unwrap()
    }

    /// Runs a transition of a gate, over the shared store, and looks at its notes. `root`: with whose configuration; `visit`: whose it is.
    pub fn with_env<T>(&mut self, world: &World, root: u32, visit: Option<usize>, transition: impl FnOnce(&mut Env<'_>) -> T) -> T {
        let root = &self.roots[&root];
        let config = &world.shop.configs[root.list];
        let spend = visit.and_then(|visit| world.spend_of(visit));
        world.touched(spend);
        let shared = Shared::new(world, spend);
        self.table.refresh(&world.store, config);
        let mut notes = Notes::default();
        let result = transition(&mut Env {
            now: UnixSeconds(world.now_ms() / 1000),
            now_ms: world.now_ms(),
            config,
            former: root.former.as_ref().map(|(_, former)| former),
            supported: &self.table,
            store: &shared,
            claims: &world.claims,
            secret: &SECRET,
            mark: &x402_envoy::gate::mark(&SECRET),
            payers: &x402_envoy::evm::Payers::default(),
            leases: &std::cell::RefCell::default(),
            challenges: &std::cell::RefCell::default(),
            random: || [7; 16],
            notes: &mut notes,
        });
        invariants::noted(world, visit, &notes);
        result
    }

    /// The VM is gone: no callback is called, and nothing of it is known any more but what it left in the store.
    pub fn killed(&mut self, world: &World) {
        world.count("worker: killed");
        let streams = std::mem::take(&mut self.streams);
        let jobs = self.roots.values().flat_map(Root::visits);
        let visits: Vec<usize> = streams.values().map(|stream| stream.visit).chain(jobs).collect();
        for visit in visits {
            invariants::orphaned(world, visit);
        }
        self.lineage = Lineage::default();
        let list = self.roots[&self.newest()].list;
        self.roots = BTreeMap::from([(0, Root::new(list, None))]);
        self.vm += 1;
        for stream in streams.into_values() {
            stream.torn(world);
        }
    }

    /// Whether a stream or a settlement of this worker is for a request.
    pub fn has(&self, mut of: impl FnMut(usize) -> bool) -> bool {
        self.streams.values().any(|stream| of(stream.visit)) || self.roots.values().flat_map(Root::visits).any(of)
    }

    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.roots.values().all(Root::is_idle)
    }
}
