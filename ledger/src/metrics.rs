//! What is counted, for Prometheus.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::Standing;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Is {
    state: String,
}

/// Counters and gauges. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reservations: Family<Outcome, Counter>,
    captures: Family<Outcome, Counter>,
    topups: Family<Outcome, Counter>,
    lapsed: Counter,
    claims: Family<Outcome, Counter>,
    settlements: Family<Outcome, Counter>,
    lapsed_claims: Counter,
    open: Gauge,
    held: Gauge,
    unsettled: Family<Is, Gauge>,
    open_claims: Family<Is, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("x402_ledger");
        let metrics = Self {
            registry: Arc::default(),
            reservations: Family::default(),
            captures: Family::default(),
            topups: Family::default(),
            lapsed: Counter::default(),
            claims: Family::default(),
            settlements: Family::default(),
            lapsed_claims: Counter::default(),
            open: Gauge::default(),
            held: Gauge::default(),
            unsettled: Family::default(),
            open_claims: Family::default(),
        };
        registry.register("reservations", "What became of reservations", metrics.reservations.clone());
        registry.register("captures", "What became of captures", metrics.captures.clone());
        registry.register("topups", "What became of payments for top-ups", metrics.topups.clone());
        registry.register(
            "lapsed_reservations",
            "Reservations given back because nothing was heard of them",
            metrics.lapsed.clone(),
        );
        registry.register("claims", "What became of payments that were asked for", metrics.claims.clone());
        registry.register(
            "settlements",
            "What became of settlements of shared claims",
            metrics.settlements.clone(),
        );
        registry.register(
            "lapsed_claims",
            "Payments given back because nothing was heard of who had them",
            metrics.lapsed_claims.clone(),
        );
        registry.register("open_reservations", "Reservations of requests under way", metrics.open.clone());
        registry.register(
            "reserved_micro_dollars",
            "What is held for requests under way",
            metrics.held.clone(),
        );
        registry.register(
            "open_claims",
            "Payments that requests of the fleet have",
            metrics.open_claims.clone(),
        );
        registry.register("unsettled_topups", "Top-ups whose end is not known", metrics.unsettled.clone());
        Self {
            registry: Arc::new(registry),
            ..metrics
        }
    }
}

impl Metrics {
    pub(crate) fn reservation(&self, outcome: &'static str) {
        self.reservations.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn capture(&self, outcome: &'static str) {
        self.captures.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn topup(&self, outcome: &'static str) {
        self.topups.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn claim(&self, outcome: &'static str) {
        self.claims.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn settlement(&self, outcome: &'static str) {
        self.settlements.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn lapsed_claims(&self, count: u64) {
        self.lapsed_claims.inc_by(count);
    }

    pub(crate) fn lapsed(&self, count: u64) {
        self.lapsed.inc_by(count);
    }

    /// All of it, in OpenMetrics' text format.
    ///
    /// # Errors
    ///
    /// None that a `String` has.
    pub(crate) fn text(&self, standing: &Standing) -> Result<String, fmt::Error> {
        self.open.set(standing.open_reservations);
        self.held.set(standing.reserved);
        for (state, count) in &standing.topups {
            self.unsettled.get_or_create(&Is { state: state.clone() }).set(*count);
        }
        for (state, count) in &standing.claims {
            self.open_claims.get_or_create(&Is { state: state.clone() }).set(*count);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
