//! JSON of payments and of facilitators. Source of the rules: PROTOCOL "Payments accepted" (depth 32, no duplicate keys).

use core::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

pub(super) use crate::json::{Json, JsonError, Object};

/// The deepest nesting that is read.
const MAX_DEPTH: u8 = 32;

/// Parses a JSON text: nested at most [`MAX_DEPTH`] deep, no key twice in an object.
pub(super) fn parse(text: &str) -> Result<Json<'_>, JsonError> {
    crate::json::parse(text, MAX_DEPTH)
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

    #[test]
    fn raw_objects_keep_order_and_text() {
        let mut object = RawObject::read(r#"{"z": 1.0, "a": {"y" :2}}"#).unwrap();
        object.set("z", RawValue::from_string("3".to_owned()).unwrap());
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"z":3,"a":{"y" :2}}"#);
        assert!(object.take("a").is_some());
        assert!(RawObject::read("[]").is_none());
    }
}
