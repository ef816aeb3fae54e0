//! A whole body, for prices that depend on more of it than its model. Texts are borrowed where the body has them as they are.
//!
//! No key twice in an object: readers differ in which of the two counts. Depth is bounded before this is reached.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'b> {
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
    /// A string.
    Text(Cow<'b, str>),
    /// An array.
    List(Vec<Json<'b>>),
    /// An object, in its own order.
    Object(Vec<(Cow<'b, str>, Json<'b>)>),
}

impl<'b> Json<'b> {
    /// Reads a text that holds one value and nothing else.
    ///
    /// # Errors
    ///
    /// `true` if a key appears twice, `false` if it is not JSON.
    pub(super) fn parse(text: &'b str) -> Result<Self, bool> {
        let mut duplicate = false;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Seed { duplicate: &mut duplicate }
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value));
        value.map_err(|_| duplicate)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(text: &'b str) -> Self {
        Self::parse(text).unwrap()
    }

    /// A field of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.fields().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The same, unless it is `null`, which to most backends says as much as leaving it out.
    pub fn given(&self, name: &str) -> Option<&Self> {
        self.get(name).filter(|value| **value != Self::Null)
    }

    /// The fields of an object; none of anything else.
    pub fn fields(&self) -> &[(Cow<'b, str>, Self)] {
        match self {
            Self::Object(fields) => fields,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// A string's text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Unsigned(_) | Self::Negative(_) | Self::Double(_))
    }
}

/// Whether a key is a name in any case, as backends in Go compare them: `ſ` is an s to them, and the Kelvin sign a k.
pub(super) fn is_spelled(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    key.chars().map(folded).eq(name.chars().map(folded))
}

/// Whether a key begins with a name in any case.
pub(super) fn begins_as(key: &str, name: &str) -> bool {
    key.chars().take(name.chars().count()).map(folded).eq(name.chars().map(folded))
}

fn folded(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

struct Seed<'d> {
    duplicate: &'d mut bool,
}

impl<'b> DeserializeSeed<'b> for Seed<'_> {
    type Value = Json<'b>;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Json<'b>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'b> Visitor<'b> for Seed<'_> {
    type Value = Json<'b>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'b>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'b>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'b>, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'b>, E> {
        Ok(u64::try_from(value).map_or(Json::Negative(value), Json::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'b>, E> {
        Ok(Json::Double(value))
    }

    fn visit_borrowed_str<E>(self, value: &'b str) -> Result<Json<'b>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'b>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut seq: A) -> Result<Json<'b>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed {
            duplicate: &mut *self.duplicate,
        })? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Json<'b>, A::Error> {
        let mut fields: Vec<(Cow<'b, str>, Json<'b>)> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(Seed {
                duplicate: &mut *self.duplicate,
            })?;
            fields.push((key, value));
        }
        let mut distinct: BTreeSet<&str> = BTreeSet::new();
        for (key, _) in &fields {
            distinct.insert(key);
        }
        if distinct.len() < fields.len() {
            *self.duplicate = true;
            return Err(A::Error::custom("a key twice"));
        }
        Ok(Json::Object(fields))
    }
}

/// A key, borrowed where it can be.
struct Key;

impl<'b> DeserializeSeed<'b> for Key {
    type Value = Cow<'b, str>;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Cow<'b, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'b> Visitor<'b> for Key {
    type Value = Cow<'b, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'b str) -> Result<Cow<'b, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'b, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_what_they_are() {
        let body = r#"{"a":[1,-2,0.5,"x\n",null,true],"b":{"c":"d"}}"#;
        let json = Json::parse(body).unwrap();
        assert_eq!(json.get("b").and_then(|b| b.get("c")).and_then(Json::text), Some("d"));
        assert_eq!(json.get("a").map(|list| list.items().len()), Some(6));
        assert_eq!(json.get("a").unwrap().items()[1], Json::Negative(-2));
        assert!(json.given("z").is_none() && json.get("a").unwrap().items()[2].is_number());
    }

    #[test]
    fn keys_are_compared_without_case() {
        for (key, name, expected) in [
            ("max_tokens", "max_tokens", true),
            ("MAX_TOKENS", "max_tokens", true),
            ("max_to\u{212a}en\u{17f}", "max_tokens", true),
            ("max_token", "max_tokens", false),
            ("max_tokensé", "max_tokens", false),
            ("generationconfig", "generationConfig", true),
        ] {
            assert_eq!(is_spelled(key, name), expected, "{key}");
        }
        assert!(begins_as("Moc\u{212a}_x", "mock_") && begins_as("mock_", "mock_") && !begins_as("mock", "mock_"));
    }

    #[test]
    fn no_key_counts_twice() {
        assert_eq!(Json::parse(r#"{"a":{"x":1,"\u0078":2}}"#), Err(true));
        assert_eq!(Json::parse("{"), Err(false));
        assert_eq!(Json::parse("{} 1"), Err(false));
    }
}
