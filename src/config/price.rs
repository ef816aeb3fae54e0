//! `price`: free, or an amount per request in each currency.

use super::assets::is_currency;
use super::fields::{Errors, Node};
use crate::pricing::{Decimal, MoneyError};

/// What a route charges, by currency.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Charge<'v> {
    Free,
    PerRequest {
        /// Where in the configuration.
        path: String,
        by_currency: Vec<(&'v str, Decimal)>,
    },
}

/// Reads `price`.
pub(super) fn read<'v>(node: &Node<'v>, errors: &mut Errors) -> Option<Charge<'v>> {
    const EXPECTED: &str = "free, or {per_request: \"$0.01\"}";
    if node.value.as_str() == Some("free") {
        return Some(Charge::Free);
    }
    if !node.value.is_object() {
        node.reject(EXPECTED, errors);
        return None;
    }
    let fields = node.fields(&["per_request"], &["per_token", "per_minute", "dynamic"], errors)?;
    let amount = fields.get("per_request");
    if amount.is_none() && node.value.as_object().is_some_and(serde_json::Map::is_empty) {
        node.reject(EXPECTED, errors);
    }
    let amount = amount?;
    let path = amount.path.clone();
    if !amount.value.is_object() {
        let decimal = decimal(&amount, true, errors)?;
        let by_currency = vec![("usd", decimal)];
        return Some(Charge::PerRequest { path, by_currency });
    }
    let entries = amount.entries("amounts by currency", errors);
    if entries.is_empty() {
        amount.reject("amounts by currency, such as {usd: \"0.01\", eur: \"0.009\"}", errors);
        return None;
    }
    let mut by_currency = Vec::new();
    let mut all_good = true;
    for (currency, node) in entries {
        if !is_currency(currency) {
            errors.add(&node.path, "an unknown field", "a currency in lower case such as usd or eur");
            all_good = false;
        } else if let Some(decimal) = decimal(&node, currency == "usd", errors) {
            by_currency.push((currency, decimal));
        } else {
            all_good = false;
        }
    }
    all_good.then_some(Charge::PerRequest { path, by_currency })
}

fn decimal(node: &Node<'_>, dollars: bool, errors: &mut Errors) -> Option<Decimal> {
    if node.value.is_number() {
        node.reject("the amount in quotes, such as \"0.01\": numbers are not exact", errors);
        return None;
    }
    let expected = if dollars {
        MoneyError::NotDecimal.to_string()
    } else {
        "a decimal amount such as \"0.01\"".to_owned()
    };
    match Decimal::parse(node.text(&expected, errors)?, dollars) {
        Ok(decimal) => Some(decimal),
        Err(MoneyError::NotDecimal) => {
            node.reject(expected, errors);
            None
        }
        Err(error) => {
            node.reject(error.to_string(), errors);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mistakes(value: &serde_json::Value) -> Vec<String> {
        let mut errors = Errors::default();
        read(&Node::root(value), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prices_are_read() {
        for value in [
            json!("free"),
            json!({"per_request": "$0.01"}),
            json!({"per_request": "0.01"}),
            json!({"per_request": {"usd": "$1", "eur": "0.9"}}),
        ] {
            assert!(mistakes(&value).is_empty(), "{value}");
        }
    }

    #[test]
    fn what_is_no_price_is_explained() {
        for (value, words) in [
            (
                json!({"per_request": "0.01x"}),
                "found \"0.01x\", expected a decimal amount such as \"$0.01\"",
            ),
            (json!({"per_request": 0.01}), "in quotes"),
            (json!({"per_request": "0"}), "price: free"),
            (json!({"per_request": {"eur": "$1"}}), "per_request.eur"),
            (json!({"per_request": {"EUR": "1"}}), "lower case"),
            (json!({"per_request": {}}), "amounts by currency"),
            (json!({"per_token": {}}), "not supported in this version"),
            (json!({}), "free, or"),
            (json!("gratis"), "free, or"),
            (json!(1), "free, or"),
        ] {
            let mistakes = mistakes(&value);
            assert_eq!(mistakes.len(), 1, "{value}: {mistakes:?}");
            assert!(mistakes[0].contains(words), "{mistakes:?}");
        }
    }
}
