//! Random histories against a model that keeps all of them, and the cases that matter by name.

#![allow(clippy::arithmetic_side_effects)] // tests

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    in_flight: 8,
    failures: 3,
    open_ms: 10_000,
};

fn send(breaker: &mut Breaker, class: Class, now_ms: u64) -> Pass {
    let pass = breaker.admit(class, &LIMITS, now_ms).unwrap();
    breaker.sent(pass);
    pass
}

/// A breaker that has just opened.
fn open(now_ms: u64) -> Breaker {
    let mut breaker = Breaker::default();
    let changes: Vec<_> = (0..3)
        .map(|_| {
            let pass = send(&mut breaker, Class::Verify, now_ms);
            breaker.ended(pass, true, &LIMITS, now_ms)
        })
        .collect();
    assert_eq!(changes, [None, None, Some(Change::Opened)]);
    breaker
}

#[test]
fn verifications_leave_room_for_settlements() {
    for (in_flight, verifications) in [(1, 1), (2, 1), (4, 3), (8, 7), (16, 14), (256, 224), (65_536, 57_344)] {
        let limits = Limits { in_flight, ..LIMITS };
        let mut breaker = Breaker::default();
        let count = |breaker: &mut Breaker, class| {
            let mut count = 0;
            while let Ok(pass) = breaker.admit(class, &limits, 0) {
                breaker.sent(pass);
                count += 1;
            }
            assert_eq!(breaker.admit(class, &limits, 0), Err(Held::InFlight));
            count
        };
        assert_eq!(count(&mut breaker, Class::Verify), verifications);
        assert_eq!(count(&mut breaker, Class::Settle), in_flight - verifications);
        assert!(breaker.admit(Class::Owed, &limits, 0).is_ok(), "never held back");
    }
}

#[test]
fn one_call_probes() {
    let mut breaker = open(0);
    assert_eq!(breaker.admit(Class::Settle, &LIMITS, 4_000), Err(Held::Open(Some(6_000))));
    let pass = breaker.admit(Class::Verify, &LIMITS, 10_000).unwrap();
    assert_eq!(
        breaker.admit(Class::Verify, &LIMITS, 10_000),
        Ok(pass),
        "the first one could not be sent"
    );
    breaker.sent(pass);
    assert_eq!(breaker.admit(Class::Verify, &LIMITS, 99_000), Err(Held::Open(None)));
    assert_eq!(breaker.ended(pass, true, &LIMITS, 99_000), Some(Change::Reopened));
    assert_eq!(breaker.admit(Class::Verify, &LIMITS, 100_000), Err(Held::Open(Some(9_000))));
    let pass = send(&mut breaker, Class::Settle, 109_000);
    assert_eq!(breaker.ended(pass, false, &LIMITS, 109_000), Some(Change::Closed));
    assert!(breaker.admit(Class::Verify, &LIMITS, 109_000).is_ok());
}

#[test]
fn what_is_owed_goes_and_closes_it() {
    let mut breaker = open(0);
    let (first, second) = (send(&mut breaker, Class::Owed, 1), send(&mut breaker, Class::Owed, 1));
    assert_eq!(breaker.ended(first, true, &LIMITS, 2), None, "it is open");
    assert_eq!(breaker.ended(second, false, &LIMITS, 2), Some(Change::Closed));
}

#[test]
fn a_sign_of_life_from_before_says_nothing() {
    assert_eq!(Breaker::default().heard(7), None, "it is closed");
    let mut breaker = open(8_200);
    assert_eq!(breaker.heard(8), None);
    assert_eq!(breaker.heard(9), Some(Change::Closed));
    for _ in 0..2 {
        let pass = send(&mut breaker, Class::Verify, 9_000);
        assert_eq!(breaker.ended(pass, true, &LIMITS, 9_000), None);
    }
    assert_eq!(breaker.heard(10), None);
    let pass = send(&mut breaker, Class::Verify, 10_000);
    assert_eq!(
        breaker.ended(pass, true, &LIMITS, 10_000),
        Some(Change::Opened),
        "the third in a row"
    );
}

#[test]
fn what_was_sent_before_does_not_fail_the_probe() {
    let mut breaker = Breaker::default();
    let before = send(&mut breaker, Class::Verify, 0);
    for _ in 0..3 {
        let pass = send(&mut breaker, Class::Verify, 0);
        breaker.ended(pass, true, &LIMITS, 0);
    }
    let probe = send(&mut breaker, Class::Verify, 10_000);
    assert_eq!(breaker.ended(before, true, &LIMITS, 10_000), None);
    assert_eq!(breaker.ended(probe, false, &LIMITS, 10_000), Some(Change::Closed));
}

#[test]
fn a_clock_that_was_set_back_closes_nothing_for_ever() {
    let breaker = open(50_000);
    assert_eq!(breaker.admit(Class::Verify, &LIMITS, 50_000), Err(Held::Open(Some(10_000))));
    assert!(breaker.admit(Class::Verify, &LIMITS, 49_999).is_ok());
}

#[test]
fn without_a_number_of_failures_it_never_opens() {
    let limits = Limits { failures: 0, ..LIMITS };
    let mut breaker = Breaker::default();
    for now_ms in 0..1000 {
        let pass = breaker.admit(Class::Verify, &limits, now_ms).unwrap();
        breaker.sent(pass);
        assert_eq!(breaker.ended(pass, true, &limits, now_ms), None);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ask(Class),
    End {
        which: usize,
        failed: bool,
    },
    /// So many seconds ago.
    Heard(u64),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => prop_oneof![Just(Class::Verify), Just(Class::Settle), Just(Class::Owed)].prop_map(Event::Ask),
        5 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, failed)| Event::End { which, failed }),
        1 => (0_u64..30).prop_map(Event::Heard),
        2 => (0_u64..12_000).prop_map(Event::Wait),
    ]
}

/// All that has happened, from which everything else follows.
#[derive(Default)]
struct Model {
    flying: Vec<Flying>,
    /// Failures since the last success, while calls go out.
    in_a_row: usize,
    /// When it opened last, unless it has closed since.
    opened_at: Option<u64>,
    /// How often it has opened: a probe is one of its period.
    periods: usize,
}

struct Flying {
    pass: Pass,
    probes: Option<usize>,
}

impl Model {
    /// Whether a call may go out, and whether it is the probe.
    fn admits(&self, class: Class, limits: &Limits, now_ms: u64) -> Option<bool> {
        let probing = self.flying.iter().any(|flying| flying.probes == Some(self.periods));
        let probe = match self.opened_at {
            Some(_) if class == Class::Owed => false,
            Some(at) if probing || now_ms - at < limits.open_ms => return None,
            Some(_) => true,
            None => false,
        };
        let reserve = usize::try_from((limits.in_flight / 8).max(1)).unwrap();
        let bound = usize::try_from(limits.in_flight).unwrap();
        let fits = match class {
            Class::Verify => self.flying.len() < bound.saturating_sub(reserve).max(1),
            Class::Settle => self.flying.len() < bound,
            Class::Owed => true,
        };
        fits.then_some(probe)
    }

    fn opens(&mut self, now_ms: u64) {
        self.opened_at = Some(now_ms);
        self.periods += 1;
    }

    fn closes(&mut self) -> bool {
        self.in_a_row = 0;
        self.opened_at.take().is_some()
    }
}

proptest! {
    #[test]
    fn any_history(
        in_flight in 1_u32..20, failures in 0_u32..5, open_ms in 1_000_u64..20_000, events in prop::collection::vec(event(), 0..300),
    ) {
        let limits = Limits { in_flight, failures, open_ms };
        let (mut breaker, mut model, mut now_ms) = (Breaker::default(), Model::default(), 1_000_000);
        for event in events {
            match event {
                Event::Ask(class) => {
                    let (expected, found) = (model.admits(class, &limits, now_ms), breaker.admit(class, &limits, now_ms));
                    prop_assert_eq!(expected, found.ok().map(|pass| pass.probe.is_some()), "{:?} {:?}", class, found);
                    if let Err(Held::Open(Some(left))) = found {
                        prop_assert_eq!(Some(now_ms + left), model.opened_at.map(|at| at + open_ms));
                    }
                    if let Ok(pass) = found {
                        breaker.sent(pass);
                        let probes = pass.probe.map(|_| model.periods);
                        model.flying.push(Flying { pass, probes });
                    }
                }
                Event::End { .. } if model.flying.is_empty() => {}
                Event::End { which, failed } => {
                    let ended = model.flying.swap_remove(which % model.flying.len());
                    let change = breaker.ended(ended.pass, failed, &limits, now_ms);
                    let expected = match model.opened_at {
                        _ if !failed => model.closes().then_some(Change::Closed),
                        None => {
                            model.in_a_row += 1;
                            let enough = failures > 0 && model.in_a_row >= usize::try_from(failures).unwrap();
                            enough.then_some(Change::Opened)
                        }
                        Some(_) => (ended.probes == Some(model.periods)).then_some(Change::Reopened),
                    };
                    if matches!(expected, Some(Change::Opened | Change::Reopened)) {
                        model.opens(now_ms);
                    }
                    prop_assert_eq!(change, expected);
                }
                Event::Heard(ago) => {
                    let at = now_ms / 1000 - ago;
                    let closes = model.opened_at.is_some_and(|opened_ms| at * 1000 > opened_ms) && model.closes();
                    prop_assert_eq!(breaker.heard(at), closes.then_some(Change::Closed));
                }
                Event::Wait(ms) => now_ms += ms,
            }
            prop_assert_eq!(usize::try_from(breaker.in_flight).unwrap(), model.flying.len());
        }
        // However it was: when nothing is in flight any more, somebody gets out, if not now then when it has been open long enough.
        while let Some(ended) = model.flying.pop() {
            breaker.ended(ended.pass, true, &limits, now_ms);
        }
        prop_assert!(breaker.admit(Class::Verify, &limits, now_ms + open_ms).is_ok());
    }
}
