//! What holds of the meter for any answer in any chunks; shared by the fuzz target and `tests/metering`.

use std::borrow::Cow;

use x402_envoy::metering::{AnswerKind, Meter, Metered};

/// The longest event that a meter may hold back.
const MAX_HELD: usize = 256 * 1024;

/// What a meter makes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The bytes that were passed on.
    pub(crate) passed: Vec<u8>,
    /// What was metered.
    pub(crate) metered: Metered,
}

/// Meters an answer whose chunks have these sizes, over and over; a size of 0 is an empty chunk.
pub(crate) fn meter(kind: AnswerKind, withhold_usage: bool, answer: &[u8], sizes: &[u8]) -> Outcome {
    let mut meter = Meter::new(kind, withhold_usage);
    let mut passed = Vec::new();
    let mut rest = answer;
    let mut sizes = sizes.iter().cycle();
    let mut empty = 0;
    while !rest.is_empty() {
        let size = match sizes.next() {
            Some(0) if empty < 8 => 0,
            Some(size) => usize::from(*size).max(1).min(rest.len()),
            None => rest.len(),
        };
        empty = if size == 0 { empty + 1 } else { 0 };
        let (chunk, after) = rest.split_at(size);
        let out = meter.chunk(chunk);
        assert!(withhold_usage || matches!(out, Cow::Borrowed(bytes) if bytes == chunk));
        passed.extend_from_slice(&out);
        assert!(meter.held_bytes() <= MAX_HELD);
        assert_eq!(meter.metered().delivered_bytes, passed.len() as u64);
        rest = after;
    }
    passed.extend(meter.end());
    assert!(meter.end().is_empty());
    let metered = meter.metered();
    Outcome { passed, metered }
}

/// Two bytes of instructions and the sizes of chunks, then the answer.
pub(crate) fn check(input: &[u8]) {
    let [kind, sizes, rest @ ..] = input else { return };
    let kind = [AnswerKind::Sse, AnswerKind::Json, AnswerKind::Opaque, AnswerKind::Encoded][usize::from(kind % 4)];
    let (sizes, answer) = rest.split_at(usize::from(sizes % 8).min(rest.len()));
    check_answer(kind, answer, sizes);
}

/// Checks an answer in these chunks against the same answer in one.
pub(crate) fn check_answer(kind: AnswerKind, answer: &[u8], sizes: &[u8]) {
    let plain = meter(kind, false, answer, &[]);
    assert_eq!(plain.passed, answer);
    assert_eq!(meter(kind, false, answer, sizes), plain);

    let withheld = meter(kind, true, answer, &[]);
    assert_eq!(meter(kind, true, answer, sizes), withheld);
    assert!(is_part(&withheld.passed, answer));
    assert!(kind == AnswerKind::Sse || withheld == plain);
    let is_all = withheld.passed.len() == answer.len();
    assert!(is_all || plain.metered.usage.is_some() || contains(answer, b"usage") || contains(answer, b"\\u"));

    let Metered { delivered_bytes, .. } = withheld.metered;
    assert_eq!(delivered_bytes, withheld.passed.len() as u64);
    assert_eq!(
        Metered {
            delivered_bytes,
            ..plain.metered
        },
        withheld.metered
    );

    let usage = plain.metered.usage.unwrap_or_default();
    assert!(usage.cached_input <= usage.input && usage.reasoning <= usage.output);
    assert!(plain.metered.uncounted_text_bytes <= plain.metered.delivered_text_bytes);
    assert!(plain.metered.delivered_text_bytes <= plain.metered.delivered_bytes);
    assert!(plain.metered.tokens(7).output >= usage.output);
}

/// Whether `part` is `whole` with some bytes left out.
fn is_part(part: &[u8], whole: &[u8]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|byte| whole.any(|other| other == byte))
}

fn contains(answer: &[u8], word: &[u8]) -> bool {
    answer.windows(word.len()).any(|window| window == word)
}
