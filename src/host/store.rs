//! Envoy's shared data as the store that claims live in.

use super::abi;
use crate::replay::{Cas, Conflict, SharedStore};

/// Process-wide data of the plugin's vm_id: survives reloads, not restarts; has no delete and no expiry.
pub(super) struct SharedData;

/// With this version, `set` succeeds only if the key is absent: no key ever reaches it. Getting a key, finding nothing and setting
/// it without a version is a race that lets several workers win.
const ABSENT: u32 = u32::MAX;

impl SharedStore for SharedData {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        abi::shared(key)
    }

    fn compare_and_swap(&self, key: &str, value: &[u8], cas: Cas) -> Result<(), Conflict> {
        let version = match cas {
            Cas::Absent => ABSENT,
            Cas::Version(version) => version,
        };
        abi::set_shared(key, value, version).map_err(|_| Conflict)
    }
}
