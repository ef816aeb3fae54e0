//! The simulator (DESIGN, section 4): a seeded scheduler plays requests against the gate, with several workers on one store, and checks
//! the invariants of DESIGN, section 6, after each step.
//!
//! A failing seed is printed with the command that plays it again: `make sim SEED=n RUNS=n`. The gate and the claims are the real ones;
//! `host` does what `src/host` does, and everything else is simulated: the clock, the chain, facilitators, backends and clients.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)] // tests

mod agenda;
mod backend;
mod bounds;
mod chain;
mod client;
mod facilitator;
mod host;
mod invariants;
mod random;
mod shop;
mod solana;
#[path = "../support/mod.rs"]
mod support;
mod totals;
mod wallet;
mod world;

use std::io::{Write as _, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use invariants::Violation;
use totals::Totals;
use world::World;

/// How many runs there are if nobody says otherwise, of some 700 requests each.
const RUNS: u64 = 150;
/// How many steps of a failed run are shown.
const SHOWN: usize = 80;

/// Plays one run; what did not hold, and what had happened.
fn play(seed: u64, logged: bool) -> (Result<Totals, Violation>, Vec<String>) {
    let world = World::new(seed, logged);
    // A panic of the filter is a violation, too: it would end the VM of a worker.
    let outcome = catch_unwind(AssertUnwindSafe(|| world.play())).map_err(|cause| {
        let panicked = |why: String| Violation { name: "no panic", why };
        match cause.downcast::<Violation>() {
            Ok(violation) => *violation,
            Err(cause) => match cause.downcast::<String>() {
                Ok(text) => panicked(*text),
                Err(cause) => panicked(
                    cause
                        .downcast::<&str>()
                        .map_or_else(|_| "for reasons unknown".into(), |text| text.to_string()),
                ),
            },
        }
    });
    let totals = world.totals.borrow().clone();
    (outcome.map(|()| totals), world.log())
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Plays runs from this seed on, as many at a time as there are processors, until one fails.
fn play_all(first: u64, runs: u64) -> (Totals, Option<(u64, Violation)>) {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None::<(u64, Violation)>);
    let totals = Mutex::new(Totals::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let seed = first.wrapping_add(run);
                    match play(seed, false).0 {
                        Ok(of_run) => totals.lock().unwrap().add(&of_run),
                        Err(violation) => *failed.lock().unwrap() = Some((seed, violation)),
                    }
                }
            });
        }
    });
    (totals.into_inner().unwrap(), failed.into_inner().unwrap())
}

#[test]
fn what_must_hold_holds_whatever_happens() {
    let (seed, runs) = (number("SEED"), number("RUNS"));
    let is_whole = seed.is_none() && runs.is_none();
    let (first, runs) = (seed.unwrap_or(1), runs.unwrap_or(if seed.is_some() { 1 } else { RUNS }));
    let (totals, failed) = play_all(first, runs);
    if let Some((seed, violation)) = failed {
        let (again, log) = play(seed, true);
        let shown = number("STEPS").map_or(SHOWN, |steps| usize::try_from(steps).unwrap());
        for line in &log[log.len().saturating_sub(shown)..] {
            eprintln!("{line}");
        }
        assert_eq!(
            again.err(),
            Some(violation.clone()),
            "the run was another one when it was played again"
        );
        panic!("{}: {}\nPlay it again: make sim SEED={seed} RUNS=1", violation.name, violation.why);
    }
    // Not by `println`, which the test harness keeps to itself where nothing fails.
    writeln!(stdout(), "{runs} runs from seed {first}\n{totals}").unwrap();
    if is_whole {
        assert!(totals.of("requests") >= 100_000, "{} requests", totals.of("requests"));
        assert_eq!(
            totals.gaps(),
            [""; 0],
            "what never happened was not tested, and what happens is to be listed"
        );
    }
}

#[test]
fn a_seed_is_a_run() {
    let (first, log) = play(7, true);
    let (second, again) = play(7, true);
    assert_eq!(first, second);
    assert!(log == again, "the same seed gave two runs");
    assert!(log.len() > 1000);
    assert!(play(8, true).1 != log);
}
