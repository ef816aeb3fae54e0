//! The form in which the reader hands facts to the gate: a filter-state property that both roles of the module know.
//!
//! `N`, or `U` and a code, or `J`, the digest (32 bytes), the size (8, big-endian), and `M` with the model or nothing.

use super::facts::{BodyFacts, Facts, MAX_MODEL_BYTES, Why};

/// Codes of the reasons; their order is the wire's.
const REASONS: [Why; 6] = [
    Why::Encoded,
    Why::NotJson,
    Why::Malformed,
    Why::NotAnObject,
    Why::Duplicate,
    Why::BadModel,
];

/// Facts as bytes, at most 298 of them.
pub fn encode(facts: &BodyFacts) -> Vec<u8> {
    match facts {
        BodyFacts::None => vec![b'N'],
        BodyFacts::Unreadable(why) => {
            let code = REASONS.iter().position(|reason| reason == why).unwrap_or(0);
            vec![b'U', u8::try_from(code).unwrap_or(0)]
        }
        BodyFacts::Json(facts) => {
            let mut out = vec![b'J'];
            out.extend_from_slice(&facts.digest);
            out.extend_from_slice(&u64::try_from(facts.size).unwrap_or(u64::MAX).to_be_bytes());
            if let Some(model) = &facts.model {
                out.push(b'M');
                out.extend_from_slice(model.as_bytes());
            }
            out
        }
    }
}

/// The facts that [`encode`] made these bytes of; `None` for any other bytes.
pub fn decode(bytes: &[u8]) -> Option<BodyFacts> {
    match bytes {
        [b'N'] => Some(BodyFacts::None),
        [b'U', code] => REASONS.get(usize::from(*code)).copied().map(BodyFacts::Unreadable),
        [b'J', rest @ ..] => {
            let (digest, rest) = rest.split_first_chunk::<32>()?;
            let (size, rest) = rest.split_first_chunk::<8>()?;
            let model = match rest {
                [] => None,
                [b'M', model @ ..] if model.len() <= MAX_MODEL_BYTES => Some(core::str::from_utf8(model).ok()?.to_owned()),
                _ => return None,
            };
            Some(BodyFacts::Json(Facts {
                model,
                size: usize::try_from(u64::from_be_bytes(*size)).ok()?,
                digest: *digest,
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_facts() -> impl Strategy<Value = BodyFacts> {
        let json = (proptest::option::of(".{0,60}"), any::<u32>(), any::<[u8; 32]>()).prop_map(|(model, size, digest)| {
            BodyFacts::Json(Facts {
                model,
                size: size as usize,
                digest,
            })
        });
        prop_oneof![
            Just(BodyFacts::None),
            proptest::sample::select(REASONS.to_vec()).prop_map(BodyFacts::Unreadable),
            json
        ]
    }

    proptest! {
        #[test]
        fn what_is_handed_over_arrives(facts in any_facts()) {
            prop_assert_eq!(decode(&encode(&facts)), Some(facts));
        }

        #[test]
        fn other_bytes_are_no_facts_or_encode_to_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(facts) = decode(&bytes) {
                prop_assert_eq!(encode(&facts), bytes);
            }
        }
    }
}
