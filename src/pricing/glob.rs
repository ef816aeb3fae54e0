//! Globs: `*` stands for any run of bytes, `/` included; everything else for itself.

/// A compiled glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// What is between the stars; one piece means that there is no star.
    pieces: Vec<Box<[u8]>>,
}

impl Glob {
    /// Compiles a pattern. Every string is one.
    pub fn new(pattern: &[u8]) -> Self {
        Self {
            pieces: pattern.split(|byte| *byte == b'*').map(Into::into).collect(),
        }
    }

    /// Whether the whole of `text` is of this form; bytes are compared as they are.
    pub fn matches(&self, text: &[u8]) -> bool {
        let Some((first, others)) = self.pieces.split_first() else {
            return text.is_empty();
        };
        let Some((last, middle)) = others.split_last() else {
            return text == &**first;
        };
        let Some(mut rest) = text.strip_prefix(&**first).and_then(|text| text.strip_suffix(&**last)) else {
            return false;
        };
        for piece in middle.iter().filter(|piece| !piece.is_empty()) {
            let at = rest.windows(piece.len()).position(|window| window == &**piece);
            match at.and_then(|at| rest.get(at.saturating_add(piece.len())..)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        true
    }

    /// The pattern that this was compiled from.
    pub fn pattern(&self) -> Vec<u8> {
        self.pieces.join(&b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(text.as_bytes())
    }

    #[test]
    fn a_star_is_any_run() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "/a/b"),
            ("a*", "a"),
            ("*a", "a"),
            ("a*a", "aa"),
            ("/x/*/y", "/x/1/2/y"),
            ("a*b*c", "a-b-b-c"),
            ("**", "x"),
            ("", ""),
            ("gpt-4o*", "gpt-4o-mini"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn the_rest_stands_for_itself() {
        for (pattern, text) in [
            ("", "a"),
            ("a", "A"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("/x/*/y", "/x/y"),
            ("a.c", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    /// The textbook definition, exponential and obviously right.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| oracle(rest, &text[n..])),
            Some((byte, rest)) => text.split_first().is_some_and(|(t, after)| t == byte && oracle(rest, after)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), oracle(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
