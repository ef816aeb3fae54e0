//! The documents, held against the code: every YAML example is accepted, every setting, metric, attribute and refusal is there.
//!
//! What a block is says the comment on the line before it:
//!
//! - `<!-- filter -->`: a whole configuration; `<!-- filter: everything -->` the one that has every setting;
//! - `<!-- fragment -->`: top-level settings, put in place of those of [`BASE`];
//! - `<!-- envoy -->`: a part of Envoy's configuration; configurations of the filter in it are checked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)] // tests

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use x402_envoy::config::{ConfigError, parse};
use x402_envoy::x402::Refusal;

const CONFIGURATION: &str = include_str!("../docs/CONFIGURATION.md");
const OPERATIONS: &str = include_str!("../docs/OPERATIONS.md");
const FAILURES: &str = include_str!("../docs/FAILURES.md");
const DOCUMENTS: [(&str, &str); 7] = [
    ("README.md", include_str!("../README.md")),
    ("docs/CONFIGURATION.md", CONFIGURATION),
    ("docs/OPERATIONS.md", OPERATIONS),
    ("docs/FAILURES.md", FAILURES),
    ("docs/PRICING.md", include_str!("../docs/PRICING.md")),
    ("docs/CREDITS.md", include_str!("../docs/CREDITS.md")),
    ("docs/LEDGER.md", include_str!("../docs/LEDGER.md")),
];

/// What fragments are merged into.
const BASE: &str = r#"
pay_to: {eip155: "0xYourAccount", solana: YourSolanaAccount}
accept: [{scheme: exact, network: "eip155:8453", asset: USDC}]
facilitators: [{cluster: facilitator, url: "https://x402.org/facilitator"}]
unmatched: deny
routes: [{name: base, match: {path: /base}, price: {per_request: "$0.01"}}]
"#;

/// What stands for an address in the documents, and an address.
const STAND_INS: [(&str, &str); 4] = [
    ("0xYourAccount", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
    ("0xYourToken", "0x90F79bf6EB2c4f870365E785982E1f101E93b906"),
    ("0xTheirSpender", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    ("YourSolanaAccount", "2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4"),
];

/// A fenced YAML block: where it is, what the comment before it says, and its text without the fence's indentation.
struct Block {
    place: String,
    mark: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (document, text) in DOCUMENTS {
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let indentation = lines[at].len() - lines[at].trim_start().len();
            if lines[at].trim() == "```yaml" {
                let end = at + lines[at..].iter().position(|line| line.trim() == "```").expect("a fence that ends");
                let inner = lines[at + 1..end].iter().map(|line| line.get(indentation..).unwrap_or_default());
                let before = if at == 0 { "" } else { lines[at - 1].trim() };
                blocks.push(Block {
                    place: format!("{document}:{}", at + 1),
                    mark: before.trim_start_matches("<!--").trim_end_matches("-->").trim().to_owned(),
                    text: inner.fold(String::new(), |text, line| text + line + "\n"),
                });
                at = end;
            }
            at += 1;
        }
    }
    blocks
}

fn yaml(text: &str) -> Value {
    let text = STAND_INS
        .iter()
        .fold(text.to_owned(), |text, (name, address)| text.replace(name, address));
    serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn errors_of(config: &Value) -> Vec<ConfigError> {
    parse(&serde_json::to_vec(config).unwrap()).err().unwrap_or_default()
}

fn assert_accepted(place: &str, config: &Value) {
    let errors = errors_of(config);
    assert!(
        errors.is_empty(),
        "{place}: {}",
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );
}

/// Configurations of the filter within one of Envoy, in either of the forms that they come in.
fn plugins(value: &Value) -> Vec<Value> {
    let kind = value.get("@type").and_then(Value::as_str).unwrap_or_default();
    match (kind.rsplit('.').next(), value.get("value")) {
        (Some("Struct"), Some(inner)) => return vec![inner.clone()],
        (Some("StringValue"), Some(inner)) => return vec![serde_json::from_str(inner.as_str().unwrap()).unwrap()],
        _ => {}
    }
    match value {
        Value::Object(fields) => fields.values().flat_map(plugins).collect(),
        Value::Array(items) => items.iter().flat_map(plugins).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_example_is_accepted() {
    let mut seen = BTreeSet::new();
    for block in blocks() {
        let value = yaml(&block.text);
        match block.mark.split(':').next().unwrap_or_default() {
            "filter" => assert_accepted(&block.place, &value),
            "fragment" => {
                let mut config = yaml(BASE);
                let fields = value.as_object().expect("a fragment is a map of top-level settings").clone();
                config.as_object_mut().unwrap().extend(fields);
                assert_accepted(&block.place, &config);
            }
            "envoy" => plugins(&value).iter().for_each(|config| assert_accepted(&block.place, config)),
            // ledger/tests/docs.rs knows those.
            "ledger" => {}
            other => panic!(
                "{}: what is it? `{other}` is neither filter, fragment, envoy nor ledger",
                block.place
            ),
        }
        seen.insert(block.mark);
    }
    for mark in ["filter", "filter: everything", "fragment", "envoy"] {
        assert!(seen.contains(mark), "no example is marked {mark}");
    }
}

#[test]
fn stand_ins_are_refused_as_they_are() {
    for (name, _) in STAND_INS {
        let account = if name.starts_with("0x") { "eip155" } else { "solana" };
        let config = json!({"pay_to": {account: name}, "unmatched": "deny", "routes": [{"name": "x", "price": "free"}]});
        assert_eq!(errors_of(&config).len(), 1, "{name}");
    }
}

/// Where an object is: keys and indices from the root.
type Path = Vec<Step>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

fn objects(value: &Value, at: &Path, found: &mut Vec<Path>) {
    let step = |step| at.iter().cloned().chain([step]).collect::<Path>();
    match value {
        Value::Object(fields) => {
            found.push(at.clone());
            fields
                .iter()
                .for_each(|(key, inner)| objects(inner, &step(Step::Key(key.clone())), found));
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, inner)| objects(inner, &step(Step::Index(index)), found));
        }
        _ => {}
    }
}

fn object<'v>(value: &'v mut Value, at: &Path) -> &'v mut Map<String, Value> {
    let inner = at.iter().fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key).unwrap(),
        Step::Index(index) => value.get_mut(index).unwrap(),
    });
    inner.as_object_mut().unwrap()
}

/// As the documents write it: `routes[].match.path`. Offers of a route are described with the common ones.
fn shown(at: &Path) -> String {
    let whole = at.iter().fold(String::new(), |shown, step| match step {
        Step::Key(key) if shown.is_empty() => key.clone(),
        Step::Key(key) => format!("{shown}.{key}"),
        Step::Index(_) => format!("{shown}[]"),
    });
    whole
        .replace("routes[].price.accept[]", "accept[]")
        .replace("routes[].accept[]", "accept[]")
        .replace(".models.gpt-4o*", ".models.*")
}

/// Every setting that the schema knows: an unknown field in each object of `config` makes it list those it knows.
fn settings(config: &Value) -> BTreeSet<String> {
    let mut found = Vec::new();
    objects(config, &Vec::new(), &mut found);
    let mut settings = BTreeSet::new();
    for at in found {
        let mut wrong = config.clone();
        object(&mut wrong, &at).insert("q".repeat(40), json!(1));
        for error in errors_of(&wrong) {
            if let (true, Some(known)) = (error.found == "an unknown field", error.expected.strip_prefix("one of ")) {
                let names = known
                    .split(", ")
                    .map(|name| at.iter().cloned().chain([Step::Key(name.to_owned())]).collect());
                settings.extend(names.map(|path| shown(&path)));
            }
        }
    }
    settings
}

#[test]
fn every_setting_is_described_and_no_other() {
    let everything = blocks().into_iter().find(|block| block.mark == "filter: everything").unwrap();
    let config = yaml(&everything.text);
    let settings = settings(&config);
    assert!(settings.len() > 40, "the schema was not found: {settings:?}");
    let mut present = Vec::new();
    objects(&config, &Vec::new(), &mut present);
    let present: BTreeSet<String> = present
        .iter()
        .flat_map(|at| {
            let mut config = config.clone();
            let keys: Vec<String> = object(&mut config, at).keys().cloned().collect();
            keys.into_iter()
                .map(|key| shown(&at.iter().cloned().chain([Step::Key(key)]).collect()))
        })
        .collect();
    for setting in &settings {
        assert!(present.contains(setting), "the example of everything lacks {setting}");
        assert!(
            CONFIGURATION.contains(&format!("\n| `{setting}` |")),
            "docs/CONFIGURATION.md has no row for {setting}"
        );
    }
    // Rows of the tables of settings: the first column is one path and nothing else.
    let rows = CONFIGURATION.split("## How a request is matched").next().unwrap().lines();
    for row in rows.filter_map(|line| line.strip_prefix("| `")) {
        let name = row.split('`').next().unwrap();
        assert!(
            settings.contains(name),
            "docs/CONFIGURATION.md describes {name}, which does not exist"
        );
    }
}

#[test]
fn the_table_of_tokens_is_the_built_in_one() {
    let table = CONFIGURATION.split("#### Built-in tokens").nth(1).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let mut rows: Vec<Vec<&str>> = rows
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let code = include_str!("../src/config/built_in.rs").split("const BUILT_IN").nth(1).unwrap();
    let code = code.split("];").next().unwrap();
    let mut texts = code.split('"').skip(1).step_by(2);
    let mut built_in = Vec::new();
    while let Some(network) = texts.next() {
        built_in.push([
            network,
            texts.next().unwrap(),
            texts.next().unwrap(),
            texts.next().unwrap(),
            texts.next().unwrap(),
        ]);
    }
    assert!(built_in.len() > 10, "the table in the code was not found");
    rows.iter_mut().for_each(|row| {
        row.remove(0);
    });
    assert_eq!(rows, built_in);
}

#[test]
fn the_table_of_refusals_is_the_code_s() {
    let variants = include_str!("../src/x402/refusal.rs").split("pub enum Refusal {").nth(1).unwrap();
    let variants = variants.split("\n}").next().unwrap().lines().map(str::trim);
    let variants: Vec<&str> = variants
        .filter(|line| !line.starts_with("///"))
        .filter_map(|line| line.strip_suffix(','))
        .collect();
    let all: Vec<String> = Refusal::ALL.iter().map(|refusal| format!("{refusal:?}")).collect();
    assert_eq!(all, variants, "Refusal::ALL lacks something");

    let table = OPERATIONS.split("<!-- refusals -->").nth(1).expect("the table of refusals");
    let rows = table.trim_start().lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> { row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    let mut expected = String::new();
    let mut matching = rows.len() == Refusal::ALL.len();
    for (index, refusal) in Refusal::ALL.iter().enumerate() {
        let row = refusal.row();
        let said = [
            row.status.to_string(),
            format!("`{}`", row.reason),
            format!("`{}`", row.code),
            row.message.to_owned(),
        ];
        let _ = writeln!(expected, "| {} | … |", said.join(" | "));
        matching &= rows
            .get(index)
            .is_some_and(|cells| cells.len() == 5 && cells[..4] == said && !cells[4].is_empty());
    }
    assert!(
        matching,
        "docs/OPERATIONS.md must have these rows, each with what to do:\n{expected}"
    );
}

/// The names in a source that follow `before` and consist of the given characters.
fn names<'s>(source: &'s str, before: &str) -> BTreeSet<&'s str> {
    let part_of = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let parts = source.split(before).skip(1);
    parts
        .map(|rest| rest.split(|c| !part_of(c)).next().unwrap())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_metric_is_described_and_no_other() {
    let metrics = names(include_str!("../src/host/metrics.rs"), "\"x402_");
    assert!(metrics.len() > 8, "{metrics:?}");
    for metric in &metrics {
        assert!(
            OPERATIONS.contains(&format!("\n| `x402_{metric}` |")),
            "docs/OPERATIONS.md has no row for x402_{metric}"
        );
    }
    let section = OPERATIONS.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let described = section.lines().filter_map(|line| line.strip_prefix("| `x402_")?.split('`').next());
    for name in described {
        assert!(
            metrics.contains(name),
            "docs/OPERATIONS.md describes x402_{name}, which does not exist"
        );
    }
}

/// What stands in a metric's dotted name is a label only if a tag says so: on the page, and in the files that are shipped.
#[test]
fn every_label_has_its_tag() {
    let source = include_str!("../src/host/metrics.rs");
    let ends = |part: &'static str| part.rsplit(|c: char| !c.is_ascii_lowercase()).next().unwrap();
    // `x402_refusals.reason.{…}`, and what is handed to `of_facilitator`.
    let mut labels: BTreeSet<&str> = source.split(".{").map(ends).filter(|label| !label.is_empty()).collect();
    labels.extend(names(source, "cluster, \""));
    assert!(
        labels.contains("reason") && labels.contains("state") && labels.len() > 6,
        "{labels:?}"
    );
    for (file, text) in [
        ("docs/OPERATIONS.md", OPERATIONS),
        ("envoy/envoy.yaml", include_str!("../envoy/envoy.yaml")),
        ("envoy/demo.yaml", include_str!("../envoy/demo.yaml")),
        ("envoy/credits.yaml", include_str!("../envoy/credits.yaml")),
    ] {
        assert_eq!(names(text, "tag_name: "), labels, "{file}");
        for label in &labels {
            let tag = format!("{{tag_name: {label}, regex: '^wasmcustom\\.x402_.*?(\\.{label}\\.([^.]+))'}}");
            assert!(text.contains(&tag), "{file} lacks {tag}");
        }
    }
}

/// Each word in code style on the page of failures that looks like a metric, a reason or an outcome is one.
#[test]
fn the_page_of_failures_speaks_of_what_exists() {
    let reasons: Vec<&str> = Refusal::ALL.iter().map(|refusal| refusal.row().reason).collect();
    let metrics = names(include_str!("../src/host/metrics.rs"), "\"x402_");
    let known = |word: &str| {
        let metric = word.strip_prefix("x402_").map(|name| name.split('{').next().unwrap());
        metric.is_some_and(|metric| metrics.contains(metric) || OPERATIONS.contains(&format!("`x402_{metric}`")))
            || reasons.contains(&word)
            || OPERATIONS.contains(&format!("`{word}`"))
            || CONFIGURATION.contains(&format!("{word}`"))
    };
    let rows = FAILURES.lines().filter(|line| line.starts_with("| "));
    let words: Vec<&str> = rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect();
    assert!(words.len() > 80, "{words:?}");
    for word in words.into_iter().filter(|word| word.contains('_')) {
        assert!(known(word), "docs/FAILURES.md speaks of {word}");
    }
}

#[test]
fn every_attribute_and_outcome_is_described() {
    let sources = [
        include_str!("../src/gate/answer.rs"),
        include_str!("../src/gate/credit/reserving.rs"),
        include_str!("../src/gate/credit/spending.rs"),
        include_str!("../src/gate/delivery.rs"),
        include_str!("../src/gate/request.rs"),
        include_str!("../src/gate/response.rs"),
        include_str!("../src/gate/sale.rs"),
        include_str!("../src/gate/settlement.rs"),
        include_str!("../src/gate/verifying.rs"),
    ]
    .concat();
    let attributes = names(&sources, "attribute(\"");
    assert!(attributes.len() > 5, "{attributes:?}");
    for attribute in &attributes {
        assert!(
            OPERATIONS.contains(&format!("\n| `x402_{attribute}` |")),
            "no row for x402_{attribute}"
        );
        let format = format!("%FILTER_STATE(wasm.x402_{attribute}:PLAIN)%");
        assert!(OPERATIONS.contains(&format), "the log format lacks x402_{attribute}");
    }
    let section = OPERATIONS.split("## Access log").nth(1).unwrap().split("\n## ").next().unwrap();
    for outcome in names(&sources, "attribute(\"outcome\", \"").into_iter().chain(["challenged"]) {
        assert!(section.contains(&format!("`{outcome}`")), "the outcome {outcome} is not described");
    }
}

#[test]
fn links_lead_somewhere() {
    let anchor = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (document, text) in DOCUMENTS {
        let folder = root.join(document);
        let folder = folder.parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("http") {
                continue;
            }
            let path = folder.join(file);
            let linked = match file {
                "" => text.to_owned(),
                _ if heading.is_empty() => {
                    assert!(path.exists(), "{document}: {target}");
                    continue;
                }
                _ => std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{document}: {target}")),
            };
            let known = heading.is_empty() || linked.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(known, "{document}: {target}");
        }
    }
}
