//! The form in which the reader hands facts to the gate: a filter-state property that both roles of the module know.
//!
//! `N`; or `U` and a code; or `K` and the code of a key that is not priced; or `J`, the digest (32 bytes), the size (8, big-endian like every number here), then in this order,
//! each of them or not: `M`, a length (2) and the model; `T` and 28 bytes of token facts; `C` and, for each condition, its
//! fingerprint (8) and a code. One set of facts has one form.

use super::facts::{Api, BodyFacts, Facts, MAX_MODEL_BYTES, MAX_OUTCOMES, Outcome, TokenFacts, Why};
use super::unpriced::Unpriced;

/// Codes of the reasons that are alone; their order is the wire's.
const REASONS: [Why; 7] = [
    Why::Encoded,
    Why::NotJson,
    Why::Malformed,
    Why::NotAnObject,
    Why::Duplicate,
    Why::BadModel,
    Why::BadLimit,
];

/// Codes of the protocols.
const APIS: [Api; 6] = [
    Api::Chat,
    Api::Completions,
    Api::Responses,
    Api::Embeddings,
    Api::Messages,
    Api::Other,
];

/// Codes of the outcomes.
const OUTCOMES: [Outcome; 3] = [Outcome::False, Outcome::True, Outcome::Undecided];

/// Facts as bytes, at most 1482 of them.
pub fn encode(facts: &BodyFacts) -> Vec<u8> {
    match facts {
        BodyFacts::None => vec![b'N'],
        BodyFacts::Unreadable(Why::Unpriced(key)) => vec![b'K', key.code()],
        BodyFacts::Unreadable(why) => vec![b'U', code(&REASONS, why)],
        BodyFacts::Json(facts) => {
            let mut out = vec![b'J'];
            out.extend_from_slice(&facts.digest);
            out.extend_from_slice(&u64::try_from(facts.size).unwrap_or(u64::MAX).to_be_bytes());
            if let Some(model) = &facts.model {
                out.push(b'M');
                out.extend_from_slice(&u16::try_from(model.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.extend_from_slice(model.as_bytes());
            }
            if let Some(tokens) = &facts.tokens {
                out.push(b'T');
                encode_tokens(tokens, &mut out);
            }
            if !facts.outcomes.is_empty() {
                out.push(b'C');
                for (fingerprint, outcome) in facts.outcomes.iter().take(MAX_OUTCOMES) {
                    out.extend_from_slice(&fingerprint.to_be_bytes());
                    out.push(code(&OUTCOMES, outcome));
                }
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
        [b'K', code] => Unpriced::of_code(*code).map(Why::Unpriced).map(BodyFacts::Unreadable),
        [b'J', rest @ ..] => decode_json(rest).map(BodyFacts::Json),
        _ => None,
    }
}

fn decode_json(bytes: &[u8]) -> Option<Facts> {
    let (digest, bytes) = bytes.split_first_chunk::<32>()?;
    let (size, mut rest) = number(bytes)?;
    let mut facts = Facts {
        digest: *digest,
        size: usize::try_from(size).ok()?,
        ..Facts::default()
    };
    if let [b'M', after @ ..] = rest {
        let (length, after) = after.split_first_chunk::<2>()?;
        let (model, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let model = core::str::from_utf8(model).ok()?;
        facts.model = Some(model).filter(|model| model.len() <= MAX_MODEL_BYTES)?.to_owned().into();
        rest = after;
    }
    if let [b'T', after @ ..] = rest {
        let (tokens, after) = decode_tokens(after)?;
        facts.tokens = Some(tokens);
        rest = after;
    }
    let [b'C', outcomes @ ..] = rest else {
        return rest.is_empty().then_some(facts);
    };
    rest = outcomes;
    while !rest.is_empty() {
        let (fingerprint, after) = number(rest)?;
        let (code, after) = after.split_first()?;
        facts.outcomes.push((fingerprint, *OUTCOMES.get(usize::from(*code))?));
        rest = after;
    }
    (1..=MAX_OUTCOMES).contains(&facts.outcomes.len()).then_some(facts)
}

fn encode_tokens(tokens: &TokenFacts, out: &mut Vec<u8>) {
    out.push(code(&APIS, &tokens.api));
    // Zero is no maximum that anybody can name.
    for number in [tokens.token_ids, tokens.max_output.unwrap_or(0), tokens.choices] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.push(u8::from(tokens.stream));
    out.push(match tokens.include_usage {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    out.push(u8::from(tokens.external_input));
}

fn decode_tokens(bytes: &[u8]) -> Option<(TokenFacts, &[u8])> {
    let (api, bytes) = bytes.split_first()?;
    let (token_ids, bytes) = number(bytes)?;
    let (max_output, bytes) = number(bytes)?;
    let (choices, bytes) = number(bytes)?;
    let ([stream, include_usage, external_input], rest) = bytes.split_first_chunk::<3>()?;
    let tokens = TokenFacts {
        api: *APIS.get(usize::from(*api))?,
        token_ids,
        max_output: (max_output > 0).then_some(max_output),
        choices: Some(choices).filter(|choices| *choices > 0)?,
        stream: boolean(*stream)?,
        include_usage: match include_usage {
            0 => None,
            flag => Some(boolean(flag.checked_sub(1)?)?),
        },
        external_input: boolean(*external_input)?,
    };
    Some((tokens, rest))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn boolean(byte: u8) -> Option<bool> {
    (byte <= 1).then_some(byte == 1)
}

fn code<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let at = all.iter().position(|other| other == one);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_tokens() -> impl Strategy<Value = TokenFacts> {
        let numbers = (any::<u64>(), proptest::option::of(1u64..), 1u64..);
        let flags = (any::<bool>(), any::<Option<bool>>(), any::<bool>());
        (proptest::sample::select(APIS.to_vec()), numbers, flags).prop_map(|(api, numbers, flags)| TokenFacts {
            api,
            token_ids: numbers.0,
            max_output: numbers.1,
            choices: numbers.2,
            stream: flags.0,
            include_usage: flags.1,
            external_input: flags.2,
        })
    }

    fn any_facts() -> impl Strategy<Value = BodyFacts> {
        let outcome = (any::<u64>(), proptest::sample::select(OUTCOMES.to_vec()));
        let outcomes = proptest::collection::vec(outcome, 0..=MAX_OUTCOMES);
        let tokens = proptest::option::of(any_tokens());
        let json = (proptest::option::of(".{0,60}"), any::<u32>(), any::<[u8; 32]>(), tokens, outcomes);
        let json = json.prop_map(|(model, size, digest, tokens, outcomes)| {
            BodyFacts::Json(Facts {
                model,
                size: size as usize,
                digest,
                tokens,
                outcomes,
            })
        });
        prop_oneof![
            Just(BodyFacts::None),
            proptest::sample::select(REASONS.to_vec()).prop_map(BodyFacts::Unreadable),
            proptest::sample::select(Unpriced::all()).prop_map(|key| BodyFacts::Unreadable(Why::Unpriced(key))),
            json
        ]
    }

    proptest! {
        #[test]
        fn what_is_handed_over_arrives(facts in any_facts()) {
            let bytes = encode(&facts);
            prop_assert!(bytes.len() <= 1482);
            prop_assert_eq!(decode(&bytes), Some(facts));
        }

        #[test]
        fn other_bytes_are_no_facts_or_encode_to_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(facts) = decode(&bytes) {
                prop_assert_eq!(encode(&facts), bytes);
            }
        }

        #[test]
        fn nor_are_bytes_that_were_changed(facts in any_facts(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = encode(&facts);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(facts) = decode(&bytes) {
                prop_assert_eq!(encode(&facts), bytes);
            }
        }
    }
}
