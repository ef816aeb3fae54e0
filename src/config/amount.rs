//! Amounts of money and exact factors, as a configuration writes them.

use super::assets::is_currency;
use super::fields::{Errors, Node};
use crate::doubles;
use crate::pricing::{Asset, Decimal, MoneyError};

/// An amount in each currency that it is given in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Amounts<'v> {
    /// Where in the configuration.
    pub(super) path: String,
    by_currency: Vec<(&'v str, Decimal)>,
}

/// Whether an amount may be nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Least {
    /// It is a price of its own.
    AboveZero,
    /// It is a part of one.
    Zero,
}

impl<'v> Amounts<'v> {
    /// Reads `"$0.01"`, which is in dollars, or `{usd: "0.01", eur: "0.009"}`.
    pub(super) fn read(node: &Node<'v>, least: Least, errors: &mut Errors) -> Option<Self> {
        let path = node.path.clone();
        if !node.value.is_object() {
            let by_currency = vec![("usd", decimal(node, true, least, errors)?)];
            return Some(Self { path, by_currency });
        }
        let entries = node.entries("amounts by currency", errors);
        if entries.is_empty() {
            node.reject("amounts by currency, such as {usd: \"0.01\", eur: \"0.009\"}", errors);
            return None;
        }
        let mut by_currency = Vec::new();
        let mut all_good = true;
        for (currency, node) in entries {
            if !is_currency(currency) {
                errors.add(&node.path, "an unknown field", "a currency in lower case such as usd or eur");
                all_good = false;
            } else if let Some(decimal) = decimal(&node, currency == "usd", least, errors) {
                by_currency.push((currency, decimal));
            } else {
                all_good = false;
            }
        }
        all_good.then_some(Self { path, by_currency })
    }

    /// The amount in the currency of an asset, which the offer at `wanted_by` takes.
    pub(super) fn of(&self, asset: &Asset, wanted_by: &str, errors: &mut Errors) -> Option<Decimal> {
        let found = self.by_currency.iter().find(|(currency, _)| **currency == *asset.currency);
        if found.is_none() {
            let (currency, symbol) = (&asset.currency, &asset.symbol);
            errors.add(
                &self.path,
                format!("no price in {currency}"),
                format!("one, such as {{{currency}: \"0.01\"}}, because {wanted_by} takes {symbol}"),
            );
        }
        found.map(|(_, decimal)| *decimal)
    }

    /// The amounts in millionths, rounded up; what is beyond 64 bits is as much as they hold.
    pub(super) fn millionths(&self) -> Vec<(Box<str>, u64)> {
        let millionths = |decimal: Decimal| {
            decimal
                .to_atomic(6)
                .map_or(u64::MAX, |units| u64::try_from(units.0).unwrap_or(u64::MAX))
        };
        let all = self.by_currency.iter();
        all.map(|(currency, decimal)| (Box::from(*currency), millionths(*decimal)))
            .collect()
    }

    /// Whether it is nothing in every currency.
    pub(super) fn is_zero(&self) -> bool {
        self.by_currency.iter().all(|(_, decimal)| decimal.is_zero())
    }
}

fn decimal(node: &Node<'_>, dollars: bool, least: Least, errors: &mut Errors) -> Option<Decimal> {
    if node.value.is_number() {
        node.reject("the amount in quotes, such as \"0.01\": numbers are not exact", errors);
        return None;
    }
    let expected = if dollars {
        MoneyError::NotDecimal.to_string()
    } else {
        "a decimal amount such as \"0.01\"".to_owned()
    };
    let text = node.text(&expected, errors)?;
    let read = match least {
        Least::AboveZero => Decimal::parse(text, dollars),
        Least::Zero => Decimal::parse_from_zero(text, dollars),
    };
    match read {
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

/// An exact decimal above zero that is no money: `"1.5"`, or `1.5`, which is taken as it is written.
pub(super) fn factor(node: &Node<'_>, expected: &str, errors: &mut Errors) -> Option<Decimal> {
    // A Struct has doubles; their shortest text is what a person wrote.
    let written = node.value.as_u64().map(|whole| whole.to_string());
    let written = written.or_else(|| node.value.as_f64().and_then(doubles::written));
    let text = written.as_deref().or_else(|| node.value.as_str());
    let factor = text
        .and_then(|text| Decimal::parse(text, false).ok())
        .filter(|factor| factor.scale() <= 9);
    if factor.is_none() {
        node.reject(expected, errors);
    }
    factor
}
