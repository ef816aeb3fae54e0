//! The shared data as one worker sees it: between any two operations, another worker may come first.

use std::cell::Cell;

use x402_envoy::replay::{Cas, Conflict, MAX_TRIES, SharedStore};

use super::super::world::World;

/// How many events may be in the middle of one another.
const DEEPEST: u32 = 4;

/// The store, for one transition.
pub struct Shared<'a> {
    world: &'a World,
    spend: Option<usize>,
    /// How many more writes fail because others are faster each time.
    storm: Cell<u32>,
}

impl<'a> Shared<'a> {
    pub fn new(world: &'a World, spend: Option<usize>) -> Self {
        Self {
            world,
            spend,
            storm: Cell::new(0),
        }
    }
}

impl SharedStore for Shared<'_> {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.world.meanwhile(DEEPEST, 30);
        self.world.store.get(key)
    }

    /// Between the read and this write, others write.
    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        if let Some(fewer) = self.storm.get().checked_sub(1) {
            self.storm.set(fewer);
            return Err(Conflict);
        }
        if self.world.rough && !self.world.calm.get() && self.world.random.below(3000) == 0 {
            self.world.count("store: contended");
            self.world.stuck(self.spend);
            self.storm.set(MAX_TRIES - 1);
            return Err(Conflict);
        }
        self.world.meanwhile(DEEPEST, 120);
        let outcome = self.world.store.compare_and_swap(key, value, cas);
        match outcome {
            Ok(()) => self.world.wrote(key),
            Err(Conflict) => self.world.count("store: conflict"),
        }
        outcome
    }
}
