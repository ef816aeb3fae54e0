//! `price`: free, an amount per request, or what an amount is computed from.

use super::amount::{Amounts, Least, factor};
use super::fields::{Errors, Fields, Node};
use crate::pricing::expression::Expression;
use crate::pricing::{Decimal, Glob, InputEstimate, MAX_MULTIPLIERS};
use crate::sorting;

/// What a route charges, in any currency.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Charge<'v> {
    Free,
    PerRequest(Amounts<'v>),
    PerToken(Box<Tokens<'v>>),
    PerMinute {
        amount: Amounts<'v>,
        minimum: u64,
        maximum: u64,
    },
    Dynamic {
        base: Amounts<'v>,
        multipliers: Vec<(Expression, Decimal)>,
    },
}

/// `per_token`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tokens<'v> {
    pub(super) models: Vec<(Glob, Table<'v>)>,
    pub(super) other: Option<Table<'v>>,
    pub(super) max_output: u64,
    pub(super) max_input: Option<u64>,
    pub(super) estimate: InputEstimate,
}

/// What a model costs per token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table<'v> {
    /// `input`, `cached_input`, `output`, `reasoning`.
    pub(super) amounts: [Amounts<'v>; 4],
}

/// `price`, and the offers that it names for itself.
#[derive(Debug)]
pub(super) struct Spec<'v> {
    pub(super) charge: Charge<'v>,
    pub(super) accept: Option<Node<'v>>,
}

const EXPECTED: &str = "free, or one of {per_request: \"$0.01\"}, {per_token: …}, {per_minute: …} and {dynamic: …}";

/// Most tokens that a setting may name.
const MOST_TOKENS: u64 = 1_000_000_000;

/// Reads `price`.
pub(super) fn read<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Spec<'v>> {
    const KINDS: [&str; 4] = ["per_request", "per_token", "per_minute", "dynamic"];
    if node.value.as_str() == Some("free") {
        let charge = Charge::Free;
        return Some(Spec { charge, accept: None });
    }
    if !node.value.is_object() {
        node.reject(EXPECTED, errors);
        return None;
    }
    let fields = node.fields(&["per_request", "per_token", "per_minute", "dynamic", "accept"], &[], errors)?;
    let mut kinds = KINDS.iter().filter_map(|kind| Some((*kind, fields.get(kind)?)));
    let kind = kinds.next();
    if let Some((_, other)) = kinds.next() {
        errors.add(
            &other.path,
            "a second kind of price",
            "one of per_request, per_token, per_minute and dynamic",
        );
    } else if kind.is_none() && node.value.as_object().is_some_and(|map| map.keys().all(|key| key == "accept")) {
        node.reject(EXPECTED, errors);
    }
    let charge = match kind? {
        ("per_token", node) => tokens(&node, errors).map(|tokens| Charge::PerToken(tokens.into())),
        ("per_minute", node) => minutes(&node, errors),
        ("dynamic", node) => dynamic(&node, errors),
        (_, node) => Amounts::read(&node, Least::AboveZero, errors).map(Charge::PerRequest),
    };
    let accept = fields.get("accept");
    charge.map(|charge| Spec { charge, accept })
}

fn tokens<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Tokens<'v>> {
    let known = [
        "input",
        "output",
        "cached_input",
        "reasoning",
        "max_output",
        "input_estimate",
        "max_input",
        "models",
        "default",
    ];
    let fields = node.fields(&known, &[], errors)?;
    let max_output = fields
        .require("max_output", "the most tokens that one answer may have", errors)
        .and_then(|node| node.whole(0, MOST_TOKENS, errors));
    let max_input = fields.get("max_input").map(|node| node.whole(1, MOST_TOKENS, errors));
    let estimate = match fields.get("input_estimate") {
        Some(node) => estimate(&node, errors),
        None => Some(InputEstimate::default()),
    };
    let (models, other) = match fields.get("models") {
        Some(models) => {
            for name in ["input", "output", "cached_input", "reasoning"] {
                if let Some(node) = fields.get(name) {
                    errors.add(&node.path, "an amount beside models", "it in default, or in one of models");
                }
            }
            let other = fields.get("default").map(|node| own_table(&node, errors));
            (self::models(&models, errors), other.map_or(Some(None), |table| table.map(Some)))
        }
        None => {
            if let Some(node) = fields.get("default") {
                errors.add(&node.path, "a default without models", "input and output beside max_output");
            }
            (Some(Vec::new()), table(&fields, node, errors).map(Some))
        }
    };
    Some(Tokens {
        models: models?,
        other: other?,
        max_output: max_output?,
        max_input: max_input.map_or(Some(None), |most| most.map(Some))?,
        estimate: estimate?,
    })
}

/// Tables by model, the most specific glob first: a name without `*`, else the one with more before its first `*`, else the longer.
fn models<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Vec<(Glob, Table<'v>)>> {
    let entries = node.entries(
        "tables by model, such as {\"gpt-4o*\": {input: \"$0.0000025\", output: \"$0.00001\"}}",
        errors,
    );
    if entries.is_empty() {
        node.reject("at least one model", errors);
    }
    let mut models = Vec::new();
    let mut all_good = true;
    for (name, node) in entries {
        let fits = (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
        if !fits {
            errors.add(
                &node.path,
                "a name that no model has",
                "1 to 256 bytes, in which * stands for anything",
            );
        }
        match own_table(&node, errors).filter(|_| fits) {
            Some(table) => models.push((name, table)),
            None => all_good = false,
        }
    }
    let before_star = |name: &str| name.split('*').next().map_or(0, str::len);
    let key = |name: &'v str| {
        let (before, length) = (core::cmp::Reverse(before_star(name)), core::cmp::Reverse(name.len()));
        (name.contains('*'), before, length, name)
    };
    sorting::sort(&mut models, |(one, _), (other, _)| key(one) < key(other));
    let compiled = models.into_iter().map(|(name, table)| (Glob::new(name.as_bytes()), table));
    all_good.then(|| compiled.collect())
}

fn own_table<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Table<'v>> {
    let fields = node.fields(&["input", "output", "cached_input", "reasoning"], &[], errors)?;
    table(&fields, node, errors)
}

fn table<'v>(fields: &Fields<'v>, node: &Node<'v>, errors: &mut Errors) -> Option<Table<'v>> {
    const PER_TOKEN: &str = "the price of one token, such as \"$0.0000025\"";
    let mut required = |name| {
        let node = fields.require(name, PER_TOKEN, errors);
        node.and_then(|node| Amounts::read(&node, Least::Zero, errors))
    };
    let (input, output) = (required("input"), required("output"));
    let mut optional = |name, like: &Option<Amounts<'v>>| match fields.get(name) {
        Some(node) => Amounts::read(&node, Least::Zero, errors),
        None => like.clone(),
    };
    let (cached, reasoning) = (optional("cached_input", &input), optional("reasoning", &output));
    let amounts = [input?, cached?, output?, reasoning?];
    if amounts.iter().all(Amounts::is_zero) {
        errors.add(
            &node.path,
            "no amount above zero",
            "one in input or output (for no charge: price: free)",
        );
        return None;
    }
    Some(Table { amounts })
}

fn estimate(node: &Node<'_>, errors: &mut Errors) -> Option<InputEstimate> {
    const EXPECTED: &str = "a number above zero such as 1 or \"3.5\"";
    let default = InputEstimate::default();
    let fields = node.fields(&["bytes_per_token", "overhead"], &[], errors)?;
    let ratio = match fields.get("bytes_per_token") {
        Some(node) => factor(&node, EXPECTED, errors).and_then(|bytes| Some((10u128.checked_pow(bytes.scale())?, bytes.mantissa()))),
        None => Some((default.tokens, default.bytes)),
    };
    let overhead = match fields.get("overhead") {
        Some(node) => node.whole(0, MOST_TOKENS, errors),
        None => Some(default.overhead),
    };
    let ((tokens, bytes), overhead) = (ratio?, overhead?);
    Some(InputEstimate { tokens, bytes, overhead })
}

fn minutes<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Charge<'v>> {
    /// A month.
    const MOST: u64 = 44_640;
    let fields = node.fields(&["amount", "minimum", "maximum"], &[], errors)?;
    let amount = fields
        .require("amount", "the price of one minute, such as \"$0.10\"", errors)
        .and_then(|node| Amounts::read(&node, Least::AboveZero, errors));
    let maximum = fields
        .require("maximum", "the most minutes that an answer may take", errors)
        .and_then(|node| node.whole(1, MOST, errors));
    let minimum = match fields.get("minimum") {
        Some(node) => node.whole(0, maximum.unwrap_or(MOST), errors),
        None => Some(1),
    };
    Some(Charge::PerMinute {
        amount: amount?,
        minimum: minimum?,
        maximum: maximum?,
    })
}

fn dynamic<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Charge<'v>> {
    const CONDITION: &str = "a condition such as \"query_length > 1000\"";
    let fields = node.fields(&["base", "multipliers"], &[], errors)?;
    let base = fields
        .require("base", "the price before multipliers, such as \"$0.01\"", errors)
        .and_then(|node| Amounts::read(&node, Least::AboveZero, errors));
    let node = fields.require("multipliers", "a list of {when, times}", errors)?;
    let items = node.items("a list of {when, times}", errors);
    let mut all_good = node.value.is_array() && items.len() <= MAX_MULTIPLIERS;
    if items.len() > MAX_MULTIPLIERS {
        errors.add(
            &node.path,
            format!("{} multipliers", items.len()),
            format!("at most {MAX_MULTIPLIERS}"),
        );
    }
    let mut multipliers = Vec::new();
    for item in items {
        let Some(fields) = item.fields(&["when", "times"], &[], errors) else {
            all_good = false;
            continue;
        };
        let when = fields.require("when", CONDITION, errors).and_then(|node| {
            let parsed = Expression::parse(node.text(CONDITION, errors)?);
            parsed.map_err(|error| errors.add(&node.path, error.to_string(), CONDITION)).ok()
        });
        let times = fields
            .require("times", "a factor such as 2 or \"1.5\"", errors)
            .and_then(|node| factor(&node, "a factor above zero such as 2 or \"1.5\"", errors));
        match (when, times) {
            (Some(when), Some(times)) => multipliers.push((when, times)),
            _ => all_good = false,
        }
    }
    let base = base.filter(|_| all_good)?;
    Some(Charge::Dynamic { base, multipliers })
}
