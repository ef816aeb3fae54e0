//! `--name value` arguments: every one is optional and has a default.

use std::collections::HashMap;

/// The arguments of this process.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    /// Reads them; ends the process with a message if one is not `--name value`.
    pub fn read() -> Self {
        let mut found = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match (word.strip_prefix("--"), words.next()) {
                (Some(name), Some(value)) => found.insert(name.to_owned(), value),
                _ => {
                    eprintln!("{word}: arguments are --name value");
                    std::process::exit(2);
                }
            };
        }
        Self(found)
    }

    /// The text of one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The number of one, or what it is without.
    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        let Some(text) = self.text(name) else { return otherwise };
        text.parse().unwrap_or_else(|_| {
            eprintln!("--{name} {text}: a whole number is expected");
            std::process::exit(2);
        })
    }
}
