//! The pages about the ledger are held to the code: examples are read, and lists are those of the sources.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use x402_ledger::api::openapi;
use x402_ledger::settings::{Settings, database};

const LEDGER: &str = include_str!("../../docs/LEDGER.md");
const CREDITS: &str = include_str!("../../docs/CREDITS.md");
const OPENAPI: &str = include_str!("../../docs/ledger.openapi.json");
const SOURCES: [&str; 2] = [include_str!("../src/settings.rs"), include_str!("../src/cli.rs")];
const STAND_INS: [(&str, &str); 2] = [
    ("0xYourAccount", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
    ("YourSolanaAccount", "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"),
];

/// The YAML after each `<!-- ledger… -->`, read.
fn examples(page: &str) -> Vec<Map<String, Value>> {
    let marked = page.split("<!-- ledger").skip(1);
    let text = |part: &str| {
        let yaml = part.split("```yaml\n").nth(1).unwrap().split("\n```").next().unwrap().to_owned();
        STAND_INS.iter().fold(yaml, |text, (name, address)| text.replace(name, address))
    };
    marked.map(|part| serde_norway::from_str(&text(part)).unwrap()).collect()
}

#[test]
fn every_example_is_accepted() {
    let examples = [examples(LEDGER), examples(CREDITS)].concat();
    assert_eq!(examples.len(), 2);
    for example in examples {
        Settings::new(&example).unwrap_or_else(|error| panic!("{error}"));
        database(&example, None).unwrap();
    }
}

#[test]
fn every_setting_is_described_and_no_other() {
    let example = examples(LEDGER).remove(0);
    let own = ["database", "credits", "intents"];
    let mut settings: BTreeSet<String> = example.keys().filter(|name| !own.contains(&name.as_str())).cloned().collect();
    for section in own {
        let fields = example.get(section).unwrap().as_object().unwrap();
        settings.extend(fields.keys().map(|name| format!("{section}.{name}")));
    }
    let table = LEDGER.split("| Setting |").nth(1).unwrap().split("\n\n").next().unwrap();
    let first = |line: &str| line.strip_prefix("| ")?.split(" |").next().map(str::to_owned);
    let rows: Vec<String> = table.lines().filter_map(first).filter(|row| row.starts_with('`')).collect();
    let described: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| row.split(", "))
        .map(|name| name.replace('`', ""))
        .collect();
    assert_eq!(described, settings);
}

/// All of `X402_LEDGER_…` that a text names.
fn variables(text: &str) -> BTreeSet<&str> {
    let begins = text.match_indices("X402_LEDGER_").map(|(at, _)| text.get(at..).unwrap());
    begins
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_' && !c.is_ascii_digit());
            rest.get(..end.unwrap_or(rest.len())).unwrap()
        })
        .collect()
}

#[test]
fn every_variable_is_described_and_no_other() {
    let mut used: BTreeSet<&str> = SOURCES.iter().flat_map(|source| variables(source)).collect();
    used.extend(variables(include_str!("../src/main.rs")));
    let table = LEDGER.split("| Variable |").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(variables(table), used);
    for page in [LEDGER, CREDITS] {
        assert!(variables(page).is_subset(&used), "{:?}", variables(page));
    }
}

#[test]
fn every_metric_is_described_and_no_other() {
    let source = include_str!("../src/metrics.rs");
    let registered: BTreeSet<String> = source
        .split("registry.register(")
        .skip(1)
        .map(|rest| rest.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert!(registered.len() > 5, "{registered:?}");
    let rows = LEDGER
        .lines()
        .filter_map(|line| line.strip_prefix("| `x402_ledger_")?.split('`').next());
    let described: BTreeSet<String> = rows.map(|name| name.trim_end_matches("_total").to_owned()).collect();
    assert_eq!(described, registered);
}

#[test]
fn the_description_of_the_api_is_the_codes() {
    let made = openapi().to_pretty_json().unwrap();
    assert!(
        OPENAPI.trim() == made.trim(),
        "docs/ledger.openapi.json is not what the code says: `x402-ledger openapi > docs/ledger.openapi.json` writes it anew"
    );
    for path in ["/internal/v1/reserve", "/v1/billing/x402/fund", "/admin/v1/tenants"] {
        assert!(made.contains(&format!("\"{path}\"")), "{path}");
    }
}
