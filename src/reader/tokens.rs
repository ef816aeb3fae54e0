//! What bounds the tokens of a completion: the limits that a body names, and how many answers it asks for.

use super::external::has_external_input;
use super::facts::{Api, TokenFacts, Why};
use super::spelling::is_spelled;
use super::unpriced::Unpriced;
use crate::json::Json;

/// Most completions that one request can ask for: more is a mistake, or meant to overflow something.
const MAX_CHOICES: u64 = 1_000_000;

/// Fields of `stream_options` that decide whether usage is told.
const STREAM_OPTIONS: [&str; 1] = ["include_usage"];

/// Fields that bound tokens, whatever the protocol: spelled with other case, a backend in Go would read them too.
const FIELDS: [&str; 13] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "stream",
    "stream_options",
    "messages",
    "prompt",
    "input",
    "system",
    "tools",
    "model",
];

/// Whose protocol a request speaks. `path` is the normal one, without its query.
pub fn api_of(path: &[u8], body: &Json<'_>) -> Api {
    let path = path.strip_suffix(b"/").unwrap_or(path).to_ascii_lowercase();
    let ends = [
        (&b"/chat/completions"[..], Api::Chat),
        (b"/completions", Api::Completions),
        (b"/responses", Api::Responses),
        (b"/embeddings", Api::Embeddings),
        (b"/messages", Api::Messages),
    ];
    let by_path = ends.iter().find(|(end, _)| path.ends_with(end)).map(|(_, api)| *api);
    let fields = [("messages", Api::Chat), ("prompt", Api::Completions)];
    let by_field = || fields.iter().find(|(field, _)| body.given(field).is_some()).map(|(_, api)| *api);
    let is_limited = || Api::Other.limit_names().iter().any(|name| body.given(name).is_some());
    match by_path {
        // A body that is none of embeddings has output, whatever the path: where it goes by its path is the backend's matter.
        Some(Api::Embeddings) => by_field().unwrap_or_else(|| if is_limited() { Api::Other } else { Api::Embeddings }),
        Some(api) => api,
        None => by_field().unwrap_or(Api::Other),
    }
}

/// What bounds the tokens of a request and its answer.
///
/// # Errors
///
/// [`Why::Duplicate`] for a field that counts in other case than its own, [`Why::BadLimit`] for a limit that is none,
/// [`Why::Unpriced`] for what is asked for beside all that.
pub fn read_tokens(api: Api, body: &Json<'_>) -> Result<TokenFacts, Why> {
    let options = body.get("stream_options");
    if has_twin(body, &FIELDS) || options.is_some_and(|options| has_twin(options, &STREAM_OPTIONS)) {
        return Err(Why::Duplicate);
    }
    if let Some(key) = Unpriced::find(body) {
        return Err(Why::Unpriced(key));
    }
    let mut max_output = None;
    for name in api.limit_names() {
        max_output = max_output.max(body.given(name).map(limit).transpose()?);
    }
    let mut samples = 1;
    for name in ["n", "best_of"] {
        samples = body.given(name).map(limit).transpose()?.unwrap_or(1).max(samples);
    }
    let choices = samples.checked_mul(prompts(api, body)).filter(|choices| *choices <= MAX_CHOICES);
    let stream = match body.given("stream") {
        None | Some(Json::Bool(false)) => false,
        // What is neither is taken for true by many.
        Some(_) => true,
    };
    let include_usage = options.and_then(|options| match options.given("include_usage") {
        Some(Json::Bool(value)) => Some(*value),
        _ => None,
    });
    Ok(TokenFacts {
        api,
        token_ids: ["prompt", "input"]
            .iter()
            .filter_map(|name| body.get(name))
            .map(numbers)
            .fold(0, u64::saturating_add),
        max_output,
        choices: choices.ok_or(Why::BadLimit)?,
        stream,
        include_usage,
        external_input: has_external_input(body),
    })
}

/// Whether an object has one of these fields in other case than its own.
fn has_twin(object: &Json<'_>, names: &[&str]) -> bool {
    let twin = |key: &str| names.iter().any(|name| key != *name && is_spelled(key, name));
    object.fields().iter().any(|(key, _)| twin(key))
}

/// A whole number above zero; one that is too large to be held is the largest.
fn limit(value: &Json<'_>) -> Result<u64, Why> {
    match value {
        Json::Unsigned(number) if *number > 0 => Ok(*number),
        Json::Double(number) if *number >= 1.0 && number.fract() == 0.0 => Ok(whole(*number)),
        _ => Err(Why::BadLimit),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and at least 1; a cast saturates above the largest"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// How many prompts a completion has: a list of texts, or of lists of token ids, is as many.
fn prompts(api: Api, body: &Json<'_>) -> u64 {
    if !matches!(api, Api::Completions | Api::Other) {
        return 1;
    }
    let items = body.get("prompt").map(Json::items).unwrap_or_default();
    let separate = items.iter().filter(|item| !item.is_number()).count();
    u64::try_from(separate).unwrap_or(u64::MAX).max(1)
}

/// Numbers in lists, at any depth that token ids have.
fn numbers(value: &Json<'_>) -> u64 {
    let one = |item: &Json<'_>| if item.is_number() { 1 } else { numbers(item) };
    value.items().iter().map(one).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(api: Api, body: &str) -> Result<TokenFacts, Why> {
        read_tokens(api, &Json::for_tests(body))
    }

    #[test]
    fn the_path_says_whose_protocol_it_is_else_the_fields() {
        let api = |path: &str, body: &str| api_of(path.as_bytes(), &Json::for_tests(body));
        assert_eq!(api("/v1/chat/completions", "{}"), Api::Chat);
        assert_eq!(api("/openai/v1/completions/", "{}"), Api::Completions);
        assert_eq!(api("/V1/Responses", "{}"), Api::Responses);
        assert_eq!(api("/v1/embeddings", r#"{"input":"a"}"#), Api::Embeddings);
        assert_eq!(api("/v1/messages", "{}"), Api::Messages);
        assert_eq!(api("/llm", r#"{"messages":[]}"#), Api::Chat);
        assert_eq!(api("/llm", r#"{"prompt":"a"}"#), Api::Completions);
        assert_eq!(api("/llm", r#"{"input":"a"}"#), Api::Other);
    }

    #[test]
    fn embeddings_are_those_of_nothing_else() {
        let api = |body: &str| api_of(b"/v1/embeddings", &Json::for_tests(body));
        assert_eq!(api(r#"{"input":["a","b"],"dimensions":8,"messages":null}"#), Api::Embeddings);
        assert_eq!(api(r#"{"messages":[]}"#), Api::Chat);
        assert_eq!(api(r#"{"input":"a","prompt":"b"}"#), Api::Completions);
        for limit in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
            assert_eq!(api(&format!(r#"{{"input":"a","{limit}":9}}"#)), Api::Other, "{limit}");
        }
        // Spelled with other case they are refused, whatever the protocol.
        assert_eq!(tokens(Api::Embeddings, r#"{"Messages":[]}"#), Err(Why::Duplicate));
    }

    #[test]
    fn the_largest_limit_of_the_protocol_counts() {
        for (api, body, expected) in [
            (Api::Chat, "{}", None),
            (Api::Chat, r#"{"max_tokens":null}"#, None),
            (Api::Chat, r#"{"max_tokens":10}"#, Some(10)),
            (Api::Chat, r#"{"max_tokens":10.0}"#, Some(10)),
            (Api::Chat, r#"{"max_tokens":10,"max_completion_tokens":20}"#, Some(20)),
            (Api::Chat, r#"{"max_output_tokens":10}"#, None),
            (Api::Responses, r#"{"max_output_tokens":10,"max_tokens":99}"#, Some(10)),
            (Api::Other, r#"{"max_output_tokens":10,"max_tokens":99}"#, Some(99)),
            (Api::Messages, r#"{"max_tokens":1e30}"#, Some(u64::MAX)),
            (Api::Embeddings, r#"{"max_tokens":1}"#, None),
        ] {
            assert_eq!(tokens(api, body).unwrap().max_output, expected, "{body}");
        }
    }

    #[test]
    fn answers_are_counted_over_prompts_and_samples() {
        for (api, body, expected) in [
            (Api::Chat, "{}", 1),
            (Api::Chat, r#"{"n":null}"#, 1),
            (Api::Chat, r#"{"n":3}"#, 3),
            (Api::Completions, r#"{"n":2,"best_of":5}"#, 5),
            (Api::Completions, r#"{"prompt":["a","b"],"n":2}"#, 4),
            (Api::Completions, r#"{"prompt":[1,2,3]}"#, 1),
            (Api::Completions, r#"{"prompt":[[1,2],[3]]}"#, 2),
            (Api::Chat, r#"{"prompt":["a","b"]}"#, 1),
        ] {
            assert_eq!(tokens(api, body).unwrap().choices, expected, "{body}");
        }
        assert_eq!(tokens(Api::Completions, r#"{"prompt":[[1,2],[3]]}"#).unwrap().token_ids, 3);
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for body in [
            r#"{"max_tokens":0}"#,
            r#"{"max_tokens":-1}"#,
            r#"{"max_tokens":1.5}"#,
            r#"{"max_tokens":"10"}"#,
            r#"{"n":0}"#,
            r#"{"n":[1]}"#,
            r#"{"n":1000001}"#,
        ] {
            assert_eq!(tokens(Api::Chat, body), Err(Why::BadLimit), "{body}");
        }
        assert_eq!(tokens(Api::Chat, r#"{"Max_Tokens":1}"#), Err(Why::Duplicate));
        assert_eq!(tokens(Api::Chat, r#"{"N":1}"#), Err(Why::Duplicate));
        assert_eq!(tokens(Api::Chat, r#"{"max_to\u212aens":1}"#), Err(Why::Duplicate));
    }

    #[test]
    fn what_is_not_priced_is_refused_on_all_apis() {
        for api in [
            Api::Chat,
            Api::Completions,
            Api::Responses,
            Api::Embeddings,
            Api::Messages,
            Api::Other,
        ] {
            let refused = tokens(api, r#"{"max_tokens":1,"n_predict":100000}"#);
            assert!(matches!(refused, Err(Why::Unpriced(_))), "{refused:?}");
            assert!(tokens(api, r#"{"max_tokens":1,"n_predict":null}"#).is_ok());
        }
    }

    #[test]
    fn options_of_streams_have_no_twins() {
        for options in [r#"{"Include_Usage":false}"#, r#"{"include_usage":true,"include_u\u017fage":false}"#] {
            let body = format!(r#"{{"stream":true,"stream_options":{options}}}"#);
            assert_eq!(tokens(Api::Chat, &body), Err(Why::Duplicate), "{body}");
        }
        // Repeated as it is, it makes the body unreadable as a whole.
        assert_eq!(
            crate::json::parse(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#, 2),
            Err(crate::json::JsonError::DuplicateKey)
        );
        let other = tokens(Api::Chat, r#"{"stream":true,"stream_options":{"continuous_usage_stats":true}}"#);
        assert_eq!(other.map(|facts| facts.include_usage), Ok(None));
    }

    #[test]
    fn streams_are_known() {
        let stream = |body: &str| tokens(Api::Chat, body).map(|facts| (facts.stream, facts.include_usage)).unwrap();
        assert_eq!(stream("{}"), (false, None));
        assert_eq!(stream(r#"{"stream":true}"#), (true, None));
        assert_eq!(
            stream(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            (true, Some(true))
        );
        assert_eq!(
            stream(r#"{"stream":true,"stream_options":{"include_usage":false}}"#),
            (true, Some(false))
        );
        assert_eq!(stream(r#"{"stream":1,"stream_options":null}"#), (true, None));
    }
}
