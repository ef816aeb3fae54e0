//! What a condition can see of a request.

use crate::json::Json;
use crate::pricing::{RequestFacts, normalise};
use crate::reader::{query_length, url_query_length};

/// A request, as conditions see it.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `request.method`, as sent.
    pub method: &'a [u8],
    /// `:path` as sent, with the query.
    pub path: &'a [u8],
    /// Every header, in any order.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// `request.size`: bytes of the body as sent.
    pub size: u64,
    /// The body, if there is one.
    pub body: Option<&'a Json<'a>>,
}

impl<'a> Scope<'a> {
    /// A request without a body, or whose body no condition looks at.
    pub fn without_body(request: &RequestFacts<'a>) -> Self {
        Self {
            method: request.place.method,
            path: request.place.path,
            headers: request.headers,
            size: 0,
            body: None,
        }
    }

    /// Characters of the user's input, in the body or in the URL's query.
    pub(super) fn query_length(&self) -> u64 {
        self.body.map_or(0, query_length).max(url_query_length(self.path))
    }

    /// The boolean of that name in the body, or the header: true if either says so, `None` if one of them says something else.
    pub(super) fn requires_browser(&self) -> Option<bool> {
        let in_body = match self.body.and_then(|body| body.given("requires_browser")) {
            None => Some(false),
            Some(Json::Bool(value)) => Some(*value),
            Some(_) => None,
        };
        let in_header = match self.header("x-requires-browser").map(|value| value.trim().to_ascii_lowercase()) {
            None => Some(false),
            Some(value) => match &*value {
                "true" | "1" | "yes" => Some(true),
                "false" | "0" | "no" | "" => Some(false),
                _ => None,
            },
        };
        match (in_body, in_header) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (in_body, in_header) => in_body.and(in_header),
        }
    }

    /// The path in the form that routes compare, without the query.
    pub(super) fn normal_path(&self) -> String {
        String::from_utf8_lossy(&normalise(self.path).path).into_owned()
    }

    /// The values of a header, joined as HTTP joins them.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let values = self.headers.iter().filter(|(sent, _)| sent.eq_ignore_ascii_case(name.as_bytes()));
        let values: Vec<_> = values.map(|(_, value)| String::from_utf8_lossy(value)).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}
