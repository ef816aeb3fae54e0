//! Streams of which it is known how they were made: what they mean is not read from them.

use proptest::prelude::*;
use serde_json::{Value, json};
use x402_envoy::metering::{AnswerKind, Usage};

use crate::checks::meter;

/// One event of a chat completion's stream.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Comment(String),
    /// Usage with no choice beside it.
    Usage(u32, u32),
    /// Usage with text.
    Running(String, u32, u32),
    /// JSON that nests a usage where it does not count.
    Lie(u32),
    Garbage(String),
    Done,
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => "\\PC{0,20}|[\"\\\\\n{}:]{0,9}".prop_map(Part::Text),
        1 => "[ -~é]{0,20}".prop_map(Part::Comment),
        2 => (any::<u32>(), any::<u32>()).prop_map(|(input, output)| Part::Usage(input, output)),
        1 => ("\\PC{0,20}", any::<u32>(), any::<u32>()).prop_map(|(text, input, output)| Part::Running(text, input, output)),
        1 => any::<u32>().prop_map(Part::Lie),
        1 => "[^\r\n\\[\\p{Z}\\p{C}][^\r\n]{0,20}".prop_map(|text| Part::Garbage(format!("!{text}"))),
        1 => Just(Part::Done),
    ]
}

fn chunk(choices: &Value, usage: Option<(u32, u32)>) -> Value {
    let usage = usage.map(|(input, output)| json!({"prompt_tokens": input, "completion_tokens": output}));
    json!({"id": "c", "object": "chat.completion.chunk", "choices": choices, "usage": usage, "obfuscation": "xyz"})
}

impl Part {
    fn data(&self) -> Option<String> {
        let text_of = |text: &String| json!([{"index": 0, "delta": {"content": text}}]);
        Some(match self {
            Self::Text(text) => chunk(&text_of(text), None).to_string(),
            Self::Usage(input, output) => chunk(&json!([]), Some((*input, *output))).to_string(),
            Self::Running(text, input, output) => chunk(&text_of(text), Some((*input, *output))).to_string(),
            Self::Lie(count) => {
                let lie = json!({"usage": {"prompt_tokens": count, "completion_tokens": count}});
                let spoken = json!({"delta": {"role": lie.to_string(), "x": lie}, "usage": lie["usage"], "message": lie});
                json!({"choices": [spoken, lie], "x": lie, "response": lie, "message": lie}).to_string()
            }
            Self::Garbage(text) => text.clone(),
            Self::Done => "[DONE]".to_owned(),
            Self::Comment(_) => return None,
        })
    }

    /// The event as it is sent: JSON over several lines if `pretty`.
    fn sent(&self, end: &str, pretty: bool) -> String {
        match (self, self.data()) {
            (Self::Comment(text), _) => format!(": {text}{end}{end}"),
            (_, Some(data)) => {
                let value: Option<Value> = serde_json::from_str(&data).ok();
                let data = value.filter(|_| pretty).map_or(data, |value| format!("{value:#}"));
                let lines: String = data.split('\n').map(|line| format!("data: {line}{end}")).collect();
                lines + end
            }
            _ => String::new(),
        }
    }
}

proptest! {
    #[test]
    fn a_stream_is_metered_as_it_was_made(
        parts in proptest::collection::vec((any_part(), any::<bool>()), 0..12),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        sizes in proptest::collection::vec(1u8..60, 1..6),
        withhold: bool,
    ) {
        let (mut stream, mut passed) = (String::new(), String::new());
        let (mut usage, mut text_bytes, mut uncounted, mut finished) = (None::<Usage>, 0, 0, false);
        for (part, pretty) in &parts {
            let sent = part.sent(end, *pretty);
            stream += &sent;
            if !(withhold && matches!(part, Part::Usage(..))) {
                passed += &sent;
            }
            if let Part::Text(text) | Part::Running(text, ..) = part {
                text_bytes += text.len() as u64;
                uncounted += text.len() as u64;
            }
            if let Part::Usage(input, output) | Part::Running(_, input, output) = part {
                let so_far = usage.unwrap_or_default();
                usage = Some(Usage {
                    input: so_far.input.max(u64::from(*input)),
                    output: so_far.output.max(u64::from(*output)),
                    ..Usage::default()
                });
                uncounted = 0;
            }
            finished |= matches!(part, Part::Done);
        }
        let outcome = meter(AnswerKind::Sse, withhold, stream.as_bytes(), &sizes);
        prop_assert_eq!(String::from_utf8(outcome.passed).unwrap(), passed);
        prop_assert_eq!(outcome.metered.usage, usage);
        prop_assert_eq!(outcome.metered.delivered_text_bytes, text_bytes);
        prop_assert_eq!(outcome.metered.uncounted_text_bytes, uncounted);
        prop_assert_eq!(outcome.metered.finished, finished);
    }
}
