//! Changes to a body, spliced into its text: every other byte stays as it was sent.

use crate::sorting;
use std::borrow::Cow;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::facts::{Api, Rewrite};

/// A replacement of some bytes of a body by others.
struct Splice {
    from: usize,
    to: usize,
    text: String,
}

/// The body that goes to the backend instead; `None` if nothing has to change, or this is no body that the reader could read.
pub fn rewrite(body: &[u8], api: Api, wanted: &Rewrite) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(body).ok()?;
    let mut splices = Vec::new();
    let mut added = Vec::new();
    let object = Object::read(text, 0)?;
    if let Some(limit) = wanted.set_max_output {
        set_limit(&object, api, limit, &mut splices, &mut added);
    }
    if wanted.include_usage {
        include_usage(&object, &mut splices, &mut added);
    }
    if !added.is_empty() {
        splices.push(object.with(&added.join(",")));
    }
    (!splices.is_empty()).then(|| apply(text, splices))?.map(String::into_bytes)
}

/// Lowers every limit that is larger, and adds one where none is named: which of several a backend obeys does not matter then.
fn set_limit(object: &Object<'_>, api: Api, limit: u64, splices: &mut Vec<Splice>, added: &mut Vec<String>) {
    let mut named = false;
    for name in api.limit_names() {
        let Some(field) = object.field(name) else { continue };
        let Ok(sent) = field.text.parse::<f64>() else { continue };
        named = true;
        let exact = field.text.parse::<u64>().map(|sent| sent <= limit);
        // `5.0`, or a number beyond 64 bits.
        let within = exact.unwrap_or_else(|_| u32::try_from(limit).is_ok_and(|limit| sent <= f64::from(limit)));
        if !within {
            splices.push(field.replaced(limit.to_string()));
        }
    }
    if named {
        return;
    }
    // `null` is as good as nothing, and the field may not be there twice.
    let null = api.limit_names().iter().find_map(|name| object.field(name));
    match (null, api.limit_names().first()) {
        (Some(field), _) => splices.push(field.replaced(limit.to_string())),
        (None, Some(name)) => added.push(format!("\"{name}\":{limit}")),
        (None, None) => {}
    }
}

fn include_usage(object: &Object<'_>, splices: &mut Vec<Splice>, added: &mut Vec<String>) {
    const WANTED: &str = "\"include_usage\":true";
    let Some(options) = object.field("stream_options") else {
        added.push(format!("\"stream_options\":{{{WANTED}}}"));
        return;
    };
    match Object::read(options.text, options.at) {
        None => splices.push(options.replaced(format!("{{{WANTED}}}"))),
        Some(inner) => splices.push(match inner.field("include_usage") {
            Some(field) => field.replaced("true".into()),
            None => inner.with(WANTED),
        }),
    }
}

fn apply(text: &str, mut splices: Vec<Splice>) -> Option<String> {
    sorting::sort(&mut splices, |one, other| one.from < other.from);
    let mut out = String::new();
    let mut at = 0;
    for splice in splices {
        out.push_str(text.get(at..splice.from)?);
        out.push_str(&splice.text);
        at = splice.to;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// The fields of an object as they are written, and where.
struct Object<'b> {
    fields: Vec<(Cow<'b, str>, Field<'b>)>,
    /// Just after the opening brace.
    inside: usize,
}

#[derive(Clone, Copy)]
struct Field<'b> {
    text: &'b str,
    at: usize,
}

impl Field<'_> {
    fn replaced(&self, text: String) -> Splice {
        let to = self.at.saturating_add(self.text.len());
        Splice { from: self.at, to, text }
    }
}

impl<'b> Object<'b> {
    /// Reads an object that begins at a byte of the body; `None` for any other value.
    fn read(text: &'b str, at: usize) -> Option<Self> {
        let inside = text
            .find('{')
            .filter(|brace| text.get(..*brace).is_some_and(|before| before.trim().is_empty()))?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer.deserialize_map(Fields).ok()?;
        let start = text.as_ptr().addr();
        let placed = fields.into_iter().map(|(key, value)| {
            let offset = value.get().as_ptr().addr().checked_sub(start)?.checked_add(at)?;
            let field = Field {
                text: value.get(),
                at: offset,
            };
            Some((key, field))
        });
        Some(Self {
            fields: placed.collect::<Option<_>>()?,
            inside: inside.checked_add(1)?.checked_add(at)?,
        })
    }

    fn field(&self, name: &str) -> Option<Field<'b>> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, field)| *field)
    }

    /// More fields, before all others.
    fn with(&self, fields: &str) -> Splice {
        let comma = if self.fields.is_empty() { "" } else { "," };
        Splice {
            from: self.inside,
            to: self.inside,
            text: format!("{fields}{comma}"),
        }
    }
}

struct Fields;

impl<'b> Visitor<'b> for Fields {
    type Value = Vec<(Cow<'b, str>, &'b RawValue)>;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &'b RawValue>()? {
            fields.push((Cow::Owned(key), value));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(body: &str, api: Api, set_max_output: Option<u64>, include_usage: bool) -> Option<String> {
        let wanted = Rewrite {
            set_max_output,
            include_usage,
        };
        rewrite(body.as_bytes(), api, &wanted).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_limit_is_added_or_lowered_and_the_rest_stays() {
        for (api, body, expected) in [
            (Api::Chat, "{}", r#"{"max_tokens":9}"#),
            (Api::Chat, " { \"a\" : 1.0 } ", " {\"max_tokens\":9, \"a\" : 1.0 } "),
            (Api::Chat, r#"{"a":1,"max_tokens": null}"#, r#"{"a":1,"max_tokens": 9}"#),
            (Api::Chat, r#"{"max_tokens":10, "b":[ ]}"#, r#"{"max_tokens":9, "b":[ ]}"#),
            (
                Api::Chat,
                r#"{"max_completion_tokens":1e30,"max_tokens":5}"#,
                r#"{"max_completion_tokens":9,"max_tokens":5}"#,
            ),
            (
                Api::Chat,
                r#"{"max_completion_tokens":99,"max_tokens":5.0}"#,
                r#"{"max_completion_tokens":9,"max_tokens":5.0}"#,
            ),
            (
                Api::Chat,
                r#"{"max_tokens":null,"max_completion_tokens":10}"#,
                r#"{"max_tokens":null,"max_completion_tokens":9}"#,
            ),
            (Api::Chat, r#"{"m\u0061x_tokens":10}"#, r#"{"m\u0061x_tokens":9}"#),
            (Api::Responses, r#"{"max_tokens":10}"#, r#"{"max_output_tokens":9,"max_tokens":10}"#),
            (
                Api::Completions,
                r#"{"prompt":"\"max_tokens\":1"}"#,
                r#"{"max_tokens":9,"prompt":"\"max_tokens\":1"}"#,
            ),
        ] {
            assert_eq!(rewritten(body, api, Some(9), false).as_deref(), Some(expected), "{body}");
        }
        assert_eq!(rewritten("{}", Api::Embeddings, Some(9), false), None);
        assert_eq!(rewritten("{}", Api::Chat, None, false), None);
        assert_eq!(rewritten("[]", Api::Chat, Some(9), true), None);
    }

    #[test]
    fn usage_is_asked_for() {
        for (body, expected) in [
            ("{}", r#"{"stream_options":{"include_usage":true}}"#),
            (
                r#"{"stream":true,"stream_options":null}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options": { "x": 1 }}"#,
                r#"{"stream_options": {"include_usage":true, "x": 1 }}"#,
            ),
            (
                r#"{"stream_options":{"include_usage": false },"é":"\n"}"#,
                r#"{"stream_options":{"include_usage": true },"é":"\n"}"#,
            ),
        ] {
            assert_eq!(rewritten(body, Api::Chat, None, true).as_deref(), Some(expected), "{body}");
        }
        assert_eq!(
            rewritten(r#"{"stream":true}"#, Api::Chat, Some(9), true).as_deref(),
            Some(r#"{"max_tokens":9,"stream_options":{"include_usage":true},"stream":true}"#)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = rewrite(&body, Api::Chat, &Rewrite { set_max_output: Some(1), include_usage: true });
        }

        /// What comes out is the same document but for what was asked.
        #[test]
        fn nothing_else_changes(a in any::<f64>().prop_filter("json", |f| f.is_finite()), text in ".{0,20}", limit in proptest::option::of(1u64..99), cap in 1u64..50) {
            let mut value = serde_json::json!({"a": a, "text": text, "stream_options": {"k": text}});
            if let Some(limit) = limit {
                value["max_tokens"] = limit.into();
            }
            let body = serde_json::to_string(&value).unwrap();
            let wanted = Rewrite { set_max_output: Some(cap), include_usage: true };
            let out = rewrite(body.as_bytes(), Api::Chat, &wanted).unwrap();
            value["max_tokens"] = limit.map_or(cap, |limit| limit.min(cap)).into();
            value["stream_options"]["include_usage"] = true.into();
            // Numbers are compared as they are written.
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), serde_json::from_str::<serde_json::Value>(&value.to_string()).unwrap());
        }
    }
}
