//! The scanner against serde_json.

use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::*;

const KEYS: [&str; 3] = ["a", "b", "é\n"];

/// Everything that is reported, as text.
#[derive(Default)]
struct Log(Vec<String>);

impl Sink for Log {
    fn key(name: &[u8]) -> Option<&'static str> {
        KEYS.into_iter().find(|key| key.as_bytes() == name)
    }

    fn enters(&self, path: &[&str]) -> bool {
        path.last() != Some(&OTHER)
    }

    fn value(&mut self, path: &[&str], value: Value<'_>) {
        let short = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
        self.0.push(match value {
            Value::Text { bytes, short: text } => format!("{path:?} {bytes} {:?}", text.map(short)),
            other => format!("{path:?} {other:?}"),
        });
    }
}

/// The same of a document that is in memory.
fn expected(path: &mut Vec<&'static str>, json: &Json, log: &mut Vec<String>) {
    let deeper = path.len() < MAX_DEPTH && path.last() != Some(&OTHER);
    log.push(match json {
        Json::Null => format!("{path:?} Null"),
        Json::Bool(_) => format!("{path:?} Bool"),
        Json::Number(number) => format!("{path:?} {:?}", Value::Number(number.as_u64())),
        Json::String(text) => format!("{path:?} {} {:?}", text.len(), (text.len() <= 64).then_some(text)),
        Json::Array(_) => format!("{path:?} Array"),
        Json::Object(_) => format!("{path:?} Object"),
    });
    match json {
        Json::Array(items) if deeper => {
            for item in items {
                path.push(ITEM);
                expected(path, item, log);
                path.pop();
            }
        }
        Json::Object(fields) if deeper => {
            for (key, value) in fields {
                path.push(KEYS.into_iter().find(|known| known == key).unwrap_or(OTHER));
                expected(path, value, log);
                path.pop();
            }
        }
        _ => return,
    }
    log.push(format!("{path:?} End"));
}

fn scan(json: &str, step: usize) -> (Vec<String>, bool, bool) {
    let (mut scanner, mut log) = (Scanner::new(), Log::default());
    for chunk in json.as_bytes().chunks(step) {
        scanner.feed(chunk, &mut log);
    }
    assert!(scanner.path.len() <= MAX_DEPTH);
    (log.0, scanner.is_done(), scanner.is_broken())
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "[\\PC\"\\\\{}\\[\\]\\n]{0,70}".prop_map(Json::from),
    ];
    leaf.prop_recursive(10, 80, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Json::Array),
            proptest::collection::vec(("a|b|c|é\n|\\PC{0,40}", inner), 0..5).prop_map(|fields| Json::Object(Map::from_iter(fields))),
        ]
    })
}

proptest! {
    #[test]
    fn reports_what_serde_json_reads(json in any_json(), step in 1usize..40, pretty: bool) {
        let json = Json::Array(vec![json]);
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let mut log = Vec::new();
        expected(&mut Vec::new(), &json, &mut log);
        prop_assert_eq!(scan(&text, step), (log, true, false));
    }

    #[test]
    fn what_was_read_in_full_is_the_same_over_any_split(text in "[\\[\\]{}\",:a-b0-9 .eu\\\\-]{0,60}", step in 1usize..20) {
        prop_assert_eq!(scan(&text, step), scan(&text, 100));
    }

    #[test]
    fn takes_no_less_than_serde_json(text in "[\\[\\]{}\",:a-b0-9 .e\\\\-]{0,30}") {
        if serde_json::from_str::<Json>(&text).is_ok_and(|json| !json.is_number()) {
            prop_assert!(scan(&text, 100).1);
        }
    }
}

#[test]
fn what_is_no_json_is_refused_where_it_matters() {
    for text in [
        "{a:1}",
        "{\"a\" 1}",
        "[1 2]",
        "[1,]",
        "{\"a\":1,}",
        "[}",
        "{]",
        "nul,",
        "[tru]",
        "{} {}",
        "\"\\x\"",
        "[+1]",
    ] {
        let (_, done, broken) = scan(text, 1);
        assert!(!done && broken, "{text}");
    }
}
