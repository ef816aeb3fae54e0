//! Typed reading of a JSON document that collects every mistake instead of stopping at the first.

use serde_json::{Map, Value};

use super::ConfigError;
use super::duration::parse_milliseconds;
use super::wording::{shown, suggestion};

/// How many mistakes are reported; more would be noise.
const MAX_ERRORS: usize = 100;

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Errors {
    found: Vec<ConfigError>,
}

impl Errors {
    /// Notes that `found` is at `path` where `expected` should be.
    pub(super) fn add(&mut self, path: &str, found: impl Into<String>, expected: impl Into<String>) {
        if self.found.len() < MAX_ERRORS {
            self.found.push(ConfigError {
                path: path.to_owned(),
                found: found.into(),
                expected: expected.into(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<ConfigError> {
        self.found
    }
}

/// A value and where it is in the document.
#[derive(Debug, Clone)]
pub(super) struct Node<'v> {
    pub(super) value: &'v Value,
    pub(super) path: String,
    /// Whether the value must not be shown.
    secret: bool,
}

/// The fields of an object, already checked to be known ones.
#[derive(Debug)]
pub(super) struct Fields<'v> {
    map: &'v Map<String, Value>,
    path: String,
}

impl<'v> Node<'v> {
    /// The whole document.
    pub(super) fn root(value: &'v Value) -> Self {
        Self {
            value,
            path: String::new(),
            secret: false,
        }
    }

    /// The same value, never to be shown.
    pub(super) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Notes that something else was expected here.
    pub(super) fn reject(&self, expected: impl Into<String>, errors: &mut Errors) {
        let found = if self.secret { "a secret".to_owned() } else { shown(self.value) };
        errors.add(&self.path, found, expected);
    }

    /// An object with these fields and no others; `later` are those that another version has.
    pub(super) fn fields(&self, known: &[&str], later: &[&str], errors: &mut Errors) -> Option<Fields<'v>> {
        let Value::Object(map) = self.value else {
            self.reject(format!("an object with {}", known.join(", ")), errors);
            return None;
        };
        for name in map.keys().filter(|name| !known.contains(&name.as_str())) {
            let path = join(&self.path, name);
            if later.contains(&name.as_str()) {
                errors.add(
                    &path,
                    "a field that is not supported in this version",
                    format!("it to be left out (supported: {})", known.join(", ")),
                );
            } else {
                errors.add(&path, "an unknown field", suggestion(name, known));
            }
        }
        Some(Fields {
            map,
            path: self.path.clone(),
        })
    }

    /// An object with any fields, each with its name.
    pub(super) fn entries(&self, expected: &str, errors: &mut Errors) -> Vec<(&'v str, Node<'v>)> {
        let Value::Object(map) = self.value else {
            self.reject(expected, errors);
            return Vec::new();
        };
        let entry = |(name, value): (&'v String, &'v Value)| {
            let path = join(&self.path, name);
            let secret = self.secret;
            (name.as_str(), Node { value, path, secret })
        };
        map.iter().map(entry).collect()
    }

    /// The items of a list.
    pub(super) fn items(&self, expected: &str, errors: &mut Errors) -> Vec<Node<'v>> {
        let Value::Array(items) = self.value else {
            self.reject(expected, errors);
            return Vec::new();
        };
        let item = |(index, value)| Node {
            value,
            path: format!("{}[{index}]", self.path),
            secret: self.secret,
        };
        items.iter().enumerate().map(item).collect()
    }

    pub(super) fn text(&self, expected: &str, errors: &mut Errors) -> Option<&'v str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.reject(expected, errors);
        }
        text
    }

    pub(super) fn boolean(&self, errors: &mut Errors) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.reject("true or false", errors);
        }
        value
    }

    /// A whole number, which may come as `6` or, through `google.protobuf.Struct`, as `6.0`.
    pub(super) fn whole(&self, least: u64, most: u64, errors: &mut Errors) -> Option<u64> {
        let number = self.value.as_u64().or_else(|| self.value.as_f64().and_then(whole_of_double));
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.reject(format!("a whole number from {least} to {most}"), errors);
        }
        number
    }

    /// A duration between two bounds, in milliseconds.
    pub(super) fn milliseconds(&self, least: u64, most: u64, errors: &mut Errors) -> Option<u64> {
        let duration = self
            .value
            .as_str()
            .and_then(parse_milliseconds)
            .filter(|ms| (least..=most).contains(ms));
        if duration.is_none() {
            self.reject(
                format!("a duration such as \"500ms\", \"5s\", \"10m\" or \"1h\", from {least}ms to {most}ms"),
                errors,
            );
        }
        duration
    }

    /// A duration of whole seconds between two bounds, in seconds.
    pub(super) fn seconds(&self, least: u64, most: u64, errors: &mut Errors) -> Option<u64> {
        let duration = self.value.as_str().and_then(parse_milliseconds);
        let seconds = duration.filter(|ms| ms.is_multiple_of(1000)).map(|ms| ms.div_euclid(1000));
        let seconds = seconds.filter(|seconds| (least..=most).contains(seconds));
        if seconds.is_none() {
            self.reject(
                format!("a duration of whole seconds such as \"5s\", \"10m\" or \"1h\", from {least}s to {most}s"),
                errors,
            );
        }
        seconds
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)], errors: &mut Errors) -> Option<T> {
        let chosen = self.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if chosen.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.reject(names.join(" or "), errors);
        }
        chosen.map(|(_, value)| *value)
    }
}

impl<'v> Fields<'v> {
    /// A field, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<Node<'v>> {
        let value = self.map.get(name)?;
        let path = join(&self.path, name);
        Some(Node {
            value,
            path,
            secret: false,
        })
    }

    /// A field that has to be there.
    pub(super) fn require(&self, name: &str, expected: &str, errors: &mut Errors) -> Option<Node<'v>> {
        let node = self.get(name);
        if node.is_none() {
            errors.add(&join(&self.path, name), "nothing", expected);
        }
        node
    }
}

fn join(path: &str, name: &str) -> String {
    let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn whole_of_double(number: f64) -> Option<u64> {
    /// The largest power of two up to which a double holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    let whole = ((0.0..=EXACT).contains(&number) && number.fract() == 0.0).then_some(number as u64);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn doubles_pass_for_whole_numbers() {
        let mut errors = Errors::default();
        for (value, whole) in [
            (json!(6), Some(6)),
            (json!(6.0), Some(6)),
            (json!(6.5), None),
            (json!(-1), None),
            (json!(1e300), None),
            (json!("6"), None),
        ] {
            assert_eq!(Node::root(&value).whole(0, 36, &mut errors), whole, "{value}");
        }
        assert_eq!(errors.into_vec().len(), 4);
    }

    #[test]
    fn a_misspelled_field_is_named_with_what_was_meant() {
        let mut errors = Errors::default();
        let value = json!({"acept": 1, "zzz": 2, "flow": 3});
        Node::root(&value).fields(&["accept", "price"], &["flow"], &mut errors);
        let shown: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "acept: found an unknown field, expected \"accept\", if that is what was meant",
                "flow: found a field that is not supported in this version, expected it to be left out (supported: accept, price)",
                "zzz: found an unknown field, expected one of accept, price",
            ]
        );
    }

    #[test]
    fn a_secret_is_not_shown_nor_is_what_is_in_it() {
        let mut errors = Errors::default();
        let value = json!({"a": "hunter2", "b": ["hunter2"]});
        for (_, node) in Node::root(&value).secret().entries("", &mut errors) {
            node.whole(0, 1, &mut errors);
            for item in node.items("", &mut errors) {
                item.boolean(&mut errors);
            }
        }
        assert!(!format!("{errors:?}").contains("hunter2"));
    }
}
