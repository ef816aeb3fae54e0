//! What conditions mean, and that no text and no request makes them panic.

use super::*;
use crate::json::Json;
use proptest::prelude::*;

fn json(text: &str) -> Json<'_> {
    Json::for_tests(text)
}

fn decide(condition: &str, body: &str, headers: &[(&[u8], &[u8])]) -> Outcome {
    let body = json(body);
    let scope = Scope {
        method: b"POST",
        path: b"/v1/Search?x=1",
        headers,
        size: 123,
        body: Some(&body),
    };
    let expression = Expression::parse(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
    expression.evaluate(&scope)
}

fn outcome(condition: &str) -> Outcome {
    let body = r#"{"a":{"b":1,"none":null},"list":[1,"x",[2]],"t":"Héllo","f":0.7,"yes":true,"big":1e300,"neg":-3,
        "messages":[{"role":"user","content":"hi"}],"tools":[]}"#;
    decide(condition, body, &[(b"x-tier", b"Gold"), (b"x-two", b"a"), (b"X-Two", b"b")])
}

#[test]
fn conditions_that_hold() {
    for condition in [
        "true",
        "!false && (false || true)",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9",
        "10 - 2 - 3 == 5 && 7 / 2 == 3 && -7 / 2 == -3 && 7 % 4 == 3",
        "0.1 + 0.2 == 0.3 && 2.0 == 2 && 1.5 * 2 == 3",
        "body.f > 0.5 && body.f < 0.71 && body.f == 0.7 && body.neg < 0",
        "body.a.b == 1 && body[\"a\"][\"b\"] == 1",
        "body.messages[0].content == 'hi' && size(body.messages) == 1 && body.tools.size() == 0",
        "has(body.a) && has(body.a.none) && body.a.none == null && !has(body.zzz) && !has(body.a.zzz)",
        "body.list[1] == \"x\" && \"x\" in body.list && 1 in body.list && !(9 in body.list) && [2] in body.list",
        "request.method in [\"POST\", 'PUT'] && request.size == 123 && request.path == \"/v1/Search\"",
        "body.t.startsWith(\"H\") && body.t.endsWith('llo') && body.t.contains(\"é\") && size(body.t) == 5",
        "request.headers[\"X-Tier\"].lowerAscii() == \"gold\" && \"x-tier\" in request.headers",
        "request.headers[\"x-two\"] == \"a, b\" && !(\"x-none\" in request.headers)",
        "has(request.headers.x_none) == false",
        "body.yes ? 1 > 0 : body.missing",
        "\"a\" < \"b\" && \"\\\"\\n\" == '\"\\n'",
        "body.a.b != \"1\" && body.list == [1, \"x\", [2]]",
        "body.missing || true",
        "true || body.missing",
        "!(body.missing && false)",
        "query_length == 2 && !requires_browser",
        "\"a\" in body",
    ] {
        assert_eq!(outcome(condition), Outcome::True, "{condition}");
    }
}

#[test]
fn what_cannot_be_computed_is_undecided() {
    for condition in [
        "body.missing",
        "body.missing == 1",
        "body.missing && true",
        "false || body.missing",
        "body.a",
        "body.t > 1",
        "body.t + 1 == 2",
        "body.list[9] == 1",
        "body.list[-1] == 1",
        "body.list[0.5] == 1",
        "body.a.b.c == 1",
        "has(body.t.x)",
        "1 / 0 == 1",
        "1 % 0 == 1",
        "body.f / 2 == 1",
        "body.big > 1",
        "size(body.a.b) == 1",
        "request.headers[\"x-none\"] == \"\"",
        "99999999999999999999999999999999999999 * 99 > 0",
        "body.missing ? true : true",
        "\"x\" in body.t",
    ] {
        assert_eq!(outcome(condition), Outcome::Undecided, "{condition}");
    }
}

#[test]
fn the_design_s_conditions_work_as_written() {
    let long = format!(r#"{{"query":"{}"}}"#, "é".repeat(1001));
    let limit = format!(r#"{{"query":"{}"}}"#, "é".repeat(1000));
    assert_eq!(decide("query_length > 1000", &long, &[]), Outcome::True);
    assert_eq!(decide("query_length > 1000", &limit, &[]), Outcome::False);
    for (body, header, expected) in [
        (r#"{"requires_browser":true}"#, None, Outcome::True),
        (r#"{"requires_browser":false}"#, Some("true"), Outcome::True),
        (r#"{"requires_browser":null}"#, None, Outcome::False),
        (r#"{"requires_browser":"true"}"#, None, Outcome::Undecided),
        (r#"{"requires_browser":"true"}"#, Some("TRUE"), Outcome::True),
        ("{}", Some("0"), Outcome::False),
        ("{}", Some("maybe"), Outcome::Undecided),
        ("{}", None, Outcome::False),
    ] {
        let headers: Vec<(&[u8], &[u8])> = header.iter().map(|value| (&b"x-requires-browser"[..], value.as_bytes())).collect();
        assert_eq!(decide("requires_browser", body, &headers), expected, "{body} {header:?}");
    }
}

#[test]
fn without_a_body_it_is_an_object_without_fields() {
    let scope = Scope {
        method: b"GET",
        path: b"/search?q=abc",
        headers: &[],
        size: 0,
        body: None,
    };
    let decide = |text| Expression::parse(text).unwrap().evaluate(&scope);
    assert_eq!(decide("!has(body.x) && size(body) == 0 && query_length == 3"), Outcome::True);
    assert_eq!(decide("body.x == 1"), Outcome::Undecided);
}

#[test]
fn errors_name_the_column() {
    for (text, column, words) in [
        ("", 1, "the end where a value"),
        ("query_lenght > 1", 1, "nothing is called `query_lenght`"),
        ("true && foo", 9, "nothing is called `foo`"),
        ("query_length > ", 16, "the end where a value"),
        ("1 +", 4, "the end"),
        ("(true", 6, "where `)`"),
        ("true)", 5, "`)` where an operator or the end"),
        ("é == 1", 1, "`é` means nothing"),
        ("'é' == \"a", 8, "never closed"),
        ("body.t.matches('a')", 8, "no function is called `matches`"),
        ("now() > 1", 1, "no function is called `now`"),
        ("request.body == 1", 9, "request has method, path, headers and size"),
        ("request == 1", 9, "request has"),
        ("1e3 > 1", 2, "without exponent"),
        ("0x1f > 1", 2, "without exponent"),
        ("query_length", 1, "the condition is a number, not a boolean"),
        ("query_length == \"a\"", 17, "a text cannot be compared with a number"),
        ("query_length > true", 16, "numbers and texts have an order, not a boolean"),
        ("!query_length", 2, "what ! negates is a number"),
        ("request.method + 1 > 2", 9, "what + takes is a text, not a number"),
        ("requires_browser && 1", 21, "what && takes is a number"),
        ("query_length.x == 1", 1, "only objects have fields"),
        ("query_length in request.method", 25, "in looks into lists and objects"),
        ("has(body)", 5, "has() asks for a field"),
        ("body.x ? 1 : 'a'", 14, "a text here and a number before :"),
        ("body.x ? 1 : 2", 1, "the condition is a number"),
        ("a = 1", 3, "`=` means nothing"),
        ("true = 1", 6, "`=` means nothing"),
        ("'\\x' == 'a'", 2, "an escape"),
        ("99999999999999999999999999999999999999999 > 1", 1, "too many digits"),
        ("body.1 == 1", 6, "a number where the name of a field"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.message.contains(words), "{text}: {error}");
    }
    assert!(Expression::parse(&"!".repeat(100)).unwrap_err().message.contains("deeper"));
    assert!(Expression::parse(&"(".repeat(1000)).unwrap_err().message.contains("deeper"));
    assert!(Expression::parse(&"a".repeat(1025)).unwrap_err().message.contains("longer"));
    let sum = format!("{}1 > 0", "1+".repeat(300));
    assert!(Expression::parse(&sum).unwrap_err().message.contains("parts"));
}

#[test]
fn what_looks_at_the_body_is_known() {
    for (text, uses) in [
        ("request.method == \"POST\"", false),
        ("\"x-a\" in request.headers && request.path.startsWith(\"/v1\")", false),
        ("request.method == \"POST\" || has(body.x)", true),
        ("query_length > 1", true),
        ("requires_browser", true),
        ("[1, request.size] == [1, 2]", true),
    ] {
        assert_eq!(Expression::parse(text).unwrap().uses_body(), uses, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn nor_do_words_in_any_order(words in proptest::collection::vec(proptest::sample::select(vec![
        "body", "request", ".", "method", "headers", "size", "(", ")", "[", "]", "has", "query_length", "requires_browser", "1", "0.5",
        "-", "!", "+", "*", "/", "%", "==", "!=", "<", "<=", "&&", "||", "in", "?", ":", ",", "'a'", "a", "startsWith", "lowerAscii", "null", "true",
    ]), 0..24), body in "\\{(\"a\":(1|null|true|\"x\"|\\[1\\]|-1\\.5|1e99))?\\}") {
        if let Ok(expression) = Expression::parse(&words.join(" ")) {
            let body = json(&body);
            let scope = Scope { method: b"POST", path: b"/", headers: &[(b"a", b"b")], size: 1, body: Some(&body) };
            let _ = expression.evaluate(&scope);
        }
    }
}
