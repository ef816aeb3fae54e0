//! Prices joined with offers: what each costs in the smallest unit of each offer's token.

use super::amount::Amounts;
use super::fields::Errors;
use super::price::{Charge, Table};
use crate::pricing::{Decimal, Dynamic, MoneyError, Multiplier, Offer, PerMinute, PerToken, Price, Rates, TokenTable};

/// An offer, and where in the configuration it is.
pub(super) type Placed = (Offer, String);

/// Computes what a price is in each offer, and fills in their amounts.
pub(super) fn compile(charge: &Charge<'_>, offers: &mut [Placed], errors: &mut Errors) -> Option<Price> {
    match charge {
        Charge::Free => Some(Price::Free),
        Charge::PerRequest(amounts) => {
            let mut all_good = true;
            for (offer, path) in offers {
                let amount = amounts
                    .of(&offer.asset, path, errors)
                    .map(|decimal| decimal.to_atomic(offer.asset.decimals));
                match amount {
                    Some(Ok(amount)) => offer.amount = amount,
                    Some(Err(error)) => too_much(amounts, offer, error, errors),
                    None => {}
                }
                all_good &= matches!(amount, Some(Ok(_)));
            }
            all_good.then_some(Price::PerRequest)
        }
        Charge::PerToken(tokens) => {
            let mut models = Vec::new();
            let mut all_good = true;
            for (glob, spec) in &tokens.models {
                match table(spec, offers, errors) {
                    Some(table) => models.push((glob.clone(), table)),
                    None => all_good = false,
                }
            }
            let other = match &tokens.other {
                Some(spec) => Some(table(spec, offers, errors)?),
                None => None,
            };
            let price = PerToken {
                models,
                other,
                max_output: tokens.max_output,
                max_input: tokens.max_input,
                estimate: tokens.estimate,
            };
            let highest = price.highest(offers.len());
            for ((offer, _), highest) in offers.iter_mut().zip(highest) {
                offer.amount = highest;
            }
            all_good.then(|| Price::PerToken(price.into()))
        }
        Charge::PerMinute { amount, minimum, maximum } => {
            let rates = rates([amount], offers, [*maximum], errors)?;
            for ((offer, _), rates) in offers.iter_mut().zip(&rates) {
                offer.amount = rates.cost([*maximum]).unwrap_or_default();
            }
            let price = PerMinute {
                rates,
                minimum: *minimum,
                maximum: *maximum,
            };
            Some(Price::PerMinute(price.into()))
        }
        Charge::Dynamic { base, multipliers } => {
            let multiplier = |(when, times): &(_, Decimal)| Multiplier {
                when: Clone::clone(when),
                times: *times,
            };
            let price = Dynamic {
                base: rates([base], offers, [1], errors)?,
                multipliers: multipliers.iter().map(multiplier).collect(),
            };
            let Some(highest) = price.highest().filter(|_| price.is_computable()) else {
                errors.add(
                    &base.path,
                    "more than can be computed with all multipliers",
                    MoneyError::TooLarge.to_string(),
                );
                return None;
            };
            for ((offer, _), highest) in offers.iter_mut().zip(highest) {
                offer.amount = highest;
            }
            Some(Price::Dynamic(price.into()))
        }
    }
}

fn table(spec: &Table<'_>, offers: &[Placed], errors: &mut Errors) -> Option<TokenTable> {
    /// Tokens of each kind that have to be computable: more than any model reads or writes.
    const MANY: u64 = 1_000_000_000_000;
    let rates = rates(spec.amounts.each_ref(), offers, [MANY; 4], errors)?;
    Some(TokenTable { rates })
}

/// The amounts for each offer; `most` of them have to be computable.
fn rates<const N: usize>(amounts: [&Amounts<'_>; N], offers: &[Placed], most: [u64; N], errors: &mut Errors) -> Option<Vec<Rates<N>>> {
    let mut all = Vec::new();
    for (offer, path) in offers {
        let decimals: Vec<Option<Decimal>> = dedup(&amounts).map(|amounts| amounts.of(&offer.asset, path, errors)).collect();
        if decimals.contains(&None) {
            continue;
        }
        let silent = &mut Errors::default();
        let decimals = amounts.map(|amounts| amounts.of(&offer.asset, path, silent).unwrap_or(Decimal::ZERO));
        let rates = Rates::new(decimals, offer.asset.decimals);
        let rates = rates.and_then(|rates| rates.cost(most).map(|_| rates).ok_or(MoneyError::TooLarge));
        match (rates, amounts.first()) {
            (Ok(rates), _) => all.push(rates),
            (Err(error), Some(amounts)) => too_much(amounts, offer, error, errors),
            (Err(_), None) => {}
        }
    }
    (all.len() == offers.len()).then_some(all)
}

/// Amounts that stand for others that are not given would be complained of twice.
fn dedup<'a, 'v>(amounts: &'a [&'a Amounts<'v>]) -> impl Iterator<Item = &'a Amounts<'v>> {
    let first = |index: &usize, path: &str| !amounts.iter().take(*index).any(|earlier| earlier.path == path);
    let numbered = amounts.iter().enumerate();
    numbered.filter(move |(index, own)| first(index, &own.path)).map(|(_, own)| *own)
}

fn too_much(amounts: &Amounts<'_>, offer: &Offer, error: MoneyError, errors: &mut Errors) {
    let symbol = &offer.asset.symbol;
    let found = match error {
        MoneyError::TooFine => format!("more decimal places than can be computed with in {symbol}"),
        _ => format!("more than can be paid in {symbol}"),
    };
    errors.add(&amounts.path, found, error.to_string());
}
