//! How a run begins, and what must be left when it ends: nothing.

use std::collections::BTreeSet;

use x402_envoy::replay::{ClaimKey, Exposure, Limits, SharedStore, Trust, UnixSeconds};
use x402_envoy::supported::share;
use x402_envoy::x402::facilitator::Supported;

use super::agenda::Event;
use super::client::{self, Visit};
use super::invariants::violated;
use super::shop::{Flow, ROUTES, VALIDITY, Way, supported};
use super::wallet::{self, PAYERS, SECRET};
use super::world::{REQUESTS, WORKERS, World};

impl World {
    /// What facilitators support is known, and clients have seen the challenge of each route.
    pub fn opens(&self) {
        let config = &self.shop.configs[0];
        for facilitator in 0..config.facilitators.len() {
            let answer = Supported::parse(supported(facilitator).as_bytes()).unwrap();
            share(&self.store, config, facilitator, Some(answer), UnixSeconds(self.now_s()));
        }
        for (route, sold) in ROUTES.iter().enumerate().filter(|(_, route)| route.flow != Flow::Free) {
            for list in [0, 1] {
                let answer = self.workers[0].borrow_mut().challenge(self, sold, list);
                client::learn(self, route, list, &answer);
                let known = self
                    .crowd
                    .borrow()
                    .accepted
                    .keys()
                    .filter(|key| (key.0, key.1) == (route, list))
                    .count();
                // LibertAI's is not in the header.
                let told = sold.ways.iter().filter(|way| **way != Way::Permit).count();
                assert!(known >= told, "{}: {known} of {told} offers", sold.name);
            }
        }
        self.crowd.borrow_mut().left = REQUESTS;
        self.plan(self.now_ms(), Event::Think);
        let upheavals = if self.rough {
            self.random.between(1, 4)
        } else {
            self.random.below(2)
        };
        for _ in 0..upheavals {
            let worker = self.random.index(WORKERS);
            let at = self.now_ms() + self.random.between(1000, 600_000);
            let event = match self.random.below(3) {
                0 if self.rough => Event::Kill(worker),
                1 => Event::Leap(self.random.between(1000, 400_000)),
                _ => Event::Reconfigure(worker),
            };
            self.plan(at, event);
        }
    }

    /// Everything has come to its end: what is left must be nothing.
    pub fn closes(&self) {
        for worker in &self.workers {
            if !worker.borrow().is_idle() {
                violated("nobody waits for ever", "nothing is to happen any more, and a worker is not idle");
            }
        }
        for visit in &self.crowd.borrow().visits {
            if visit.outcome.is_none() {
                violated("nobody waits for ever", "a client was never answered");
            }
        }
        for (payment, sold) in &*self.sold.borrow() {
            if !sold.is_over() {
                violated("every delivery ends", format!("payment {payment} has {sold:?}"));
            }
        }
        let unsettled: BTreeSet<(usize, usize)> = {
            let (crowd, chain) = (self.crowd.borrow(), self.chain.borrow());
            let excused = |visit: &&Visit| {
                let payment = visit.errand.payment.map(|payment| &crowd.payments[payment]);
                payment.is_some_and(|payment| visit.unresolved || chain.spends[payment.spend].stuck)
            };
            let excused = crowd.visits.iter().filter(excused);
            excused
                .map(|visit| (visit.errand.route, crowd.payments[visit.errand.payment.unwrap()].payer))
                .collect()
        };
        self.nobody_owes(|route, payer| !unsettled.contains(&(route, payer)));
        // Past every expiry, and the slots of time that trust is counted in.
        self.passes((VALIDITY * 4 + 7200) * 1000);
        self.nobody_owes(|_, _| true);
        self.calm.set(true);
        self.workers[0].borrow_mut().sweep_buckets(self, 0..4096);
        if self.gauge.get() != 0 || self.records() != 0 {
            violated(
                "every claim ends",
                format!("gauge {}, {} records", self.gauge.get(), self.records()),
            );
        }
        for name in &*self.written.borrow() {
            let is_table = [
                "x402/claims/",
                "x402/bans/",
                "x402/exposure/",
                "x402/attempts/",
                "x402/entitlements/",
                "x402/identifiers/",
                "x402/rates/",
            ]
            .iter()
            .any(|table| name.starts_with(table));
            let in_bucket = name.rsplit('/').next().is_some_and(|last| last.len() == 4);
            if is_table && in_bucket && self.store.get(name).is_some_and(|(value, _)| !value.is_empty()) {
                violated("every claim ends", format!("{name} is not empty"));
            }
        }
    }

    /// The sums of what payers owe are zero: trust for all that may be open is still to be had.
    fn nobody_owes(&self, payers: impl Fn(usize, usize) -> bool) {
        let exposure = Exposure::new(self.shop.configs[0].max_claims);
        for (index, route) in ROUTES.iter().enumerate().filter(|(_, route)| route.flow == Flow::Metered) {
            for payer in (0..PAYERS).filter(|payer| payers(index, *payer)) {
                let trust = Trust {
                    payer: ClaimKey::payer(&SECRET, route.name, "usd", &wallet::name(payer)),
                    all: ClaimKey::all_payers(&SECRET, route.name, "usd"),
                    amount: self.shop.exposure_payer,
                    expiry: UnixSeconds(self.now_s() + VALIDITY),
                };
                let limits = Limits {
                    payer: Some(self.shop.exposure_payer),
                    total: None,
                };
                if exposure.check(&self.store, &trust, &limits, UnixSeconds(self.now_s())).is_err() {
                    violated("debts end", format!("payer {payer} owes something on {} still", route.name));
                }
            }
        }
    }
}
