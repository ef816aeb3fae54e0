//! What a body may ask for beside what is priced: output bounded by another name, another model, or an answer that comes
//! elsewhere.
//!
//! A backend that knows such a key obeys it, and one that does not ignores it: which one is behind the route is not known here.

use super::spelling::{begins_as, is_spelled};
use crate::json::Json;

/// A key that asks for what is not priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpriced(usize);

/// A key, which of its values ask for something, and how that is said.
struct Key {
    name: &'static str,
    asks: Asks,
    detail: &'static str,
}

#[derive(Clone, Copy)]
enum Asks {
    /// Any value but `null` and `false`.
    Any,
    /// The same, of every key that begins so.
    Begins,
    /// This text, in any case.
    Text(&'static str),
}

macro_rules! keys {
    ($($name:literal $asks:expr),* $(,)?) => {
        &[$(Key { name: $name, asks: $asks, detail: concat!("the body's ", $name, " is not priced here: leave it out") }),*]
    };
}

/// All of them; their places are the wire's codes, so that there may be 256.
const KEYS: &[Key] = keys![
    // Limits of the output: llama.cpp, Ollama, text-generation-inference, Llama on Bedrock, KoboldCpp, Anthropic's former API.
    "n_predict" Asks::Any,
    "num_predict" Asks::Any,
    "max_new_tokens" Asks::Any,
    "max_gen_len" Asks::Any,
    "max_length" Asks::Any,
    "max_tokens_to_sample" Asks::Any,
    // Numbers of answers: llama.cpp, transformers.
    "n_cmpl" Asks::Any,
    "num_return_sequences" Asks::Any,
    // Maps with such in them: Ollama, Gemini, text-generation-inference, SGLang; and what LiteLLM lays over the body.
    "options" Asks::Any,
    "generationConfig" Asks::Any,
    "generation_config" Asks::Any,
    "parameters" Asks::Any,
    "sampling_params" Asks::Any,
    "extra_body" Asks::Any,
    // Another model than the one that is priced: LiteLLM, OpenRouter.
    "fallbacks" Asks::Any,
    "context_window_fallbacks" Asks::Any,
    "context_window_fallback_dict" Asks::Any,
    "content_policy_fallbacks" Asks::Any,
    "user_config" Asks::Any,
    "models" Asks::Any,
    "route" Asks::Any,
    "preset" Asks::Any,
    "mock_" Asks::Begins,
    // The same, dearer.
    "service_tier" Asks::Text("priority"),
    // An answer that is fetched elsewhere.
    "background" Asks::Any,
];

impl Unpriced {
    /// The first such key of a body; only its top level is looked at.
    pub(super) fn find(body: &Json<'_>) -> Option<Self> {
        let asks = |key: &Key, (name, value): (&str, &Json<'_>)| match key.asks {
            Asks::Any => is_spelled(name, key.name) && !matches!(value, Json::Null | Json::Bool(false)),
            Asks::Begins => begins_as(name, key.name) && !matches!(value, Json::Null | Json::Bool(false)),
            Asks::Text(text) => is_spelled(name, key.name) && value.text().is_some_and(|value| is_spelled(value, text)),
        };
        let mut fields = body.fields().iter();
        fields.find_map(|(name, value)| KEYS.iter().position(|key| asks(key, (name, value))).map(Self))
    }

    /// What is wrong, for the caller.
    pub fn detail(self) -> &'static str {
        KEYS.get(self.0).map_or("", |key| key.detail)
    }

    /// A byte that stands for it.
    pub(super) fn code(self) -> u8 {
        u8::try_from(self.0).unwrap_or(u8::MAX)
    }

    /// The key that [`Unpriced::code`] made this byte of.
    pub(super) fn of_code(code: u8) -> Option<Self> {
        Some(usize::from(code)).filter(|index| *index < KEYS.len()).map(Self)
    }

    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        (0..KEYS.len()).map(Self).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(body: &str) -> Option<&'static str> {
        Unpriced::find(&Json::for_tests(body)).map(Unpriced::detail)
    }

    #[test]
    fn what_is_not_priced_is_named() {
        for body in [
            r#"{"n_predict":100000}"#,
            r#"{"N_Predict":-1}"#,
            r#"{"num_predict":0}"#,
            r#"{"max_new_tokens":"9"}"#,
            r#"{"max_new_to\u212aens":9}"#,
            r#"{"max_gen_len":1}"#,
            r#"{"max_length":1}"#,
            r#"{"max_tokens_to_sample":1}"#,
            r#"{"n_cmpl":100}"#,
            r#"{"options":{}}"#,
            r#"{"option\u017f":{"num_predict":1}}"#,
            r#"{"GenerationConfig":{"maxOutputTokens":1}}"#,
            r#"{"generation_config":[]}"#,
            r#"{"extra_body":{"max_tokens":1}}"#,
            r#"{"fallbacks":["gpt-5"]}"#,
            r#"{"models":[]}"#,
            r#"{"route":"fallback"}"#,
            r#"{"context_window_fallbacks":true}"#,
            r#"{"context_window_fallback_dict":{"a":"b"}}"#,
            r#"{"mock_testing_fallbacks":true}"#,
            r#"{"Mock_":0}"#,
            r#"{"moc\u212a_response":""}"#,
            r#"{"service_tier":"priority"}"#,
            r#"{"Service_Tier":"Priority"}"#,
            r#"{"background":true}"#,
            r#"{"background":0}"#,
            r#"{"BACKGROUND":"false"}"#,
            r#"{"a":1,"b\u0061ckground":1}"#,
        ] {
            assert!(found(body).is_some(), "{body}");
        }
        assert_eq!(
            found(r#"{"Background":true}"#),
            Some("the body's background is not priced here: leave it out")
        );
    }

    #[test]
    fn the_rest_is_none_of_it() {
        for body in [
            "{}",
            r#"{"background":false,"models":null,"MOCK_x":false,"options":null}"#,
            r#"{"service_tier":"auto"}"#,
            r#"{"service_tier":"flex"}"#,
            r#"{"service_tier":true}"#,
            r#"{"metadata":{"background":true,"models":["x"]}}"#,
            r#"{"model":"models","messages":[{"options":1}],"mock":true,"router":"x","max_tokens":1,"store":true}"#,
        ] {
            assert_eq!(found(body), None, "{body}");
        }
    }

    #[test]
    fn every_key_has_a_code_of_its_own_and_is_documented() {
        let documented = include_str!("../../docs/PRICING.md");
        for (index, key) in Unpriced::all().into_iter().enumerate() {
            assert_eq!((usize::from(key.code()), Unpriced::of_code(key.code())), (index, Some(key)));
            assert!(documented.contains(&format!("`{}", KEYS[index].name)), "{}", KEYS[index].name);
        }
        assert_eq!(Unpriced::of_code(u8::try_from(KEYS.len()).unwrap()), None);
    }

    proptest! {
        /// However it is spelled, wherever it is and whatever it says.
        #[test]
        fn no_spelling_gets_through(key in proptest::sample::select(Unpriced::all()), upper in any::<u64>(), more in "[a-z_]{0,9}", at in 0usize..3, value in "(null|false|true|0|-1|1e9|\"\"|\"priority\"|\"x\"|\\[\\]|\\{\\})") {
            let Key { name, asks, .. } = &KEYS[key.0];
            let mut spelled: String = name.char_indices()
                .map(|(at, letter)| if upper >> (at % 64) & 1 == 1 { letter.to_ascii_uppercase() } else { letter })
                .collect();
            if matches!(asks, Asks::Begins) {
                spelled.push_str(&more);
            }
            let mut fields = vec![r#""model":"m""#.to_owned(), r#""messages":[]"#.to_owned()];
            fields.insert(at, format!("\"{spelled}\":{value}"));
            let body = format!("{{{}}}", fields.join(","));
            let expected = match asks {
                Asks::Text(text) => value == format!("\"{text}\""),
                Asks::Any | Asks::Begins => value != "null" && value != "false",
            };
            prop_assert_eq!(Unpriced::find(&Json::for_tests(&body)), expected.then_some(key), "{}", body);
        }
    }
}
