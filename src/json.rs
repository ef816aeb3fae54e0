//! JSON from strangers: parsed strictly, so that nobody reads something else in it than we do, and without copying its strings.
//!
//! The size is the caller's to bound.

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;
use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How many keys of an object are compared with each other; a set is for those who send thousands.
const FEW: usize = 16;

/// Why a text is not JSON that is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// Not JSON.
    Syntax,
    /// Nested too deep.
    TooDeep,
    /// A key that appears twice in an object: readers differ in which of the two counts.
    DuplicateKey,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "it is not JSON",
            Self::TooDeep => "it is nested too deep",
            Self::DuplicateKey => "a key appears twice in an object",
        })
    }
}

/// A JSON value. Its strings are parts of the text that was parsed, but for those with escapes in them: most of a payment is strings,
/// and most of what it takes to read it would be to copy them.
#[derive(Clone, PartialEq, Debug)]
pub enum Json<'t> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number that fits.
    Unsigned(u64),
    /// A negative whole number that fits.
    Negative(i64),
    /// Any other number.
    Double(f64),
    /// A string, without quotes and escapes.
    Text(Cow<'t, str>),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Object<'t>),
}

/// The fields of a JSON object, in its own order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Object<'t>(Vec<(Cow<'t, str>, Json<'t>)>);

impl<'t> Json<'t> {
    #[cfg(test)]
    pub(crate) fn for_tests(text: &'t str) -> Self {
        parse(text, 128).unwrap()
    }

    /// A field of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.object()?.get(name)
    }

    /// The same, unless it is `null`, which to most backends says as much as leaving it out.
    pub fn given(&self, name: &str) -> Option<&Self> {
        self.get(name).filter(|value| **value != Self::Null)
    }

    /// What is in an object.
    pub fn object(&self) -> Option<&Object<'t>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The fields of an object; none of anything else.
    pub fn fields(&self) -> &[(Cow<'t, str>, Self)] {
        self.object().map_or(&[], |object| object)
    }

    /// The items of a list.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        self.list().unwrap_or_default()
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A truth value.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn whole(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Unsigned(_) | Self::Negative(_) | Self::Double(_))
    }

    /// The same, with strings of its own.
    pub fn into_owned(self) -> Json<'static> {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Unsigned(number) => Json::Unsigned(number),
            Self::Negative(number) => Json::Negative(number),
            Self::Double(number) => Json::Double(number),
            Self::Text(text) => Json::Text(text.into_owned().into()),
            Self::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Self::Object(object) => Json::Object(object.into_owned()),
        }
    }

    /// Whether two keys of an object differ in case alone, somewhere in the value.
    ///
    /// Some readers take either for the other (Go's do), and so would settle something else than was checked here.
    pub(crate) fn has_case_twins(&self) -> bool {
        match self {
            Self::List(items) => items.iter().any(Json::has_case_twins),
            Self::Object(object) => object.keys_have_case_twins() || object.iter().any(|(_, value)| value.has_case_twins()),
            _ => false,
        }
    }
}

impl<'t> Deref for Object<'t> {
    type Target = [(Cow<'t, str>, Json<'t>)];

    fn deref(&self) -> &Self::Target {
        &self.0
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

    /// The same, with strings of its own.
    pub fn into_owned(self) -> Object<'static> {
        let own = |(key, value): (Cow<'t, str>, Json<'t>)| (key.into_owned().into(), value.into_owned());
        Object(self.0.into_iter().map(own).collect())
    }

    /// Takes a value out; the others keep their order.
    pub(crate) fn take(&mut self, key: &str) -> Option<Json<'t>> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// See [`Json::has_case_twins`].
    pub(crate) fn keys_have_case_twins(&self) -> bool {
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

/// Parses a text that holds one value and nothing else: no key twice in an object, nested at most so deep (`[[1]]` has a depth of 2).
///
/// ```
/// use x402_envoy::json::{JsonError, parse};
/// assert_eq!(parse(r#"{"a":1,"a":2}"#, 32), Err(JsonError::DuplicateKey));
/// assert_eq!(parse(r#"{"a":[1]}"#, 32).unwrap().get("a").unwrap().items()[0].whole(), Some(1));
/// ```
///
/// # Errors
///
/// Why it is not accepted.
pub fn parse(text: &str, max_depth: u8) -> Result<Json<'_>, JsonError> {
    let failure = Cell::new(JsonError::Syntax);
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        depth: max_depth,
        failure: &failure,
    };
    strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|_| failure.get())
}

#[derive(Clone, Copy)]
struct Strict<'f> {
    /// How much deeper it may go.
    depth: u8,
    failure: &'f Cell<JsonError>,
}

impl Strict<'_> {
    fn fail<E: de::Error>(&self, why: JsonError) -> E {
        self.failure.set(why);
        E::custom(why)
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(self.fail(JsonError::TooDeep)),
        }
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
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'t>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'t>, E> {
        Ok(Json::Double(value))
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
        Ok(Json::List(out))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(json: &Json<'_>) -> serde_json::Value {
        match json {
            Json::Null => serde_json::Value::Null,
            Json::Bool(value) => (*value).into(),
            Json::Unsigned(number) => (*number).into(),
            Json::Negative(number) => (*number).into(),
            Json::Double(number) => (*number).into(),
            Json::Text(text) => (**text).into(),
            Json::List(items) => items.iter().map(plain).collect(),
            Json::Object(object) => object.iter().map(|(key, value)| (key.to_string(), plain(value))).collect(),
        }
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_and_duplicates_are_checked() {
        assert!(parse(&nested(32), 32).is_ok());
        assert_eq!(parse(&nested(33), 32), Err(JsonError::TooDeep));
        assert_eq!(parse(&nested(100_000), 32), Err(JsonError::TooDeep));
        assert_eq!(parse(r#"{"x":{"a":1,"\u0061":2}}"#, 32), Err(JsonError::DuplicateKey));
        for many in [3, FEW - 1, FEW, FEW + 1, 1000] {
            let keys = |again: &str| {
                format!(
                    "{{{}\"{again}\":0}}",
                    (0..many).map(|n| format!("\"k{n}\":{n},")).collect::<String>()
                )
            };
            for again in ["k0", "k1", &format!("k{}", many - 1)] {
                assert_eq!(parse(&keys(again), 1), Err(JsonError::DuplicateKey), "{many} {again}");
            }
            let (unique, twins) = (keys("k"), keys("K0"));
            let parsed = parse(&unique, 1).unwrap();
            assert_eq!(parsed.get("k1").and_then(Json::whole), Some(1), "{many}");
            assert!(!parsed.has_case_twins());
            assert!(parse(&twins, 1).unwrap().has_case_twins(), "{many}");
        }
        for text in ["", "{", "{} {}", "NaN", "1e999", "{\"a\":1,}", "\"\\ud800\""] {
            assert_eq!(parse(text, 32), Err(JsonError::Syntax), "{text}");
        }
    }

    #[test]
    fn keys_that_differ_in_case_alone_are_found() {
        assert!(parse(r#"[{"nonce":1,"Nonce":2}]"#, 2).unwrap().has_case_twins());
        assert!(!parse(r#"[{"nonce":1},{"Nonce":2}]"#, 2).unwrap().has_case_twins());
    }

    #[test]
    fn values_are_what_they_are() {
        let body = r#"{"a":[1,-2,0.5,"x\n",null,true],"b":{"c":"d"}}"#;
        let json = parse(body, 3).unwrap();
        assert_eq!(json.get("b").and_then(|b| b.get("c")).and_then(Json::text), Some("d"));
        assert_eq!(json.get("a").map(|list| list.items().len()), Some(6));
        assert_eq!(json.get("a").unwrap().items()[1], Json::Negative(-2));
        assert!(json.given("z").is_none() && json.get("a").unwrap().items()[2].is_number());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_it_accepts(text in "[\\[\\]{}\",:a-c0-9 .e\\\\-]{0,40}") {
            if let Ok(value) = parse(&text, 32) {
                prop_assert_eq!(plain(&value), serde_json::from_str::<serde_json::Value>(&text).unwrap());
                prop_assert_eq!(value.clone().into_owned(), value);
            }
        }
    }
}
