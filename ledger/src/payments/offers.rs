//! What top-ups cost: the tiers' offers, and those of any other amount, computed by the filter's own code.

use serde_json::{Map, Value, json};
use x402_envoy::config::{self, Config, ConfigError};
use x402_envoy::pricing::{Atomic, Decimal, Offer, Scheme};

/// The least that can be bought: a cent, in micro-dollars.
pub const LEAST: i64 = 10_000;

/// Sections that mean what they mean in the filter's configuration.
pub(crate) const SHARED: [&str; 8] = [
    "pay_to",
    "accept",
    "assets",
    "facilitators",
    "pre_check",
    "settlement",
    "challenge",
    "public_url",
];

/// What can be bought, and how it can be paid.
#[derive(Debug, Clone)]
pub struct Offers {
    /// The filter's configuration that this was made from: facilitators, bounds, what a challenge looks like.
    pub config: Config,
    /// The tiers, the default one first.
    pub tiers: Vec<Tier>,
    /// The most that one top-up may buy, in micro-dollars.
    pub max_topup: i64,
}

/// An amount of credit and the ways to pay for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// What is credited, in micro-dollars.
    pub amount: i64,
    /// In order of preference; never empty.
    pub offers: Vec<Offer>,
}

/// An offer and what is credited for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// What is credited, in micro-dollars.
    pub amount: i64,
    /// What is paid.
    pub offer: Offer,
}

/// Reads an amount such as `10.00` or `$10`, in micro-dollars; `None` for what is none, is nothing, or is finer than a micro-dollar.
pub fn micros(text: &str) -> Option<i64> {
    let decimal = Decimal::parse(text, true).ok()?;
    let rounded_up = decimal.to_atomic(6).ok()?;
    let exact = Decimal::parse(&rounded_up.to_decimal(6), false).ok()? == decimal;
    exact.then(|| i64::try_from(rounded_up.0).ok()).flatten()
}

/// An amount of micro-dollars as `10.00` is written: at least two decimal places.
pub fn dollars(micros: i64) -> String {
    let text = Atomic(u128::try_from(micros).unwrap_or(0)).to_decimal(6);
    let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    match places {
        0 => format!("{text}.00"),
        1 => format!("{text}0"),
        _ => text,
    }
}

impl Offers {
    /// Compiles the ledger's sections: `pay_to`, `accept`, `assets`, `facilitators` (whose `cluster` may be left out), `pre_check`,
    /// `settlement`, `challenge` and `public_url` of `document`; other sections are not looked at.
    ///
    /// # Errors
    ///
    /// Every mistake with its path in the ledger's own configuration.
    pub fn new(document: &Map<String, Value>, tiers: &[String], max_topup: &str) -> Result<Self, Vec<ConfigError>> {
        let one = |path: &str, found: String, expected: &str| {
            vec![ConfigError {
                path: path.to_owned(),
                found,
                expected: expected.to_owned(),
            }]
        };
        let max = micros(max_topup).filter(|max| *max >= LEAST);
        let max = max.ok_or_else(|| {
            one(
                "credits.max_topup",
                json!(max_topup).to_string(),
                "an amount such as \"$100\", at least \"$0.01\"",
            )
        })?;
        if tiers.is_empty() {
            return Err(one(
                "credits.tiers",
                "an empty list".to_owned(),
                "at least one amount such as \"$5\"",
            ));
        }
        let mut amounts: Vec<i64> = Vec::new();
        for (index, text) in tiers.iter().enumerate() {
            let amount = micros(text).filter(|amount| (LEAST..=max).contains(amount) && !amounts.contains(amount));
            let path = format!("credits.tiers[{index}]");
            let expected = "an amount such as \"$5\", from \"$0.01\" to credits.max_topup, and each once";
            amounts.push(amount.ok_or_else(|| one(&path, json!(text).to_string(), expected))?);
        }
        let config = config::parse(filter(document, &amounts).to_string().as_bytes()).map_err(|errors| renamed(errors, tiers))?;
        let bought = amounts.iter().zip(config.routes.iter());
        let tiers: Vec<Tier> = bought
            .map(|(amount, route)| Tier {
                amount: *amount,
                offers: route.offers.iter().filter(|offer| is_sold(offer)).cloned().collect(),
            })
            .collect();
        if tiers.iter().any(|tier| tier.offers.is_empty()) {
            let expected = "at least one offer with scheme: exact in a token that stands for usd, for credits are dollars";
            return Err(one("accept", "none that can buy credits".to_owned(), expected));
        }
        Ok(Self {
            config,
            tiers,
            max_topup: max,
        })
    }

    /// All tiers' offers, the default tier's first.
    pub fn all(&self) -> Vec<Priced> {
        let each = |tier: &Tier| {
            let amount = tier.amount;
            tier.offers.clone().into_iter().map(move |offer| Priced { amount, offer })
        };
        self.tiers.iter().flat_map(each).collect()
    }

    /// The offers for an amount in micro-dollars; `None` under a cent and over `max_topup`.
    pub fn of(&self, amount: i64) -> Option<Vec<Priced>> {
        if !(LEAST..=self.max_topup).contains(&amount) {
            return None;
        }
        let decimal = Decimal::parse(&dollars(amount), false).ok()?;
        let priced = |offer: &Offer| {
            let asked = decimal.to_atomic(offer.asset.decimals).ok()?;
            let offer = Offer {
                amount: asked,
                ..offer.clone()
            };
            Some(Priced { amount, offer })
        };
        self.tiers.first()?.offers.iter().map(priced).collect()
    }
}

fn is_sold(offer: &Offer) -> bool {
    offer.scheme == Scheme::Exact && &*offer.asset.currency == "usd"
}

/// The configuration of a filter that sells each amount on a route of its own.
fn filter(document: &Map<String, Value>, amounts: &[i64]) -> Value {
    let mut filter = Map::new();
    for name in SHARED {
        if let Some(section) = document.get(name) {
            filter.insert(name.to_owned(), section.clone());
        }
    }
    if let Some(Value::Array(facilitators)) = filter.get_mut("facilitators") {
        for facilitator in facilitators.iter_mut().filter_map(Value::as_object_mut) {
            // It is called by its URL; the filter's schema wants a name.
            facilitator.entry("cluster").or_insert_with(|| json!("ledger"));
        }
    }
    let route = |(index, amount): (usize, &i64)| {
        let mut prices = Map::new();
        for currency in currencies(document) {
            prices.insert(currency, json!(dollars(*amount)));
        }
        json!({"name": format!("tier-{index}"), "match": {"path": format!("/tier/{index}")}, "price": {"per_request": prices}})
    };
    filter.insert("unmatched".to_owned(), json!("deny"));
    filter.insert("routes".to_owned(), amounts.iter().enumerate().map(route).collect());
    Value::Object(filter)
}

/// Every currency that an offer may have: without a price in it, one that is not for sale here would be a mistake.
fn currencies(document: &Map<String, Value>) -> Vec<String> {
    let described = document.get("assets").and_then(Value::as_array).into_iter().flatten();
    let named = described.filter_map(|asset| asset.get("currency")?.as_str());
    let plain = named.filter(|name| (3..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase()));
    ["usd", "eur"].into_iter().chain(plain).map(str::to_owned).collect()
}

/// Mistakes in the synthetic routes are told of the tiers they were made from.
fn renamed(errors: Vec<ConfigError>, tiers: &[String]) -> Vec<ConfigError> {
    let mut renamed: Vec<ConfigError> = Vec::new();
    for mut error in errors {
        let place = error.path.strip_prefix("routes[").and_then(|rest| rest.split_once(']'));
        if let Some((index, _)) = place {
            let known = index.parse::<usize>().is_ok_and(|index| index < tiers.len());
            error.path = if known {
                format!("credits.tiers[{index}]")
            } else {
                "credits.tiers".to_owned()
            };
        }
        if !renamed.contains(&error) {
            renamed.push(error);
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Map<String, Value> {
        let value = json!({
            "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"},
            "accept": [
                {"scheme": "exact", "network": "eip155:84532", "asset": "USDC"},
                {"scheme": "upto", "network": "eip155:84532", "asset": "USDC"},
            ],
            "facilitators": [{"url": "http://127.0.0.1:4022"}],
            "listen": "127.0.0.1:8402",
        });
        value.as_object().unwrap().clone()
    }

    fn tiers(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn tiers_keep_their_order_and_only_exact_is_sold() {
        let offers = Offers::new(&document(), &tiers(&["$5", "$1", "$10"]), "$100").unwrap();
        let all = offers.all();
        let sold: Vec<_> = all
            .iter()
            .map(|priced| (priced.amount, priced.offer.amount.0, priced.offer.scheme))
            .collect();
        let exact = |amount: i64| (amount, u128::try_from(amount).unwrap(), Scheme::Exact);
        assert_eq!(sold, [exact(5_000_000), exact(1_000_000), exact(10_000_000)]);
    }

    #[test]
    fn any_amount_within_the_bounds_can_be_bought() {
        let offers = Offers::new(&document(), &tiers(&["$5"]), "$100").unwrap();
        assert_eq!(offers.of(5_000_000).unwrap(), offers.all());
        assert_eq!(offers.of(12_340_001).unwrap()[0].offer.amount, Atomic(12_340_001));
        for outside in [i64::MIN, -1, 0, 9_999, 100_000_001, i64::MAX] {
            assert_eq!(offers.of(outside), None, "{outside}");
        }
        assert!(offers.of(10_000).is_some() && offers.of(100_000_000).is_some());
    }

    #[test]
    fn amounts_are_exact_to_the_micro_dollar() {
        for (text, expected) in [
            ("10.00", Some(10_000_000)),
            ("$0.000001", Some(1)),
            ("0.0000001", None),
            ("0", None),
            ("-1", None),
            ("1e3", None),
            ("9223372036855", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
        for (micros, text) in [(10_000_000, "10.00"), (500_000, "0.50"), (1, "0.000001"), (0, "0.00")] {
            assert_eq!(dollars(micros), text);
        }
    }

    #[test]
    fn mistakes_are_told_by_their_paths() {
        let paths = |document: &Map<String, Value>, texts: &[&str], max: &str| -> Vec<String> {
            let errors = Offers::new(document, &tiers(texts), max).unwrap_err();
            errors.into_iter().map(|error| error.path).collect()
        };
        assert_eq!(paths(&document(), &["$5"], "x"), ["credits.max_topup"]);
        assert_eq!(paths(&document(), &[], "$100"), ["credits.tiers"]);
        assert_eq!(paths(&document(), &["$5", "$200"], "$100"), ["credits.tiers[1]"]);
        assert_eq!(paths(&document(), &["$5", "5.00"], "$100"), ["credits.tiers[1]"]);
        let mut wrong = document();
        wrong["accept"] = json!([{"scheme": "exact", "network": "eip155:84532", "asset": "NONE"}]);
        assert_eq!(paths(&wrong, &["$5"], "$100"), ["accept[0].asset"]);
        wrong["accept"] = json!([{"scheme": "upto", "network": "eip155:84532", "asset": "USDC"}]);
        assert_eq!(paths(&wrong, &["$5"], "$100"), ["accept"]);
        let mut wrong = document();
        wrong["facilitators"] = json!([{"url": "ftp://h"}]);
        assert!(paths(&wrong, &["$5"], "$100").contains(&"facilitators[0].url".to_owned()));
    }
}
