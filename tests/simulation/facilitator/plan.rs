//! What a facilitator will do about a call, and how often it does that.

/// What the facilitator will do about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// What is right.
    Honest,
    /// What is right, and the reply is not to be understood.
    Garbled,
    /// What is right, and the reply is lost.
    Mute,
    /// What is right, when Envoy does not wait for it any more.
    Late,
    /// A transaction is sent, and nobody waits for it.
    Pending,
    /// A transaction is sent, and reverted for reasons of its own.
    Reverts,
    /// It settles, and names no transaction, or another network.
    Odd,
    /// It says yes to everything, and does nothing.
    Flatters,
    /// It says no to everything, whatever it does.
    Slanders,
    /// It fails before it does anything.
    Fails,
    /// It cannot check a signature, calls it invalid, and does nothing.
    Doubts,
    /// The connection is reset before it does anything.
    Resets,
    /// It cannot be reached.
    Unreachable,
}

pub const VERIFYING: [(u64, Plan); 9] = [
    (780, Plan::Honest),
    (20, Plan::Doubts),
    (40, Plan::Garbled),
    (30, Plan::Mute),
    (25, Plan::Fails),
    (30, Plan::Resets),
    (35, Plan::Unreachable),
    (20, Plan::Flatters),
    (20, Plan::Slanders),
];

pub const SETTLING: [(u64, Plan); 13] = [
    (600, Plan::Honest),
    (20, Plan::Doubts),
    (40, Plan::Garbled),
    (70, Plan::Mute),
    (30, Plan::Late),
    (80, Plan::Pending),
    (20, Plan::Reverts),
    (20, Plan::Odd),
    (10, Plan::Flatters),
    (10, Plan::Slanders),
    (25, Plan::Fails),
    (40, Plan::Resets),
    (35, Plan::Unreachable),
];

/// What is counted.
pub fn counted(settles: bool, plan: Plan) -> &'static str {
    match (settles, plan) {
        (false, Plan::Honest | Plan::Late | Plan::Pending | Plan::Reverts | Plan::Odd) => "verify: answered",
        (false, Plan::Garbled) => "verify: garbage",
        (false, Plan::Mute) => "verify: reply lost",
        (false, Plan::Flatters) => "verify: good though it is bad",
        (false, Plan::Slanders) => "verify: bad though it is good",
        (false, Plan::Doubts) => "verify: a good signature called invalid",
        (true, Plan::Doubts) => "settle: a good signature called invalid",
        (false, Plan::Fails) => "verify: failed",
        (false, Plan::Resets) => "verify: reset",
        (false, Plan::Unreachable) => "verify: unreachable",
        (true, Plan::Honest) => "settle: answered",
        (true, Plan::Garbled) => "settle: garbage after acting",
        (true, Plan::Mute) => "settle: reply lost after acting",
        (true, Plan::Late) => "settle: acted after the timeout",
        (true, Plan::Pending) => "settle: pending",
        (true, Plan::Reverts) => "settle: reverted",
        (true, Plan::Odd) => "settle: success that names nothing",
        (true, Plan::Flatters) => "settle: lied that it settled",
        (true, Plan::Slanders) => "settle: lied that it refused",
        (true, Plan::Fails) => "settle: failed before acting",
        (true, Plan::Resets) => "settle: reset before acting",
        (true, Plan::Unreachable) => "settle: unreachable",
    }
}
