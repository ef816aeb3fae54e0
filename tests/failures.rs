//! What the three published facilitators answered when payments failed, read as DESIGN §5 wants it.
//!
//! The answers are recorded, and beside each what the chain says of the truth (`make record-failures`). What must be read in an answer follows
//! here from that truth, and never from what the answer says: an answer is a refusal only if the money has not moved by it and never will.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)] // tests

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use x402_envoy::x402::facilitator::{Settle, Verify, parse_settle, parse_verify};
use x402_envoy::x402::{Network, Refusal};

const RECORDED: [&str; 3] = [
    include_str!("wire/failures/typescript.json"),
    include_str!("wire/failures/python.json"),
    include_str!("wire/failures/x402-rs.json"),
];

/// Reasons that do not say what is wrong: the facilitator has tried it out, and it did not work, as it does not where it has worked before.
const SAYS_NOT_WHY: [&str; 2] = ["permit2_simulation_failed", "transaction_simulation"];

#[derive(Deserialize)]
struct Recording {
    facilitator: String,
    versions: Map<String, Value>,
    network: String,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    case: String,
    transfer: String,
    call: String,
    #[serde(default)]
    but: String,
    /// By whose doing it fails, if it does.
    at_fault: Fault,
    status: u16,
    body: Value,
    truth: Truth,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Fault {
    Payer,
    Facilitator,
    Nobody,
}

/// What the chain says.
#[derive(Deserialize)]
struct Truth {
    /// The seller had the money before this call.
    moved_before: bool,
    /// The seller had the money when this was answered.
    moved: bool,
    /// The seller had the money when all that had been broadcast by then was mined; for /settle.
    #[serde(default)]
    moved_later: bool,
    /// The nonce was used when this was answered.
    nonce_used: bool,
    /// All transactions of the facilitator for this payment, oldest first, as they were when this was answered.
    transactions: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    hash: String,
    fate: Fate,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Fate {
    Pending,
    Mined,
    Reverted,
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Value::String(text) => text.clone().into_bytes(),
            body => serde_json::to_vec(body).unwrap(),
        }
    }

    fn reason(&self) -> &str {
        ["errorReason", "invalidReason"]
            .iter()
            .find_map(|name| self.body[name].as_str())
            .unwrap_or_default()
    }

    fn says_not_why(&self) -> bool {
        SAYS_NOT_WHY.contains(&self.reason())
    }

    fn fate(&self, hash: &str) -> Option<Fate> {
        let found = self.truth.transactions.iter().find(|transaction| transaction.hash == hash);
        found.map(|transaction| transaction.fate)
    }

    fn is_pending(&self) -> bool {
        self.truth.transactions.iter().any(|transaction| transaction.fate == Fate::Pending)
    }
}

fn recordings() -> Vec<Recording> {
    RECORDED.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// Each answer with the name it goes by in messages, how many transactions there were before it, and the network.
fn answers(call: &str) -> Vec<(String, Answer, usize, Network)> {
    let mut all = Vec::new();
    for recording in recordings() {
        let network = Network::parse(&recording.network).unwrap();
        let mut last = (String::new(), 0);
        for answer in recording.answers {
            let case = format!("{} {} {}", recording.facilitator, answer.transfer, answer.case);
            let before = if last.0 == case { last.1 } else { 0 };
            last = (case.clone(), answer.truth.transactions.len());
            if answer.call == call {
                let name = format!("{case}: {} {}: {}", answer.call, answer.but, answer.body);
                all.push((name, answer, before, network.clone()));
            }
        }
    }
    all
}

/// What is at fault where the payer is, by the name of the case.
fn fault(answer: &Answer) -> Refusal {
    match answer.case.as_str() {
        // So Permit2 reverts for want of balance and of allowance alike.
        "no allowance" if answer.body.to_string().contains("TRANSFER_FROM_FAILED") => Refusal::InsufficientFunds,
        "empty" | "emptied between" | "emptied in flight" => Refusal::InsufficientFunds,
        "expired" => Refusal::ValidBefore,
        "no allowance" => Refusal::Permit2AllowanceRequired,
        case => panic!("{case}: whose fault?"),
    }
}

#[test]
fn all_three_failed_in_every_way() {
    let recordings = recordings();
    let cases = |recording: &Recording| -> BTreeSet<(String, String)> {
        let with_store = |case: &str| case == "not noted";
        let answers = recording.answers.iter().filter(|answer| !with_store(&answer.case));
        answers.map(|answer| (answer.transfer.clone(), answer.case.clone())).collect()
    };
    let first = cases(&recordings[0]);
    assert_eq!(
        first.iter().map(|(transfer, _)| transfer.as_str()).collect::<BTreeSet<_>>().len(),
        3
    );
    for recording in &recordings {
        assert_eq!(cases(recording), first, "{}", recording.facilitator);
        assert!(!recording.versions.is_empty());
        assert!(recording.answers.len() > 120, "{}", recording.facilitator);
    }
}

#[test]
fn nothing_is_refused_that_moves_money() {
    for (name, answer, _, network) in answers("settle") {
        let truth = &answer.truth;
        match parse_settle(answer.status, &answer.bytes(), &network, false) {
            Settle::Settled(settled) => {
                assert!(truth.moved, "{name}");
                assert_eq!(answer.fate(&settled.transaction), Some(Fate::Mined), "{name}");
            }
            Settle::Refused { transaction, .. } => {
                assert!(truth.moved_before || !truth.moved_later, "{name}");
                assert!(!answer.is_pending(), "{name}");
                if let Some(named) = transaction {
                    assert_eq!(answer.fate(&named), Some(Fate::Reverted), "{name}");
                }
            }
            // It is used, or will be by a transaction that waits to be mined and counts already where the facilitator asks.
            Settle::NonceUsed { .. } => assert!(truth.nonce_used || answer.is_pending(), "{name}"),
            Settle::Unknown { .. } => {}
        }
    }
}

#[test]
fn a_broadcast_without_a_receipt_is_unknown() {
    let mut found = BTreeSet::new();
    for (name, answer, before, network) in answers("settle") {
        let sent = &answer.truth.transactions[before..];
        let unclear = sent.iter().any(|transaction| transaction.fate == Fate::Pending)
            || ["the answer to the broadcast was lost", "its node was lost after the broadcast"].contains(&answer.but.as_str());
        if unclear {
            let read = parse_settle(answer.status, &answer.bytes(), &network, false);
            assert!(matches!(read, Settle::Unknown { .. }), "{name}: {read:?}");
            found.insert(answer.case);
        }
    }
    for case in [
        "not mined in time",
        "not mined in time other instance",
        "outbid",
        "not noted",
        "broadcast without answer",
        "node lost after broadcast",
    ] {
        assert!(found.contains(case), "{case}");
    }
}

#[test]
fn a_reverted_transaction_that_is_named_is_a_refusal() {
    let mut found = 0;
    for (name, answer, before, network) in answers("settle") {
        let sent = &answer.truth.transactions[before..];
        let told = |transaction: &&Transaction| answer.body.to_string().contains(&transaction.hash);
        let Some(reverted) = sent.iter().filter(|sent| sent.fate == Fate::Reverted).find(told) else {
            continue;
        };
        let read = parse_settle(answer.status, &answer.bytes(), &network, false);
        let Settle::Refused { transaction, refusal, .. } = read else {
            panic!("{name}: {read:?}")
        };
        assert_eq!(
            (transaction.as_deref(), refusal),
            (Some(reverted.hash.as_str()), Refusal::FacilitatorRefused),
            "{name}"
        );
        found += 1;
    }
    assert!(found > 30, "{found}");
}

#[test]
fn a_used_nonce_is_known_for_what_it_is() {
    let mut found = BTreeSet::new();
    for (name, answer, before, network) in answers("settle") {
        let sends = answer.truth.transactions.len() > before;
        if !answer.truth.nonce_used
            || sends
            || answer.body["success"] == true
            || !answer.body["transaction"].as_str().unwrap_or_default().is_empty()
        {
            continue;
        }
        let read = parse_settle(answer.status, &answer.bytes(), &network, false);
        if answer.says_not_why() {
            assert!(matches!(read, Settle::Unknown { .. }), "{name}: {read:?}");
        } else {
            assert!(matches!(read, Settle::NonceUsed { .. }), "{name}: {read:?}");
            found.insert((name.split(' ').next().unwrap().to_owned(), answer.transfer));
        }
    }
    // The Python one sends another transaction instead, which reverts; the TypeScript one tries `upto` out first, and does not say why not.
    let expected = [
        ("typescript", "eip3009"),
        ("typescript", "permit2"),
        ("x402-rs", "eip3009"),
        ("x402-rs", "permit2"),
        ("x402-rs", "upto"),
    ];
    let expected = expected.map(|(facilitator, transfer)| (facilitator.to_owned(), transfer.to_owned()));
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn the_payers_fault_is_a_refusal_and_nobody_elses_is() {
    for (name, answer, before, network) in answers("settle") {
        let sends = answer.truth.transactions.len() > before;
        if answer.truth.nonce_used || answer.is_pending() || sends {
            continue;
        }
        let read = parse_settle(answer.status, &answer.bytes(), &network, false);
        match answer.at_fault {
            Fault::Payer if answer.says_not_why() => assert!(matches!(read, Settle::Unknown { .. }), "{name}: {read:?}"),
            Fault::Payer => {
                let Settle::Refused { refusal, .. } = read else {
                    panic!("{name}: {read:?}")
                };
                assert_eq!(refusal, fault(&answer), "{name}");
            }
            Fault::Facilitator if takes_its_node_for_the_signature(&answer) => {}
            Fault::Facilitator => assert!(matches!(read, Settle::Unknown { .. }), "{name}: {read:?}"),
            Fault::Nobody => panic!("{name}: nothing happened"),
        }
    }
}

#[test]
fn verdicts_are_the_payers_fault_or_none() {
    for (name, answer, ..) in answers("verify") {
        let read = parse_verify(answer.status, &answer.bytes());
        match answer.at_fault {
            // It looks neither for the nonce nor for what would become of the transaction: its /settle finds out.
            Fault::Payer if name.starts_with("python permit2 burnt") => assert!(matches!(read, Verify::Valid { .. }), "{name}: {read:?}"),
            Fault::Payer => {
                let Verify::Refused { refusal, .. } = read else {
                    panic!("{name}: {read:?}")
                };
                let says_not_why = answer.says_not_why() || answer.reason() == "invalid_upto_evm_transaction_failed";
                let wanted = match (says_not_why, answer.truth.nonce_used) {
                    (true, _) => Refusal::FacilitatorRefused,
                    (false, true) => Refusal::NonceAlreadyUsed,
                    (false, false) => fault(&answer),
                };
                assert_eq!(refusal, wanted, "{name}");
            }
            // It notices that it has no money for gas when it settles.
            Fault::Facilitator if answer.case == "no gas" => assert!(matches!(read, Verify::Valid { .. }), "{name}: {read:?}"),
            Fault::Facilitator if takes_its_node_for_the_signature(&answer) => {}
            Fault::Facilitator => assert!(matches!(read, Verify::Unusable { .. }), "{name}: {read:?}"),
            Fault::Nobody => assert!(matches!(read, Verify::Valid { .. }), "{name}: {read:?}"),
        }
    }
}

/// The TypeScript and the Python facilitator call a signature invalid that they could not check because their node was out of reach: that
/// cannot be told from a signature that is invalid. No money moves by it.
fn takes_its_node_for_the_signature(answer: &Answer) -> bool {
    answer.case == "chain out of reach" && ["invalid_exact_evm_signature", "invalid_permit2_signature"].contains(&answer.reason())
}
