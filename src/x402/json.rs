//! JSON from strangers: parsed strictly, so that nobody reads another payment in it than we do.
//!
//! The size is the caller's to bound. Source of the rules: PROTOCOL "Payments accepted" (depth 32, no duplicate keys).

use core::cell::Cell;
use core::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The deepest nesting that is read: `[[1]]` has a depth of 2.
pub const MAX_DEPTH: u8 = 32;

/// Why a text is not JSON that is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A key that appears twice in an object.
    DuplicateKey,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "it is not UTF-8",
            Self::Syntax => "it is not JSON",
            Self::TooDeep => "it is nested deeper than 32",
            Self::DuplicateKey => "a key appears twice in an object",
        })
    }
}

/// Parses a JSON text: UTF-8, nested at most [`MAX_DEPTH`] deep, no key twice in an object.
///
/// ```
/// use x402_envoy::x402::json::{JsonError, parse};
/// assert_eq!(parse(br#"{"a":1,"a":2}"#), Err(JsonError::DuplicateKey));
/// assert_eq!(parse(br#"{"a":[1]}"#).unwrap()["a"][0], 1);
/// ```
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let text = core::str::from_utf8(text).map_err(|_| JsonError::NotUtf8)?;
    let failure = Cell::new(JsonError::Syntax);
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        depth: 0,
        failure: &failure,
    };
    strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|_| failure.get())
}

/// Whether two keys of an object differ in case alone, somewhere in the value.
///
/// Some readers take either for the other (Go's do), and so would settle something else than was checked here.
pub(super) fn has_case_twins(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_case_twins),
        Value::Object(fields) => keys_have_case_twins(fields) || fields.values().any(has_case_twins),
        _ => false,
    }
}

/// The same of the keys of one object.
pub(super) fn keys_have_case_twins(fields: &Map<String, Value>) -> bool {
    // Payments have few keys, which are compared in no time; a set is for those who send thousands.
    if fields.len() <= 16 {
        let mut keys = fields.keys();
        while let Some(key) = keys.next() {
            if keys.clone().any(|other| key.eq_ignore_ascii_case(other)) {
                return true;
            }
        }
        return false;
    }
    let mut seen = std::collections::BTreeSet::new();
    fields.keys().any(|key| !seen.insert(key.to_ascii_lowercase()))
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: u8,
    failure: &'a Cell<JsonError>,
}

impl Strict<'_> {
    fn fail<E: de::Error>(&self, why: JsonError) -> E {
        self.failure.set(why);
        E::custom(why)
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.saturating_add(1);
        if depth > MAX_DEPTH {
            return Err(self.fail(JsonError::TooDeep));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut out = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if out.contains_key(&key) {
                return Err(self.fail(JsonError::DuplicateKey));
            }
            let value = fields.next_value_seed(inner)?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// An object whose fields keep their order and their text: for passing on what somebody else wrote.
pub(super) struct RawObject(pub(super) Vec<(String, Box<RawValue>)>);

impl RawObject {
    /// Reads the fields of an object that [`parse`] has accepted.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Puts a value in place of another, or at the end.
    pub(super) fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes a field out.
    pub(super) fn take(&mut self, key: &str) -> Option<Box<RawValue>> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }
}

impl Serialize for RawObject {
    fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
        let mut map = writer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<RawObject, A::Error> {
                let mut out = Vec::new();
                while let Some(field) = fields.next_entry()? {
                    out.push(field);
                }
                Ok(RawObject(out))
            }
        }
        reader.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(depth: usize) -> Vec<u8> {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
    }

    #[test]
    fn depth_duplicates_and_encoding_are_checked() {
        assert!(parse(&nested(32)).is_ok());
        assert_eq!(parse(&nested(33)), Err(JsonError::TooDeep));
        assert_eq!(parse(&nested(100_000)), Err(JsonError::TooDeep));
        assert_eq!(parse(br#"{"x":{"a":1,"\u0061":2}}"#), Err(JsonError::DuplicateKey));
        assert_eq!(parse(b"\"\xff\""), Err(JsonError::NotUtf8));
        for text in ["", "{", "{} {}", "NaN", "1e999", "{\"a\":1,}", "\"\\ud800\""] {
            assert_eq!(parse(text.as_bytes()), Err(JsonError::Syntax), "{text}");
        }
    }

    #[test]
    fn keys_that_differ_in_case_alone_are_found() {
        assert!(has_case_twins(&parse(br#"[{"nonce":1,"Nonce":2}]"#).unwrap()));
        assert!(!has_case_twins(&parse(br#"[{"nonce":1},{"Nonce":2}]"#).unwrap()));
    }

    #[test]
    fn raw_objects_keep_order_and_text() {
        let mut object = RawObject::read(r#"{"z": 1.0, "a": {"y" :2}}"#).unwrap();
        object.set("z", RawValue::from_string("3".to_owned()).unwrap());
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"z":3,"a":{"y" :2}}"#);
        assert!(object.take("a").is_some());
        assert!(RawObject::read("[]").is_none());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_it_accepts(text in "[\\[\\]{}\",:a-c0-9 .e\\\\-]{0,40}") {
            if let Ok(value) = parse(text.as_bytes()) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
