//! The meter on answers of each API, in any chunks.
//!
//! The answers in `streams` are written after the APIs' documents and read alike by the official SDKs: the expected
//! counts are those of the `openai` (3.52) and `anthropic` (2.11) packages for Python.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)] // tests

mod generated;

#[path = "../../fuzz/checks/metering.rs"]
mod checks;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use x402_envoy::metering::{AnswerKind, Usage};

use checks::{check, check_answer, meter};

/// File, [input, cached, output, reasoning], bytes of text if it is a stream.
type Expected = (&'static str, Option<[u64; 4]>, Option<u64>);

const ANSWERS: [Expected; 14] = [
    ("chat.json", Some([2006, 1920, 300, 128]), None),
    ("chat.sse", Some([1217, 1024, 18, 0]), Some(60)),
    ("chat_no_usage.sse", None, Some(60)),
    ("chat_odd_framing.sse", Some([11, 0, 3, 0]), Some(7)),
    ("chat_reasoning_running_usage.sse", Some([32, 6, 96, 94]), Some(18)),
    ("chat_tools_crlf.sse", Some([83, 0, 41, 12]), Some(92)),
    ("completions.json", Some([5, 0, 7, 0]), None),
    ("completions.sse", Some([5, 0, 4, 0]), Some(16)),
    ("embeddings.json", Some([24, 0, 0, 0]), None),
    ("messages.json", Some([1233, 1024, 503, 0]), None),
    ("messages.sse", Some([1233, 1024, 89, 0]), Some(86)),
    ("messages_server_tools.sse", Some([11894, 1024, 510, 0]), Some(9)),
    ("responses.json", Some([328, 256, 152, 128]), None),
    ("responses.sse", Some([328, 256, 152, 128]), Some(65)),
];

fn streams() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metering/streams")
}

fn answer(name: &str) -> (AnswerKind, Vec<u8>) {
    let kind = if name.ends_with(".sse") {
        AnswerKind::Sse
    } else {
        AnswerKind::Json
    };
    (kind, fs::read(streams().join(name)).unwrap())
}

/// The events of a stream that ends its lines with LF or CRLF, each with its blank line.
fn without(answer: &[u8], is_left_out: impl Fn(&str) -> bool) -> String {
    let text = String::from_utf8(answer.to_vec()).unwrap();
    let end = if text.contains("\r\n") { "\r\n\r\n" } else { "\n\n" };
    text.split_inclusive(end).filter(|event| !is_left_out(event)).collect()
}

#[test]
fn each_answer_is_metered_as_the_sdks_read_it() {
    assert_eq!(fs::read_dir(streams()).unwrap().count(), ANSWERS.len());
    for (name, usage, text) in ANSWERS {
        let (kind, answer) = answer(name);
        let metered = meter(kind, false, &answer, &[]).metered;
        let usage = usage.map(|[input, cached_input, output, reasoning]| Usage {
            input,
            cached_input,
            output,
            reasoning,
        });
        assert_eq!(metered.usage, usage, "{name}");
        assert_eq!(metered.delivered_bytes, answer.len() as u64, "{name}");
        assert_eq!(metered.delivered_text_bytes, text.unwrap_or(answer.len() as u64), "{name}");
        let uncounted = if usage.is_some() { 0 } else { metered.delivered_text_bytes };
        assert_eq!(metered.uncounted_text_bytes, uncounted, "{name}");
        assert!(metered.finished, "{name}");
    }
}

#[test]
fn only_the_usage_chunk_is_withheld() {
    for (name, ..) in ANSWERS {
        let (kind, answer) = answer(name);
        let length = answer.len();
        let passed = String::from_utf8(meter(kind, true, &answer, &[]).passed).unwrap();
        let expected = match name {
            "chat_odd_framing.sse" => {
                let text = String::from_utf8(answer).unwrap();
                let (from, to) = (text.find("id: 2").unwrap(), text.find("data: [DONE]").unwrap());
                format!("{}{}", &text[..from], &text[to..])
            }
            _ => without(&answer, |event| event.contains("\"choices\":[],\"usage\":{")),
        };
        assert_eq!(passed, expected, "{name}");
        let is_changed = ["chat.sse", "chat_odd_framing.sse", "chat_tools_crlf.sse", "completions.sse"].contains(&name);
        assert_eq!(passed.len() < length, is_changed, "{name}");
    }
}

#[test]
fn a_client_that_leaves_pays_for_what_it_got() {
    let (kind, answer) = answer("messages.sse");
    let cut = String::from_utf8(answer).unwrap();
    let cut = &cut[..cut.find("s check").unwrap()];
    let metered = meter(kind, false, cut.as_bytes(), &[]).metered;
    assert!(!metered.finished);
    // The 40 bytes of thinking and text before the cut, beside the one token that the start of the message counts.
    assert_eq!(metered.delivered_text_bytes, 40);
    let tokens = metered.tokens(5000);
    assert_eq!((tokens.input, tokens.output), (1233, 1 + 10));
}

#[test]
fn any_split_in_two_is_the_same_answer() {
    for (name, ..) in ANSWERS {
        let (kind, answer) = answer(name);
        for withhold in [false, true] {
            let whole = meter(kind, withhold, &answer, &[]);
            for size in 1..=255 {
                assert_eq!(meter(kind, withhold, &answer, &[size]), whole, "{name} by {size}");
            }
        }
    }
}

#[test]
fn a_body_of_any_size_is_metered() {
    let text = "\\\"usage\\\": {\\\"prompt_tokens\\\": 1}, \\u00e9".repeat(200_000);
    let lie = "{\"usage\":{\"prompt_tokens\":1}},".repeat(10_000);
    let body = format!("{{\"choices\":[{lie}{{\"text\":\"{text}\"}}],\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":6}}}}");
    let metered = meter(AnswerKind::Json, true, body.as_bytes(), &[255]).metered;
    assert_eq!(
        metered.usage,
        Some(Usage {
            input: 5,
            output: 6,
            ..Usage::default()
        })
    );
    let stream = format!(
        "data: {}\n\ndata: [DONE]\n\n",
        body.replace("\"choices\":[", "\"type\":\"response.completed\",\"response\":[],\"x\":[")
    );
    let metered = meter(AnswerKind::Sse, true, stream.as_bytes(), &[255]).metered;
    assert_eq!((metered.usage.unwrap().input, metered.finished), (5, true));
}

#[test]
fn the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/metering");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

fn any_sizes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![0u8..4, 0u8..40, any::<u8>()], 1..8)
}

proptest! {
    #[test]
    fn any_chunks_are_the_same_answer(index in 0..ANSWERS.len(), sizes in any_sizes()) {
        let (kind, answer) = answer(ANSWERS[index].0);
        check_answer(kind, &answer, &sizes);
    }

    #[test]
    fn what_holds_of_answers_holds_of_damaged_ones(
        index in 0..ANSWERS.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..30, "[\\[\\]{}\",:\\\\\n\r\u{feff}datu0é ]{0,4}"), 0..6),
        sizes in any_sizes(),
    ) {
        let (kind, mut answer) = answer(ANSWERS[index].0);
        for (at, length, text) in damage {
            let at = at.index(answer.len() + 1);
            let end = (at + length).min(answer.len());
            answer.splice(at..end, text.bytes());
        }
        check_answer(kind, &answer, &sizes);
    }

    #[test]
    fn any_bytes_are_an_answer(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&input);
    }

    #[test]
    fn any_text_is_a_stream(text in "(data|data:|: |id: 1|\\{|\"choices\":|\\[|\\]|\"usage\":|\\}|,|\r|\n|\n\n|\u{feff}|1|\"|\\\\){0,60}", sizes in any_sizes()) {
        check_answer(AnswerKind::Sse, text.as_bytes(), &sizes);
    }
}
