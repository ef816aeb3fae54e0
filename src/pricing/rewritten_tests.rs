//! What is changed in a request, so that its quote cannot be exceeded.

use proptest::prelude::*;
use serde_json::json;

use super::flow_tests::metered;
use super::quote_tests::{CHAT, per_token, quote, read, routes};
use super::*;
use crate::reader::{BodyFacts, Facts, Rewrite};

#[test]
fn what_is_written_into_a_request_bounds_its_answer() {
    let metered = metered(per_token(json!({})));
    let plain = routes(per_token(json!({})));
    for (body, set_max_output, include_usage) in [
        (r#"{"messages":[]}"#, Some(4096), false),
        (r#"{"messages":[],"max_tokens":4096}"#, None, false),
        (r#"{"messages":[],"max_tokens":4097}"#, Some(4096), false),
        (r#"{"messages":[],"max_tokens":1,"stream":true}"#, None, true),
        (
            r#"{"messages":[],"max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#,
            None,
            false,
        ),
    ] {
        let rewrite = Rewrite {
            set_max_output,
            include_usage,
        };
        assert_eq!(read(&metered, CHAT, body).rewrite, rewrite, "{body}");
        // Where nothing is metered no answer has to tell its usage.
        let rewrite = Rewrite {
            include_usage: false,
            ..rewrite
        };
        assert_eq!(read(&plain, CHAT, body).rewrite, rewrite, "{body}");
    }
    let none = self::routes(per_token(json!({"max_output": 0, "output": "0"})));
    assert_eq!(read(&none, CHAT, r#"{"messages":[]}"#).rewrite, Rewrite::default());
}

proptest! {
    /// What goes to the backend asks for no more than was quoted, and would be quoted no less for its answer.
    #[test]
    fn the_rewritten_request_is_within_its_quote(fields in "(\"max_tokens\":(null|1|5\\.0|4096|4097|1e30),)?(\"max_completion_tokens\":(null|1|9999),)?(\"n\":(1|3),)?(\"stream\":true,)?") {
        let routes = metered(per_token(json!({})));
        let body = format!("{{{fields}\"messages\":[]}}");
        let first = read(&routes, CHAT, &body);
        let sent = first.rewritten(body.as_bytes()).unwrap_or(body.clone().into_bytes());
        let sent = read(&routes, CHAT, core::str::from_utf8(&sent).unwrap());
        prop_assert_eq!(sent.rewrite, Rewrite::default());
        let BodyFacts::Json(Facts { tokens: Some(bound), .. }) = sent.facts else { panic!() };
        let quoted = quote(&routes, CHAT, &body).unwrap();
        let Basis::Tokens(quoted) = quoted.basis() else { panic!() };
        prop_assert_eq!(bound.max_output.unwrap() * bound.choices, quoted.output);
    }
}
