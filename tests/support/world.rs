//! One store, one configuration and one clock for gates, and the events that they see.
#![allow(clippy::panic)] // tests

use super::{NOW, Payer, Terms, base64, unbase64, v2};
use serde_json::{Value, json};
use x402_envoy::config::{Config, parse};
use x402_envoy::gate::{
    Call, CalloutReply, CalloutToken, Edits, Env, Gate, Note, Notes, Released, Request, RequestEffect, Response, ResponseEffect,
    Settlement, VerifiedEffect, open,
};
use x402_envoy::pricing::{Former, Place};
use x402_envoy::reader::BodyFacts;
use x402_envoy::replay::{Claims, MemoryStore, UnixSeconds};
use x402_envoy::supported::{Table, share};
use x402_envoy::x402::Answer;
use x402_envoy::x402::facilitator::Supported;

pub const TOKEN: CalloutToken = CalloutToken(7);
pub const VALID: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body: br#"{"isValid":true}"#,
};
pub const SETTLED: CalloutReply<'static> = CalloutReply::Answered {
    status: 200,
    body:
        br#"{"success":true,"transaction":"0x34f0300cdfa392f8a5d29aee327041ab9c55a237a19cee133d35589e0aa1f0ba","network":"eip155:84532"}"#,
};

pub fn configuration() -> Value {
    json!({
        "pay_to": {"eip155": super::SELLER.to_string()},
        "accept": [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}],
        "facilitators": [{"cluster": "facilitator", "url": "http://127.0.0.1:4022"}],
        "settlement": {"retries": 0, "accept_used_nonce_up_to": "0"},
        "unmatched": "pass",
        "routes": [
            {"name": "health", "match": {"path": "/healthz"}, "price": "free"},
            {"name": "model", "match": {"path": "/model", "model": "gpt-4o*"}, "price": {"per_request": "$0.001"}},
            {"name": "paid", "match": {"path": "/paid"}, "price": {"per_request": "$0.001"}},
        ],
        "access": {"dummy_api_keys": ["x402"], "api_keys": {"header": "authorization", "then": "backend"},
                   "bypass": [{"header": "x-internal-caller", "value": "hunter2hunter2"}]},
    })
}

/// One store, one configuration, one clock.
pub struct World {
    pub config: Config,
    pub store: MemoryStore,
    pub claims: Claims,
    pub former: Option<Former>,
    pub table: Table,
    pub now: u64,
    pub notes: Notes,
    pub payers: x402_envoy::evm::Payers,
    pub leases: std::cell::RefCell<x402_envoy::gate::Leases>,
    pub challenges: std::cell::RefCell<x402_envoy::gate::Challenges>,
}

impl World {
    pub fn new() -> Self {
        Self::with(&configuration())
    }

    pub fn with(configuration: &Value) -> Self {
        let config = parse(configuration.to_string().as_bytes()).unwrap();
        let claims = Claims::new(config.max_claims);
        Self {
            config,
            store: MemoryStore::new(),
            claims,
            former: None,
            table: Table::default(),
            now: NOW,
            payers: x402_envoy::evm::Payers::default(),
            leases: std::cell::RefCell::default(),
            challenges: std::cell::RefCell::default(),
            notes: Notes::default(),
        }
    }

    pub fn env<T>(&mut self, event: impl FnOnce(&mut Env<'_>) -> T) -> T {
        event(&mut Env {
            now: UnixSeconds(self.now),
            now_ms: self.now * 1000,
            config: &self.config,
            former: self.former.as_ref(),
            supported: &self.table,
            store: &self.store,
            claims: &self.claims,
            secret: &[9; 16],
            mark: &x402_envoy::gate::mark(&[9; 16]),
            payers: &self.payers,
            leases: &self.leases,
            challenges: &self.challenges,
            random: || [7; 16],
            notes: &mut self.notes,
        })
    }

    pub fn request(&mut self, path: &str, headers: &[(&str, &[u8])], body: Option<&BodyFacts>) -> (Gate, RequestEffect) {
        self.request_of("GET", path, headers, body, body.is_none())
    }

    pub fn request_of(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &[u8])],
        body: Option<&BodyFacts>,
        ended: bool,
    ) -> (Gate, RequestEffect) {
        let headers: Vec<(&[u8], &[u8])> = headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
        let place = Place {
            method: method.as_bytes(),
            authority: b"api.example.com",
            path: path.as_bytes(),
            envoy_route: None,
            is_cors_preflight: false,
        };
        self.env(|env| {
            open(
                &Request {
                    place,
                    scheme: b"https",
                    headers: &headers,
                    body,
                    ended,
                },
                env,
            )
        })
    }

    /// The answer that a request to /paid gets at once.
    pub fn refused(&mut self, headers: &[(&str, &[u8])]) -> Answer {
        match self.request("/paid", headers, None) {
            (Gate::Answered, RequestEffect::Answer(answer)) => std::rc::Rc::unwrap_or_clone(answer),
            _ => panic!("the request was not answered"),
        }
    }

    /// A request to /paid that waits for /verify, and the call.
    pub fn verifying(&mut self, headers: &[(&str, &[u8])]) -> (Gate, Call) {
        match self.request("/paid", headers, None) {
            (Gate::Done, RequestEffect::Verify(dispatch)) => {
                let (call, waiting) = dispatch.split();
                (waiting.sent(TOKEN).0, call)
            }
            (_, RequestEffect::Answer(answer)) => panic!("answered {}", String::from_utf8_lossy(&answer.body)),
            _ => panic!("the request was let through"),
        }
    }

    /// A verified request, and what the backend sees of it.
    pub fn forwarded(&mut self, headers: &[(&str, &[u8])]) -> (Gate, Edits) {
        let (mut gate, _) = self.verifying(headers);
        match self.env(|env| gate.on_verified(TOKEN, &VALID, env)) {
            Some(VerifiedEffect::Request(RequestEffect::Forward(edits))) => (gate, edits),
            _ => panic!("not forwarded"),
        }
    }

    /// A settlement that waits to be sent, the backend having answered 200.
    pub fn settling(&mut self, headers: &[(&str, &[u8])]) -> Settlement {
        let (mut gate, _) = self.forwarded(headers);
        match self.respond(&mut gate, 200, true) {
            ResponseEffect::Settle(settlement) => *settlement,
            _ => panic!("not settling"),
        }
    }

    pub fn respond(&mut self, gate: &mut Gate, status: u16, from_backend: bool) -> ResponseEffect {
        let headers: [(&[u8], &[u8]); 3] = [
            (b"cache-control", b"public, max-age=60"),
            (b"payment-response", b"forged"),
            (b"settlement-overrides", b"{}"),
        ];
        self.env(|env| {
            gate.on_response(
                &Response {
                    status,
                    from_backend,
                    ended: false,
                    headers: &headers,
                },
                env,
            )
        })
    }

    pub fn settled(&mut self, settlement: Settlement, reply: &CalloutReply<'_>) -> Released {
        self.env(|env| settlement.settled(reply, env))
    }

    pub fn challenge(&mut self) -> Value {
        let answer = self.refused(&[]);
        unbase64(header(&answer, "payment-required").unwrap())
    }

    /// A v2 payment that passes, ready to be sent.
    pub fn payment(&mut self, nonce: u8) -> Vec<u8> {
        let accepted = self.challenge()["accepts"][0].clone();
        base64(&v2(&accepted, Terms::good(nonce).payload(&Payer::new(1))))
    }

    pub fn counted(&self, wanted: &Note) -> usize {
        self.notes.events.iter().filter(|event| *event == wanted).count()
    }
}

pub fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(sent, _)| *sent == name).map(|(_, value)| &**value)
}

pub fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// A world with these settings that sells on Solana, a payment that nobody here can check, and who pays it.
pub fn solana(more: &Value) -> (World, Vec<u8>, String) {
    let vectors: Value = serde_json::from_str(include_str!("../wire/solana.json")).unwrap();
    let network = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
    let mut configuration = configuration();
    configuration["pay_to"] = json!({"solana": vectors["seller"]});
    configuration["accept"] = json!([{"scheme": "exact", "network": network, "asset": "USDC", "max_timeout": "60s"}]);
    configuration["settlement"] = json!({});
    for (name, value) in more.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    let mut world = World::with(&configuration);
    let said = json!({"kinds": [{"x402Version": 2, "scheme": "exact", "network": network, "extra": {"feePayer": vectors["fee_payer"]}}]});
    let said = Supported::parse(said.to_string().as_bytes()).unwrap();
    share(&world.store, &world.config, 0, Some(said), UnixSeconds(world.now));
    world.table.refresh(&world.store, &world.config);
    let accepted = world.challenge()["accepts"][0].clone();
    let payment = v2(&accepted, json!({"transaction": vectors["vectors"][0]["transaction"]}));
    (world, base64(&payment), vectors["payer"].as_str().unwrap().to_owned())
}
