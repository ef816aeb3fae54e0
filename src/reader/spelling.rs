//! Names of keys, as backends read them.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
