//! JSON from strangers: parsed strictly, so that nobody reads another payment in it than we do.
//!
//! The size is the caller's to bound. Source of the rules: PROTOCOL "Payments accepted" (depth 32, no duplicate keys).

use core::cell::Cell;
use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// The deepest nesting that is read: `[[1]]` has a depth of 2.
pub const MAX_DEPTH: u8 = 32;

/// Why a text is not JSON that is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonError {
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
            Self::Syntax => "it is not JSON",
            Self::TooDeep => "it is nested deeper than 32",
            Self::DuplicateKey => "a key appears twice in an object",
        })
    }
}

/// How many keys of an object are compared with each other; a set is for those who send thousands.
const FEW: usize = 16;

/// A JSON value. Its strings are parts of the text that was parsed, but for those with escapes in them: most of a payment is strings,
/// and most of what it takes to read it would be to copy them.
#[derive(Clone, PartialEq, Debug)]
pub enum Json<'t> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string, without quotes and escapes.
    Text(Cow<'t, str>),
    /// `[…]`
    Array(Vec<Self>),
    /// `{…}`
    Object(Object<'t>),
}

/// The fields of a JSON object, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Json<'t>)>);

impl<'t> Json<'t> {
    /// A field, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// What is in an object.
    pub fn as_object(&self) -> Option<&Object<'t>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What is in an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The same, with strings of its own.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Number(number) => Json::Number(number),
            Self::Text(text) => Json::Text(text.into_owned().into()),
            Self::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(object) => Json::Object(object.into_owned()),
        }
    }

    /// Whether two keys of an object differ in case alone, somewhere in the value.
    ///
    /// Some readers take either for the other (Go's do), and so would settle something else than was checked here.
    pub(super) fn has_case_twins(&self) -> bool {
        match self {
            Self::Array(items) => items.iter().any(Json::has_case_twins),
            Self::Object(object) => object.keys_have_case_twins() || object.iter().any(|(_, value)| value.has_case_twins()),
            _ => false,
        }
    }
}

impl<'t> Object<'t> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json<'t>> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether there is a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json<'t>)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// The same, with strings of its own.
    pub fn into_owned(self) -> Object<'static> {
        let own = |(key, value): (Cow<'t, str>, Json<'t>)| (key.into_owned().into(), value.into_owned());
        Object(self.0.into_iter().map(own).collect())
    }

    /// Takes a value out; the others keep their order.
    pub(super) fn take(&mut self, key: &str) -> Option<Json<'t>> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// See [`Json::has_case_twins`].
    pub(super) fn keys_have_case_twins(&self) -> bool {
        let mut fields = self.0.iter();
        if self.0.len() <= FEW {
            while let Some((key, _)) = fields.next() {
                if fields.clone().any(|(other, _)| key.eq_ignore_ascii_case(other)) {
                    return true;
                }
            }
            return false;
        }
        let mut seen = BTreeSet::new();
        fields.any(|(key, _)| !seen.insert(key.to_ascii_lowercase()))
    }
}

/// Parses a JSON text: nested at most [`MAX_DEPTH`] deep, no key twice in an object.
///
/// ```
/// use x402_envoy::x402::json::{JsonError, parse};
/// assert_eq!(parse(r#"{"a":1,"a":2}"#), Err(JsonError::DuplicateKey));
/// assert_eq!(parse(r#"{"a":[1]}"#).unwrap().get("a").unwrap().as_array().unwrap()[0].as_u64(), Some(1));
/// ```
///
/// # Errors
///
/// Why it is not accepted.
pub fn parse(text: &str) -> Result<Json<'_>, JsonError> {
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

impl<'t> DeserializeSeed<'t> for Strict<'_> {
    type Value = Json<'t>;

    fn deserialize<D: Deserializer<'t>>(self, reader: D) -> Result<Json<'t>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Strict<'_> {
    type Value = Json<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'t>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'t>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'t>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'t>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, value: &'t str) -> Result<Json<'t>, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'t>, E> {
        Ok(Json::Text(value.to_owned().into()))
    }

    fn visit_unit<E>(self) -> Result<Json<'t>, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Json<'t>, A::Error> {
        let inner = self.deeper()?;
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            out.push(item);
        }
        Ok(Json::Array(out))
    }

    fn visit_map<A: MapAccess<'t>>(self, mut fields: A) -> Result<Json<'t>, A::Error> {
        let inner = self.deeper()?;
        let mut out: Vec<(Cow<'t, str>, Json<'t>)> = Vec::with_capacity(8);
        let mut many: Option<BTreeSet<Cow<'t, str>>> = None;
        while let Some(key) = fields.next_key_seed(Key)? {
            if out.len() == FEW {
                let seen = many.insert(BTreeSet::new());
                // Not collected, which would sort them first, by three kilobytes of code.
                for (key, _) in &out {
                    seen.insert(key.clone());
                }
            }
            let is_new = match &mut many {
                Some(seen) => seen.insert(key.clone()),
                None => out.iter().all(|(name, _)| *name != key),
            };
            if !is_new {
                return Err(self.fail(JsonError::DuplicateKey));
            }
            out.push((key, fields.next_value_seed(inner)?));
        }
        Ok(Json::Object(Object(out)))
    }
}

/// A key: a part of the text, unless it has escapes in it.
struct Key;

impl<'t> DeserializeSeed<'t> for Key {
    type Value = Cow<'t, str>;

    fn deserialize<D: Deserializer<'t>>(self, reader: D) -> Result<Cow<'t, str>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Key {
    type Value = Cow<'t, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'t str) -> Result<Cow<'t, str>, E> {
        Ok(key.into())
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'t, str>, E> {
        Ok(key.to_owned().into())
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

    fn plain(json: &Json<'_>) -> serde_json::Value {
        match json {
            Json::Null => serde_json::Value::Null,
            Json::Bool(value) => (*value).into(),
            Json::Number(number) => number.clone().into(),
            Json::Text(text) => (**text).into(),
            Json::Array(items) => items.iter().map(plain).collect(),
            Json::Object(object) => object.iter().map(|(key, value)| (key.to_owned(), plain(value))).collect(),
        }
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_and_duplicates_are_checked() {
        assert!(parse(&nested(32)).is_ok());
        assert_eq!(parse(&nested(33)), Err(JsonError::TooDeep));
        assert_eq!(parse(&nested(100_000)), Err(JsonError::TooDeep));
        assert_eq!(parse(r#"{"x":{"a":1,"\u0061":2}}"#), Err(JsonError::DuplicateKey));
        for many in [3, FEW - 1, FEW, FEW + 1, 1000] {
            let keys = |again: &str| {
                format!(
                    "{{{}\"{again}\":0}}",
                    (0..many).map(|n| format!("\"k{n}\":{n},")).collect::<String>()
                )
            };
            for again in ["k0", "k1", &format!("k{}", many - 1)] {
                assert_eq!(parse(&keys(again)), Err(JsonError::DuplicateKey), "{many} {again}");
            }
            let (unique, twins) = (keys("k"), keys("K0"));
            let parsed = parse(&unique).unwrap();
            assert_eq!(parsed.get("k1").and_then(Json::as_u64), Some(1), "{many}");
            assert!(!parsed.has_case_twins());
            assert!(parse(&twins).unwrap().has_case_twins(), "{many}");
        }
        for text in ["", "{", "{} {}", "NaN", "1e999", "{\"a\":1,}", "\"\\ud800\""] {
            assert_eq!(parse(text), Err(JsonError::Syntax), "{text}");
        }
    }

    #[test]
    fn keys_that_differ_in_case_alone_are_found() {
        assert!(parse(r#"[{"nonce":1,"Nonce":2}]"#).unwrap().has_case_twins());
        assert!(!parse(r#"[{"nonce":1},{"Nonce":2}]"#).unwrap().has_case_twins());
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
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(plain(&value), serde_json::from_str::<serde_json::Value>(&text).unwrap());
                prop_assert_eq!(value.clone().into_owned(), value);
            }
        }
    }
}
