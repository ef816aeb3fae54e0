//! `match`: which requests a route takes.

use super::fields::{Errors, Node};
use super::text::{is_header_name, is_method};
use crate::pricing::{Glob, Host, Matcher, PathPattern, normalise};

/// Reads `match`; what is wrong in it is noted and left out.
pub(super) fn read(node: &Node<'_>, errors: &mut Errors) -> Matcher {
    let known = ["methods", "host", "path", "headers", "route", "model", "case_sensitive"];
    let mut matcher = Matcher::default();
    let Some(fields) = node.fields(&known, &[], errors) else {
        return matcher;
    };
    if let Some(node) = fields.get("methods") {
        matcher.methods = methods(&node, errors);
    }
    if let Some(node) = fields.get("host") {
        const EXPECTED: &str = "a host name such as \"api.example.com\" or \"*.example.com\", without a port";
        let host = node.text(EXPECTED, errors).map(Host::parse);
        if matches!(host, Some(None)) {
            node.reject(EXPECTED, errors);
        }
        matcher.host = host.flatten();
    }
    let case_sensitive = fields.get("case_sensitive").and_then(|node| node.boolean(errors)).unwrap_or(false);
    if let Some(node) = fields.get("path") {
        matcher.path = path(&node, case_sensitive, errors).unwrap_or_default();
    }
    if let Some(node) = fields.get("headers") {
        for (name, condition) in node.entries("globs by header name", errors) {
            if !is_header_name(name) {
                errors.add(&condition.path, "a name that no header has", "globs by header name");
            } else if let Some(glob) = glob(&condition, errors) {
                matcher.headers.push((name.to_ascii_lowercase().into(), glob));
            }
        }
    }
    if let Some(node) = fields.get("route") {
        matcher.envoy_route = node.text("the name of an Envoy route", errors).map(Into::into);
    }
    matcher.model = fields.get("model").and_then(|node| glob(&node, errors));
    matcher
}

fn methods(node: &Node<'_>, errors: &mut Errors) -> Vec<Box<str>> {
    const EXPECTED: &str = "a list of HTTP methods such as [GET, POST]";
    let items = node.items(EXPECTED, errors);
    if items.is_empty() && node.value.is_array() {
        errors.add(&node.path, "an empty list", "methods, or the field left out for any method");
    }
    let mut methods = Vec::new();
    for item in items {
        match item.text("an HTTP method", errors) {
            Some(method) if is_method(method) => methods.push(method.to_ascii_uppercase().into()),
            Some(_) => item.reject("an HTTP method", errors),
            None => {}
        }
    }
    methods
}

fn glob(node: &Node<'_>, errors: &mut Errors) -> Option<Glob> {
    const EXPECTED: &str = "a text of 1 to 256 bytes, in which * stands for anything";
    let text = node.text(EXPECTED, errors)?;
    let fits = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    if !fits {
        node.reject(EXPECTED, errors);
    }
    fits.then(|| Glob::new(text.as_bytes()))
}

fn path(node: &Node<'_>, case_sensitive: bool, errors: &mut Errors) -> Option<PathPattern> {
    const EXPECTED: &str =
        "a path such as /v1/report or /v1/reports/* that starts with / or *, without query, and that can be read in one way only";
    let text = node.text(EXPECTED, errors)?;
    let starts = text.starts_with('/') || text.starts_with('*');
    if !starts || text.contains('?') || text.len() > 1024 || text.chars().any(|c| c.is_control() || c == ' ') {
        node.reject(EXPECTED, errors);
        return None;
    }
    // A pattern is written as paths are, so it is brought into the form that they are compared in.
    let rooted = if text.starts_with('*') {
        format!("/{text}")
    } else {
        text.to_owned()
    };
    let normal = normalise(rooted.as_bytes());
    if normal.is_ambiguous() {
        node.reject(EXPECTED, errors);
        return None;
    }
    let plain = if text.starts_with('*') {
        normal.path.get(1..)
    } else {
        Some(&*normal.path)
    };
    plain.map(|plain| PathPattern::new(plain, case_sensitive))
}
