//! Compares what the ledger knows of settlements with what the chain does: transfers to the accounts that are paid, and used nonces.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use x402_envoy::evm::{Address, keccak256};
use x402_envoy::pricing::PayTo;
use x402_envoy::x402::Network;

use crate::payments::books::{State, Topup};
use crate::payments::cipher::Cipher;
use crate::payments::offers::{Offers, Priced, dollars};
use crate::store::{Intent, Stage, Store, StoreError};

/// How many rows are read at a time.
const PAGE: i64 = 500;

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// See there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node did not answer as nodes do.
    #[error("{url}: {method}: {why}")]
    Node {
        /// Which.
        url: String,
        /// What it was asked.
        method: &'static str,
        /// What is wrong with its answer.
        why: String,
    },
    /// Nothing is sold on the network.
    #[error("nothing is sold on {0}: accept of ledger.yaml has no EVM token there")]
    Network(String),
}

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Settlements of the ledger that were looked for.
    pub known: usize,
    /// Transactions of the chain that were looked at.
    pub moved: usize,
    /// One sentence each; empty if nothing differs.
    pub differs: Vec<String>,
}

/// A node of an EVM network.
pub struct Node {
    /// JSON-RPC over HTTP.
    pub url: String,
    http: reqwest::Client,
}

impl Node {
    /// Nobody is called yet.
    pub fn new(url: &str, http: reqwest::Client) -> Self {
        Self { url: url.to_owned(), http }
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, ReconcileError> {
        let wrong = |why: String| ReconcileError::Node {
            url: self.url.clone(),
            method,
            why,
        };
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self
            .http
            .post(&self.url)
            .json(&body)
            .send()
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let mut answer: Value = answer.json().await.map_err(|error| wrong(error.to_string()))?;
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => Err(wrong(
                answer.get("error").map_or_else(|| "no result".to_owned(), ToString::to_string),
            )),
        }
    }

    /// The number of the latest block.
    async fn latest(&self) -> Result<u64, ReconcileError> {
        let text = self.ask("eth_blockNumber", json!([])).await?;
        let number = text
            .as_str()
            .and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok());
        number.ok_or_else(|| ReconcileError::Node {
            url: self.url.clone(),
            method: "eth_blockNumber",
            why: "no number".to_owned(),
        })
    }
}

fn topic(event: &str) -> String {
    format!("0x{}", hex::encode(keccak256(event.as_bytes())))
}

/// An address as logs have it.
fn word(address: &str) -> String {
    format!("0x{:0>64}", address.trim_start_matches("0x").to_ascii_lowercase())
}

/// So much in a word; `None` for more than anybody has.
fn amount(word: &str) -> Option<u128> {
    let digits = word.strip_prefix("0x")?.trim_start_matches('0');
    u128::from_str_radix(if digits.is_empty() { "0" } else { digits }, 16).ok()
}

/// Transactions of a network that moved tokens to the accounts that are paid, and how much each.
async fn transfers(node: &Node, offers: &Offers, network: &Network, from_block: u64) -> Result<BTreeMap<String, u128>, ReconcileError> {
    let mut sold: BTreeSet<(String, String)> = BTreeSet::new();
    for Priced { offer, .. } in offers.all().into_iter().filter(|priced| priced.offer.asset.network == *network) {
        if let PayTo::Evm(pay_to) = offer.pay_to {
            sold.insert((offer.asset.address.to_string(), hex::encode(pay_to.as_bytes())));
        }
    }
    if sold.is_empty() {
        return Err(ReconcileError::Network(network.as_str().to_owned()));
    }
    let mut moved = BTreeMap::new();
    for (token, pay_to) in sold {
        let filter = json!([{
            "fromBlock": format!("{from_block:#x}"), "toBlock": "latest", "address": token,
            "topics": [topic("Transfer(address,address,uint256)"), null, word(&pay_to)],
        }]);
        let logs = node.ask("eth_getLogs", filter).await?;
        for log in logs.as_array().into_iter().flatten() {
            let text = |name: &str| log.get(name).and_then(Value::as_str);
            if let (Some(transaction), Some(amount)) = (text("transactionHash"), text("data").and_then(amount)) {
                let sum = moved.entry(transaction.to_ascii_lowercase()).or_insert(0u128);
                *sum = sum.saturating_add(amount);
            }
        }
    }
    Ok(moved)
}

/// Compares one network's settlements of the last so many blocks.
///
/// # Errors
///
/// [`ReconcileError`].
pub async fn reconcile(
    store: &Store,
    offers: &Offers,
    cipher: Option<&Cipher>,
    network: &Network,
    node: &Node,
    blocks: u64,
) -> Result<Report, ReconcileError> {
    let from_block = node.latest().await?.saturating_sub(blocks);
    let mut moved = transfers(node, offers, network, from_block).await?;
    let mut report = Report {
        moved: moved.len(),
        ..Report::default()
    };
    let chain = Chain {
        node,
        cipher,
        network,
        from_block,
    };
    let mut after = String::new();
    loop {
        let page = store.topups_on(network.as_str(), &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
        for topup in &page {
            report.known = report.known.saturating_add(1);
            compare_topup(&mut report, &mut moved, &chain, offers, topup).await?;
        }
    }
    let mut after = String::new();
    loop {
        let page = store.intents(&after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.claim);
        // A top-up's is looked at as the top-up.
        for intent in page.iter().filter(|intent| same(&intent.network, network) && !intent.is_topups()) {
            report.known = report.known.saturating_add(1);
            compare(&mut report, &mut moved, &chain, intent).await?;
        }
    }
    for (transaction, amount) in moved {
        report.differs.push(format!(
            "transaction {transaction}: {amount} came in, and the ledger knows nothing of it"
        ));
    }
    Ok(report)
}

fn same(text: &str, network: &Network) -> bool {
    Network::parse(text)
        .or_else(|_| Network::parse_v1(text))
        .is_ok_and(|found| found == *network)
}

/// What is asked about payments that are open.
struct Chain<'a> {
    node: &'a Node,
    cipher: Option<&'a Cipher>,
    network: &'a Network,
    from_block: u64,
}

async fn compare_topup(
    report: &mut Report,
    moved: &mut BTreeMap<String, u128>,
    chain: &Chain<'_>,
    offers: &Offers,
    topup: &Topup,
) -> Result<(), ReconcileError> {
    let name = format!("top-up {}", topup.id);
    if topup.state != State::Settled {
        return open(
            report,
            moved,
            chain,
            &name,
            (&topup.id, topup.payload.as_deref().unwrap_or_default()),
        )
        .await;
    }
    let transaction = topup.transaction.as_deref().unwrap_or_default();
    let Some(amount) = moved.remove(&transaction.to_ascii_lowercase()) else {
        return missing(report, chain.node, &name, transaction).await;
    };
    // In whichever token: prices of what is not for sale any more are not known.
    let prices = offers.of(topup.amount).unwrap_or_default();
    let mut prices = prices
        .iter()
        .filter(|priced| priced.offer.asset.network == *chain.network)
        .peekable();
    if prices.peek().is_some() && !prices.any(|priced| priced.offer.amount.0 == amount) {
        let credited = dollars(topup.amount);
        report.differs.push(format!(
            "{name}: credited with {credited}, and transaction {transaction} moved {amount}"
        ));
    }
    Ok(())
}

async fn compare(
    report: &mut Report,
    moved: &mut BTreeMap<String, u128>,
    chain: &Chain<'_>,
    intent: &Intent,
) -> Result<(), ReconcileError> {
    let name = format!("intent {}", intent.claim);
    match intent.stage {
        Stage::Settled => match moved.remove(&intent.transaction.to_ascii_lowercase()) {
            None => missing(report, chain.node, &name, &intent.transaction).await?,
            Some(amount) if amount.to_string() != intent.amount => report.differs.push(format!(
                "{name}: settled for {}, and transaction {} moved {amount}",
                intent.amount, intent.transaction
            )),
            Some(_) => {}
        },
        Stage::Unknown | Stage::Settling => open(report, moved, chain, &name, (&intent.claim, &intent.payload)).await?,
        Stage::Held | Stage::Failed | Stage::Released => {}
    }
    Ok(())
}

/// A settlement whose outcome the ledger does not know.
async fn open(
    report: &mut Report,
    moved: &mut BTreeMap<String, u128>,
    chain: &Chain<'_>,
    name: &str,
    sealed: (&str, &str),
) -> Result<(), ReconcileError> {
    let why = match used_by(chain, sealed).await? {
        None => "its nonce cannot be asked for: only EIP-3009 has one, and X402_LEDGER_KEY opens the payload".to_owned(),
        Some(Used::Not) => "its nonce is not used".to_owned(),
        Some(Used::By(transaction)) if moved.remove(&transaction).is_some() => format!("transaction {transaction} has paid it"),
        Some(Used::By(transaction)) => format!("transaction {transaction} used its nonce without paying"),
        Some(Used::Somewhere) => "its nonce is used, in a block before those looked at".to_owned(),
    };
    report.differs.push(format!("{name}: its settlement is open, and {why}"));
    Ok(())
}

/// A settlement whose transaction is not among the transfers.
async fn missing(report: &mut Report, node: &Node, name: &str, transaction: &str) -> Result<(), ReconcileError> {
    if !transaction.starts_with("0x") {
        report
            .differs
            .push(format!("{name}: settled without a transaction ({transaction:?})"));
        return Ok(());
    }
    let receipt = node.ask("eth_getTransactionReceipt", json!([transaction])).await?;
    let status = receipt.get("status").and_then(Value::as_str);
    match status {
        // It is older than the blocks looked at.
        Some("0x1") => {}
        Some(_) => report.differs.push(format!("{name}: its transaction {transaction} has failed")),
        None => report.differs.push(format!("{name}: the chain has no transaction {transaction}")),
    }
    Ok(())
}

/// What the chain says of a nonce.
enum Used {
    Not,
    By(String),
    Somewhere,
}

async fn used_by(chain: &Chain<'_>, (id, payload): (&str, &str)) -> Result<Option<Used>, ReconcileError> {
    let body = chain.cipher.and_then(|cipher| cipher.open(id, payload).ok());
    let body: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
    let found = body.as_ref().and_then(|body| {
        let signed = body.get("paymentPayload")?.get("payload")?.get("authorization")?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let token = text(body.get("paymentRequirements")?.get("asset"))?;
        Some((token, text(signed.get("from"))?, text(signed.get("nonce"))?))
    });
    let Some((token, from, nonce)) = found.filter(|(token, from, _)| [token, from].iter().all(|text| text.parse::<Address>().is_ok()))
    else {
        return Ok(None);
    };
    let selector = keccak256(b"authorizationState(address,bytes32)");
    let data = format!(
        "0x{}{}{}",
        hex::encode(selector.get(..4).unwrap_or_default()),
        word(&from).trim_start_matches("0x"),
        nonce.trim_start_matches("0x")
    );
    let state = chain.node.ask("eth_call", json!([{"to": token, "data": data}, "latest"])).await?;
    match state.as_str().and_then(amount) {
        Some(0) => return Ok(Some(Used::Not)),
        Some(_) => {}
        None => return Ok(None),
    }
    let filter = json!([{
        "fromBlock": format!("{:#x}", chain.from_block), "toBlock": "latest", "address": token,
        "topics": [topic("AuthorizationUsed(address,bytes32)"), word(&from), nonce],
    }]);
    let logs = chain.node.ask("eth_getLogs", filter).await?;
    let transaction = logs.pointer("/0/transactionHash").and_then(Value::as_str);
    Ok(Some(
        transaction.map_or(Used::Somewhere, |transaction| Used::By(transaction.to_ascii_lowercase())),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_that_explorers_show() {
        assert_eq!(
            topic("Transfer(address,address,uint256)"),
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
        );
        assert_eq!(
            topic("AuthorizationUsed(address,bytes32)"),
            "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
        );
        assert_eq!(
            word("0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
            "0x000000000000000000000000036cbd53842c5426634e7929541ec2318f3dcf7e"
        );
        assert_eq!(
            [amount("0x"), amount("0x0"), amount("0x00ff"), amount("zz")],
            [Some(0), Some(0), Some(255), None]
        );
    }
}
