//! The prices of the configuration before: `src/host/former.rs`.

use x402_envoy::pricing::Former;

use super::super::shop::Route;
use super::super::wallet::Quotes;
use super::super::world::World;
use super::root::Root;

/// For how long they are good, in milliseconds: `quote_grace`.
const GRACE: u64 = 60_000;

/// The last configuration that requests came to.
#[derive(Default)]
pub struct Lineage {
    last: Option<Last>,
}

struct Last {
    root: u32,
    list: usize,
    replaced_ms: Option<u64>,
}

impl Lineage {
    /// Another configuration comes: the prices of the one before, if they are to stay good.
    pub fn former(&mut self, world: &World, list: usize) -> Option<(usize, Former)> {
        let now = world.now_ms();
        let last = self.last.as_mut()?;
        let until = *last.replaced_ms.get_or_insert(now) + GRACE;
        let [before, after] = [last.list, list].map(|list| &world.shop.configs[list].routes);
        let former = Former::new(before, after, until);
        former.at(now).is_some().then_some((last.list, former))
    }

    /// A request has come to a root.
    pub fn is_used(&mut self, root: u32, list: usize) {
        match &mut self.last {
            Some(last) if last.root > root => {}
            Some(last) if last.root == root => last.replaced_ms = None,
            other => {
                *other = Some(Last {
                    root,
                    list,
                    replaced_ms: None,
                });
            }
        }
    }
}

impl Root {
    /// What a request costs.
    pub fn quotes(&self, route: &Route, now_ms: u64) -> Quotes {
        let former = self.former.as_ref().filter(|(_, former)| former.at(now_ms).is_some());
        Quotes {
            now: route.quote(self.list),
            former: former.map(|(list, _)| route.quote(*list)),
        }
    }
}
