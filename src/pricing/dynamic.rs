//! `dynamic`: a base price, multiplied where conditions on the request hold.

use super::expression::{Expression, Scope};
use super::money::Decimal;
use super::offer::Atomic;
use super::quote::QuoteRefusal;
use super::rate::Rates;
use super::select::RequestFacts;
use crate::reader::{BodyFacts, Outcome};

/// Most multipliers of a route.
pub(crate) const MAX_MULTIPLIERS: usize = 32;

/// A price that conditions multiply.
///
/// ```yaml
/// price: {dynamic: {base: "$0.01", multipliers: [{when: "query_length > 1000", times: 2.0}]}}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dynamic {
    /// The price before any multiplier, for each of the route's offers in their order.
    pub(crate) base: Vec<Rates<1>>,
    /// At most [`MAX_MULTIPLIERS`].
    pub(crate) multipliers: Vec<Multiplier>,
}

/// A factor, and when it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multiplier {
    pub(crate) when: Expression,
    /// Above zero.
    pub(crate) times: Decimal,
}

impl Multiplier {
    /// What cannot be decided costs what is dearer: a client must not save by sending a field of another type.
    fn counts(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::True => true,
            Outcome::False => false,
            Outcome::Undecided => self.raises(),
        }
    }

    fn raises(&self) -> bool {
        // A scale beyond 10^38 is a fraction below one of any mantissa.
        let one = 10u128.checked_pow(self.times.scale());
        one.is_some_and(|one| self.times.mantissa() > one)
    }
}

impl Dynamic {
    /// Whether any condition looks at the body.
    pub(crate) fn uses_body(&self) -> bool {
        self.multipliers.iter().any(|multiplier| multiplier.when.uses_body())
    }

    /// The outcomes of the conditions that look at the body.
    pub(crate) fn outcomes<'d>(&'d self, scope: &'d Scope<'d>) -> impl Iterator<Item = (u64, Outcome)> + 'd {
        let conditions = self.multipliers.iter().map(|multiplier| &multiplier.when);
        conditions
            .filter(|when| when.uses_body())
            .map(|when| (when.fingerprint(), when.evaluate(scope)))
    }

    /// The amount for each offer.
    pub(crate) fn quote(&self, request: &RequestFacts<'_>) -> Result<Vec<Atomic>, QuoteRefusal> {
        let scope = Scope::without_body(request);
        let mut factors = Vec::new();
        for multiplier in &self.multipliers {
            let outcome = match (multiplier.when.uses_body(), request.body) {
                (false, _) | (true, Some(BodyFacts::None)) => multiplier.when.evaluate(&scope),
                (true, None) => return Err(QuoteRefusal::NeedsBody),
                (true, Some(BodyFacts::Unreadable(_))) => return Err(QuoteRefusal::Unreadable),
                (true, Some(BodyFacts::Json(facts))) => {
                    let fingerprint = multiplier.when.fingerprint();
                    let found = facts.outcomes.iter().find(|(of, _)| *of == fingerprint);
                    found.map(|(_, outcome)| *outcome).ok_or(QuoteRefusal::FactsMissing)?
                }
            };
            if multiplier.counts(outcome) {
                factors.push(multiplier.times);
            }
        }
        self.multiplied(&factors).ok_or(QuoteRefusal::TooLarge)
    }

    /// The most that a request can cost, in each offer: every multiplier that raises the price counts.
    pub(crate) fn highest(&self) -> Option<Vec<Atomic>> {
        let raising = self.multipliers.iter().filter(|multiplier| multiplier.raises());
        self.multiplied(&raising.map(|multiplier| multiplier.times).collect::<Vec<_>>())
    }

    /// Whether no request can be too dear to compute: the product of everything fits.
    pub(crate) fn is_computable(&self) -> bool {
        let all: Vec<Decimal> = self.multipliers.iter().map(|multiplier| multiplier.times).collect();
        self.multiplied(&all).is_some()
    }

    fn multiplied(&self, factors: &[Decimal]) -> Option<Vec<Atomic>> {
        let mut above = 1u128;
        let mut below = 1u128;
        for factor in factors {
            above = above.checked_mul(factor.mantissa())?;
            below = below.checked_mul(10u128.checked_pow(factor.scale())?)?;
        }
        let amount = |base: &Rates<1>| {
            let [numerator] = base.numerators;
            let exact = numerator.checked_mul(above)?;
            Some(Atomic(exact.div_ceil(base.divisor.checked_mul(below)?)))
        };
        self.base.iter().map(amount).collect()
    }
}
