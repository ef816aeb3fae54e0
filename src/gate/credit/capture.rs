//! The end of a reservation: told to the ledger until it is known to have heard.

use crate::gate::effects::{Call, CalloutReply};
use crate::gate::env::{Env, Note};
use crate::replay::Opened;
use serde_json::Value;

/// How soon it is told again.
const FIRST_RETRY_MS: u64 = 500;

/// The longest time between two tries.
const LONGEST_RETRY_MS: u64 = 30_000;

/// After so many it is given up: some ten minutes. The ledger lets the reservation lapse then.
const TRIES: u32 = 26;

/// After so many it is, if nothing is due: some fifteen seconds. Clients can cause any number of these while the ledger fails, and it
/// gives back by itself what it hears nothing of.
const TRIES_OF_A_RELEASE: u32 = 6;

/// How often what the ledger does not hear is told again.
#[derive(Clone, Copy)]
pub(in crate::gate) enum Again {
    /// It is told anew before long.
    Never,
    /// The ledger finds it out by itself in the end.
    AWhile,
    /// As long as what is due.
    Long,
}

/// What is due of a reservation.
#[derive(Debug)]
pub struct Capture {
    call: Call,
    /// In millionths of a dollar; 0 gives all of it back.
    due: u64,
    tries: u32,
    /// How often it is told at most.
    most: u32,
    /// What is open of it, where nothing may have been reserved.
    trusted: Option<Opened>,
    /// Whether it is of a reservation; else of a claim that the replicas share, and nothing is counted.
    of_credit: bool,
}

impl Capture {
    pub(super) fn new(call: Call, due: u64, trusted: Option<Opened>) -> Self {
        Self {
            call,
            due,
            tries: 0,
            most: if due == 0 { TRIES_OF_A_RELEASE } else { TRIES },
            trusted,
            of_credit: true,
        }
    }

    /// What the ledger has to hear of a claim.
    ///
    /// `again`: how often it is told at most; nobody but this request knows it.
    pub(in crate::gate) fn report(call: Call, again: Again) -> Self {
        Self {
            of_credit: false,
            most: match again {
                Again::Never => 1,
                Again::AWhile => TRIES_OF_A_RELEASE,
                Again::Long => TRIES,
            },
            ..Self::new(call, 0, None)
        }
    }

    /// The call to be sent.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// What is due, in millionths of a dollar.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// The ledger answered, or the call failed. Gives it back if it is to be sent again, and after how many milliseconds.
    pub fn answered(mut self, reply: &CalloutReply<'_>, env: &mut Env<'_>) -> Option<(Self, u64)> {
        let status = match reply {
            CalloutReply::Answered { status, .. } => *status,
            CalloutReply::NotSent | CalloutReply::Lost => 0,
        };
        // Else it stays open for a while: who has no such key, or no money, has had it for nothing, and nobody has any number of those.
        if status == 200
            && charged(reply) >= self.due
            && let Some(opened) = self.trusted.take()
        {
            let _ = env.exposure().close(env.store, opened, env.now);
        }
        let outcome = match status {
            200 if self.due > 0 => {
                env.notes.event(Note::Spent(self.due));
                "captured"
            }
            200 => "released",
            // It lapsed, or was never made.
            404 | 409 => "lapsed",
            _ => {
                self.tries = self.tries.saturating_add(1);
                if self.tries < self.most {
                    let ms = FIRST_RETRY_MS.checked_shl(self.tries.saturating_sub(1)).unwrap_or(u64::MAX);
                    return Some((self, ms.min(LONGEST_RETRY_MS)));
                }
                if self.due == 0 {
                    "unreleased"
                } else {
                    env.notes.warnings.push(format!(
                        "the ledger could not be told that {} millionths of a dollar are due",
                        self.due
                    ));
                    "lost"
                }
            }
        };
        if self.of_credit {
            env.notes.event(Note::Captured(outcome));
        } else if outcome == "unreleased" {
            let warning = "the ledger could not be told how a request has ended: its payment stays in use until the lease ends";
            env.notes.warnings.push(warning.into());
        }
        None
    }
}

/// How much the ledger says that it has charged, in millionths of a dollar.
fn charged(reply: &CalloutReply<'_>) -> u64 {
    let CalloutReply::Answered { body, .. } = reply else { return 0 };
    let said = serde_json::from_slice::<Value>(body).ok();
    said.and_then(|said| said.get("captured")?.as_str()?.parse().ok()).unwrap_or(0)
}
