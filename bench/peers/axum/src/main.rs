//! `merchant PORT BACKEND FACILITATOR`: sells GET /v1/report, which the backend on a port of this machine answers.
//!
//! One thread, as one Envoy worker has; settles after the backend's answer, as the filter does.

use alloy_primitives::address;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use x402_axum::X402Middleware;
use x402_chain_eip155::{KnownNetworkEip155, V2Eip155Exact};
use x402_types::networks::USDC;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: merchant PORT BACKEND FACILITATOR");
    let (port, backend, facilitator) = (next(), next(), next());
    let x402 =
        X402Middleware::new(&format!("http://127.0.0.1:{facilitator}")).with_base_url("https://api.example.com".parse().expect("a URL"));
    let price = V2Eip155Exact::price_tag(
        address!("0x209693Bc6afc0C5328bA36FaF03C514EF312287C"),
        USDC::base_sepolia().parse("0.01").expect("an amount"),
    );
    let client = reqwest::Client::new();
    let url = format!("http://127.0.0.1:{backend}/v1/report");
    let answer = move || {
        let asked = client.get(&url).send();
        async move { pass_on(asked.await).await }
    };
    let app = Router::new().route(
        "/v1/report",
        get(answer).layer(x402.with_price_tag(price).with_description("A report".into())),
    );
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
        .await
        .expect("the port is free");
    axum::serve(listener, app).await.expect("serves");
}

async fn pass_on(answer: reqwest::Result<reqwest::Response>) -> Response {
    let Ok(answer) = answer else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = answer.status();
    let Ok(bytes) = answer.bytes().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response()
}
