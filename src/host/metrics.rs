//! Metrics: from the gate's notes to Envoy's stats.
//!
//! Labels are part of the name (`x402_refusals.reason.<reason>`), for Envoy's tag extraction to take apart; only names from the
//! configuration and from closed lists go in, since Envoy never forgets a metric.

use std::collections::{BTreeMap, HashMap};

use super::abi::{self, Metric};
use crate::config::Config;
use crate::gate::{Endpoint, Note};

/// The metrics of one worker. Envoy adds those of all workers up.
#[derive(Default)]
pub(super) struct Metrics {
    ids: HashMap<String, u32>,
    /// Those of challenges, by the index of the route: there may be thousands.
    challenges: BTreeMap<usize, u32>,
    /// Those of what else has happened before, whose names need not be made again: few, and the commonest come first.
    noted: Vec<(Note, u32)>,
    /// Those of calls.
    calls: Vec<(Endpoint, u32)>,
}

impl Metrics {
    /// Defines what should be there, at zero, before anything has happened.
    pub(super) fn define(&mut self) {
        self.id(Metric::Gauge, "x402_claims".into());
        for outcome in ["valid", "refused", "contradicted", "unavailable"] {
            self.id(Metric::Counter, format!("x402_verifications.outcome.{outcome}"));
        }
        for outcome in ["settled", "inferred", "refused", "unknown", "unavailable"] {
            self.id(Metric::Counter, format!("x402_settlements.outcome.{outcome}"));
        }
        for name in [
            "x402_released",
            "x402_served_unsettled",
            "x402_usage_above_quote",
            "x402_undelivered",
            "x402_overrides_ignored",
        ] {
            self.id(Metric::Counter, name.into());
        }
        self.id(Metric::Histogram, "x402_verify_ms".into());
        self.id(Metric::Histogram, "x402_settle_ms".into());
    }

    pub(super) fn note(&mut self, note: &Note, config: &Config) {
        let by = amount(note);
        let known = match note {
            Note::Challenged(route) => self.challenges.get(route).copied(),
            _ => self.noted.iter().find(|(known, _)| is_counted_with(known, note)).map(|(_, id)| *id),
        };
        if let Some(id) = known {
            return abi::increment(id, by);
        }
        let kind = match note {
            Note::Claims(_) => Metric::Gauge,
            _ => Metric::Counter,
        };
        if let Some(id) = self.id(kind, name(note, config)) {
            match note {
                Note::Challenged(route) => drop(self.challenges.insert(*route, id)),
                _ => self.noted.push((note.clone(), id)),
            }
            abi::increment(id, by);
        }
    }

    /// Defines what there is where credits are sold.
    pub(super) fn define_credits(&mut self) {
        for outcome in ["reserved", "answered", "unavailable"] {
            self.id(Metric::Counter, format!("x402_reservations.outcome.{outcome}"));
        }
        for outcome in ["captured", "released", "lapsed", "lost", "unreleased"] {
            self.id(Metric::Counter, format!("x402_captures.outcome.{outcome}"));
        }
        self.id(Metric::Counter, "x402_spent_credits".into());
        self.id(Metric::Histogram, "x402_reserve_ms".into());
    }

    /// Counts an answer of `/supported`, or its absence.
    pub(super) fn supported(&mut self, outcome: &str) {
        self.add(Metric::Counter, format!("x402_supported.outcome.{outcome}"), 1);
    }

    /// Sets how many offers no facilitator supports.
    pub(super) fn unsupported(&mut self, offers: usize) {
        if let Some(id) = self.id(Metric::Gauge, "x402_unsupported_offers".into()) {
            abi::record(id, u64::try_from(offers).unwrap_or(u64::MAX));
        }
    }

    /// Counts a call that was held back.
    pub(super) fn held_back(&mut self, cluster: &str, reason: &str) {
        self.of_facilitator("x402_calls_held_back", cluster, "reason", reason);
    }

    /// Counts a change of a breaker's state.
    pub(super) fn breaker(&mut self, cluster: &str, state: &str) {
        self.of_facilitator("x402_breaker_changes", cluster, "state", state);
    }

    fn of_facilitator(&mut self, name: &str, cluster: &str, label: &str, value: &str) {
        // Whatever could end the label, or has no place in a name.
        let cluster = cluster.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
        self.add(Metric::Counter, format!("{name}.facilitator.{cluster}.{label}.{value}"), 1);
    }

    /// Records how long a facilitator took.
    pub(super) fn took(&mut self, endpoint: Endpoint, nanoseconds: u64) {
        let milliseconds = nanoseconds.div_ceil(1_000_000);
        if let Some((_, id)) = self.calls.iter().find(|(known, _)| *known == endpoint) {
            return abi::record(*id, milliseconds);
        }
        let name = match endpoint {
            Endpoint::Verify => "x402_verify_ms",
            Endpoint::Settle => "x402_settle_ms",
            Endpoint::Reserve => "x402_reserve_ms",
            Endpoint::Supported | Endpoint::Capture | Endpoint::Report => return,
        };
        if let Some(id) = self.id(Metric::Histogram, name.into()) {
            self.calls.push((endpoint, id));
            abi::record(id, milliseconds);
        }
    }

    fn add(&mut self, kind: Metric, name: String, by: i64) {
        if let Some(id) = self.id(kind, name) {
            abi::increment(id, by);
        }
    }

    fn id(&mut self, kind: Metric, name: String) -> Option<u32> {
        if let Some(id) = self.ids.get(&name) {
            return Some(*id);
        }
        let id = abi::define_metric(kind, &name)?;
        self.ids.insert(name, id);
        Some(id)
    }
}

/// Whether two notes are counted under one name.
fn is_counted_with(one: &Note, other: &Note) -> bool {
    match (one, other) {
        (Note::Earned(asset, network, _), Note::Earned(other_asset, other_network, _)) => (asset, network) == (other_asset, other_network),
        (Note::Spent(_), Note::Spent(_)) | (Note::Claims(_), Note::Claims(_)) => true,
        _ => one == other,
    }
}

/// By how much a note changes its metric.
fn amount(note: &Note) -> i64 {
    match note {
        Note::Earned(_, _, amount) => i64::try_from(*amount).unwrap_or(i64::MAX),
        Note::Spent(micros) => i64::try_from(*micros).unwrap_or(i64::MAX),
        Note::Claims(by) => *by,
        _ => 1,
    }
}

fn name(note: &Note, config: &Config) -> String {
    match note {
        Note::Challenged(route) => {
            let route = config.routes.by_index(*route).map_or("", |route| &route.name);
            format!("x402_challenges.route.{route}")
        }
        Note::Refused(refusal) => format!("x402_refusals.reason.{}", refusal.row().reason),
        Note::Verified(outcome) => format!("x402_verifications.outcome.{outcome}"),
        Note::Settled(outcome) => format!("x402_settlements.outcome.{outcome}"),
        Note::Earned(asset, network, _) => {
            // A dot would end the label, a colon has no place in a name.
            let (asset, network) = (asset.replace('.', "_"), network.replace(':', "-"));
            format!("x402_earned.asset.{asset}.network.{network}")
        }
        Note::Released => "x402_released".into(),
        Note::Undelivered => "x402_undelivered".into(),
        Note::Entitled(right) => format!("x402_entitled.right.{right}"),
        Note::ServedUnsettled => "x402_served_unsettled".into(),
        Note::UsageAboveQuote => "x402_usage_above_quote".into(),
        Note::SettlementRetried => "x402_settlement_retries".into(),
        Note::FormerQuote => "x402_former_quotes".into(),
        Note::OverrideIgnored => "x402_overrides_ignored".into(),
        Note::Reserved(outcome) => format!("x402_reservations.outcome.{outcome}"),
        Note::Captured(outcome) => format!("x402_captures.outcome.{outcome}"),
        Note::Spent(_) => "x402_spent_credits".into(),
        Note::Claims(_) => "x402_claims".into(),
    }
}
