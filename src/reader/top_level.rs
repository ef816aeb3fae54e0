//! The visitor of a body's top level: finds `model`, skips the rest.

use core::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::facts::{MAX_MODEL_BYTES, Why};

/// Visits the top-level object, noting why it cannot be relied on beside serde's error, which would only be text.
pub(super) struct TopLevel<'p> {
    /// Set if the document cannot be relied on although it is JSON.
    pub(super) problem: &'p mut Option<Why>,
}

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut model = None;
        let mut seen = false;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
                Key::Model { exact } => {
                    let value = map.next_value::<Model>()?;
                    // Backends in Go match keys without case, and of two the first or the last may count.
                    if seen || !exact {
                        self.problem.get_or_insert(Why::Duplicate);
                    }
                    seen = true;
                    match value {
                        Model::Name(name) => model = Some(name),
                        Model::Bad => {
                            self.problem.get_or_insert(Why::BadModel);
                        }
                    }
                }
            }
        }
        Ok(model)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        *self.problem = Some(Why::NotAnObject);
        Ok(None)
    }
}

/// A key, decoded, of which only this much is kept.
enum Key {
    Model { exact: bool },
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                Ok(if key.eq_ignore_ascii_case("model") {
                    Key::Model { exact: key == "model" }
                } else {
                    Key::Other
                })
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// The value of `model`.
enum Model {
    Name(String),
    Bad,
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModelVisitor;
        impl<'de> Visitor<'de> for ModelVisitor {
            type Value = Model;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model's name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Model, E> {
                Ok(if name.len() > MAX_MODEL_BYTES {
                    Model::Bad
                } else {
                    Model::Name(name.to_owned())
                })
            }
            fn visit_bool<E>(self, _: bool) -> Result<Model, E> {
                Ok(Model::Bad)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Model, E> {
                Ok(Model::Bad)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Model, E> {
                Ok(Model::Bad)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Model, E> {
                Ok(Model::Bad)
            }
            fn visit_unit<E>(self) -> Result<Model, E> {
                Ok(Model::Bad)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Model, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Model::Bad)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Model::Bad)
            }
        }
        deserializer.deserialize_any(ModelVisitor)
    }
}
