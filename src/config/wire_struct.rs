//! The configuration as Envoy hands it over.
//!
//! A `google.protobuf.StringValue` arrives as its text. A `google.protobuf.Struct`, which is what people write YAML in, arrives
//! as the bytes of the protobuf message, not as JSON (Envoy 1.36 to 1.40, measured; its documentation says JSON): read here.
//! Source: protobuf encoding; `google/protobuf/struct.proto`.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

/// Deeper than any configuration; bounds the recursion.
const MAX_DEPTH: u8 = 64;

/// The configuration as JSON text, whichever way it came.
pub fn json_text(bytes: &[u8]) -> Cow<'_, [u8]> {
    // A Struct's first byte is the tag of `fields`, which is a line feed: JSON text may begin with one too, but does not parse as a Struct.
    match read_struct(bytes, 0).map(|fields| serde_json::to_vec(&fields)) {
        Some(Ok(json)) if !bytes.is_empty() => Cow::Owned(json),
        _ => Cow::Borrowed(bytes),
    }
}

/// `message Struct { map<string, Value> fields = 1; }`
fn read_struct(bytes: &[u8], depth: u8) -> Option<Value> {
    let mut fields = Map::new();
    for_each(bytes, |number, field| {
        let (1, Field::Bytes(entry)) = (number, field) else { return None };
        let (mut key, mut value) = (String::new(), Value::Null);
        for_each(entry, |number, field| {
            match (number, field) {
                (1, Field::Bytes(name)) => key = std::str::from_utf8(name).ok()?.to_owned(),
                (2, Field::Bytes(inner)) => value = read_value(inner, depth)?,
                _ => return None,
            }
            Some(())
        })?;
        fields.insert(key, value);
        Some(())
    })?;
    Some(Value::Object(fields))
}

/// `message Value { oneof kind { NullValue = 1; double = 2; string = 3; bool = 4; Struct = 5; ListValue = 6; } }`
fn read_value(bytes: &[u8], depth: u8) -> Option<Value> {
    let depth = depth.checked_add(1).filter(|depth| *depth <= MAX_DEPTH)?;
    let mut value = Value::Null;
    for_each(bytes, |number, field| {
        value = match (number, field) {
            (1, Field::Varint(_)) => Value::Null,
            (2, Field::Fixed64(bits)) => number_value(f64::from_bits(bits))?,
            (3, Field::Bytes(text)) => Value::String(std::str::from_utf8(text).ok()?.to_owned()),
            (4, Field::Varint(truth)) => Value::Bool(truth != 0),
            (5, Field::Bytes(inner)) => read_struct(inner, depth)?,
            (6, Field::Bytes(inner)) => read_list(inner, depth)?,
            _ => return None,
        };
        Some(())
    })?;
    Some(value)
}

/// `message ListValue { repeated Value values = 1; }`
fn read_list(bytes: &[u8], depth: u8) -> Option<Value> {
    let mut values = Vec::new();
    for_each(bytes, |number, field| {
        let (1, Field::Bytes(inner)) = (number, field) else { return None };
        values.push(read_value(inner, depth)?);
        Some(())
    })?;
    Some(Value::Array(values))
}

/// All numbers of a Struct are doubles: those that are whole are written as integers, as a person would have.
fn number_value(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)] // whole and within the integers that a double holds exactly
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Runs over the fields of a message; `None` as soon as something does not fit.
fn for_each<'a>(mut bytes: &'a [u8], mut take: impl FnMut(u64, Field<'a>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => {
                let (bits, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                Field::Fixed64(u64::from_le_bytes(*bits))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (part, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(part)
            }
            _ => return None,
        };
        take(tag >> 3, field)?;
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Written by protobuf's own Python runtime: `Struct().update({...}).SerializeToString(deterministic=True).hex()`.
    const BY_PROTOBUF: &str = "0a110a08756e6d61746368656412051a03706173730a260a066c696d69747312";

    #[test]
    fn text_is_left_alone() {
        for text in [&br#"{"a": 1}"#[..], b"\n{\"a\": 1}", b"\n\n  {}", b"", b"nonsense"] {
            assert_eq!(&*json_text(text), text);
        }
    }

    #[test]
    fn a_truncated_struct_is_not_read() {
        let bytes = hex::decode(BY_PROTOBUF).unwrap();
        assert_eq!(&*json_text(&bytes), &*bytes);
    }

    #[test]
    fn a_struct_becomes_json() {
        let bytes = hex::decode(include_str!("../../tests/config/struct.hex").trim()).unwrap();
        let expected: Value = serde_json::from_str(include_str!("../../tests/config/struct.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&json_text(&bytes)).unwrap(), expected);
    }

    #[test]
    fn whole_numbers_are_integers() {
        assert_eq!(number_value(6.0), Some(json!(6)));
        assert_eq!(number_value(-1.0), Some(json!(-1)));
        assert_eq!(number_value(1.5), Some(json!(1.5)));
        assert_eq!(number_value(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = json_text(&bytes);
        }
    }
}
