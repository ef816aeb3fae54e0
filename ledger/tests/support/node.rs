//! A node of an EVM network that knows what it is told.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Transactions and how much each moved to the seller; nonces that are used, and by which of them.
pub struct Chain {
    pub transfers: Vec<(String, u64)>,
    pub used: Vec<(String, String)>,
}

/// Starts it; gives back where it is.
pub async fn node(chain: Chain) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let chain = Arc::new(chain);
    let answer = move |Json(asked): Json<Value>| async move { Json(json!({"jsonrpc": "2.0", "id": 1, "result": chain.said(&asked)})) };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", post(answer))).await.unwrap() });
    format!("http://{address}")
}

impl Chain {
    fn said(&self, asked: &Value) -> Value {
        let params = &asked["params"];
        match asked["method"].as_str().unwrap() {
            "eth_blockNumber" => json!("0x10"),
            "eth_call" => {
                let data = params[0]["data"].as_str().unwrap();
                let used = self.used.iter().any(|(nonce, _)| data.ends_with(nonce.trim_start_matches("0x")));
                json!(format!("0x{:064x}", u8::from(used)))
            }
            // Of its nonce, or of all that came in.
            "eth_getLogs" => match params[0]["topics"][2].as_str().filter(|_| !params[0]["topics"][1].is_null()) {
                Some(nonce) => {
                    let by = self.used.iter().filter(|(used, _)| used == nonce);
                    by.map(|(_, transaction)| json!({"transactionHash": transaction})).collect()
                }
                None => {
                    let moved = self.transfers.iter();
                    moved
                        .map(|(transaction, amount)| json!({"transactionHash": transaction, "data": format!("0x{amount:064x}")}))
                        .collect()
                }
            },
            "eth_getTransactionReceipt" => Value::Null,
            other => panic!("{other}"),
        }
    }
}
