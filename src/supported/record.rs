//! The shared record: when to ask next, the newest answer and the one before.

use crate::replay::UnixSeconds;
use crate::x402::facilitator::Supported;

/// Layout: due (8), former_until (8), length of current (4), current, former; integers in little endian.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) due: UnixSeconds,
    pub(super) former_until: UnixSeconds,
    pub(super) current: Option<Supported>,
    pub(super) former: Option<Supported>,
}

impl Record {
    /// A record that cannot be read is an empty one: it is asked for again.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or_default()
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let (due, rest) = bytes.split_first_chunk::<8>()?;
        let (former_until, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (current, former) = rest.split_at_checked(length)?;
        Some(Self {
            due: UnixSeconds(u64::from_le_bytes(*due)),
            former_until: UnixSeconds(u64::from_le_bytes(*former_until)),
            current: decoded(current),
            former: decoded(former),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let encoded = |supported: &Option<Supported>| supported.as_ref().map(Supported::encode).unwrap_or_default();
        let (current, former) = (encoded(&self.current), encoded(&self.former));
        let mut bytes = Vec::with_capacity(current.len().saturating_add(former.len()).saturating_add(20));
        bytes.extend_from_slice(&self.due.0.to_le_bytes());
        bytes.extend_from_slice(&self.former_until.0.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(current.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&current);
        bytes.extend_from_slice(&former);
        bytes
    }
}

fn decoded(bytes: &[u8]) -> Option<Supported> {
    Supported::decode(bytes).ok().filter(|supported| !supported.kinds.is_empty())
}
