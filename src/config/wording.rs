//! How errors put things: a value in short, and what a misspelled name was probably meant to be.

use serde_json::Value;

/// A value as an error shows it: scalars as JSON, shortened.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        scalar => {
            let text = scalar.to_string();
            let short: String = text.chars().take(LONGEST).collect();
            if short.len() < text.len() { format!("{short}…") } else { short }
        }
    }
}

/// The known name that is nearest to an unknown one, or all of them.
pub(super) fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
    match nearest.filter(|candidate| distance(name, candidate) <= 2) {
        Some(candidate) => format!("\"{candidate}\", if that is what was meant"),
        None => format!("one of {}", known.join(", ")),
    }
}

/// Levenshtein distance of the first 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let columns: Vec<u8> = b.bytes().take(64).collect();
    let mut row: Vec<usize> = (0..=columns.len()).collect();
    for (line, byte) in a.bytes().take(64).enumerate() {
        let mut diagonal = line;
        let mut left = line.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(&columns) {
            let substituted = diagonal.saturating_add(usize::from(byte != *other));
            diagonal = *cell;
            left = substituted.min(left.saturating_add(1)).min(diagonal.saturating_add(1));
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_short() {
        assert_eq!(shown(&Value::from("a\n")), "\"a\\n\"");
        assert_eq!(shown(&serde_json::json!({"a": 1})), "an object");
        assert!(shown(&Value::from("é".repeat(200))).chars().count() <= 81);
    }

    #[test]
    fn distances_are_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("price", "prise", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
