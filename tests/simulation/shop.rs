//! What is sold: the configuration, and what the simulator knows of it by itself.

use serde_json::{Value, json};
use x402_envoy::config::{Config, parse};
use x402_envoy::pricing::{Place, RequestFacts};
use x402_envoy::reader::{self, BodyFacts};

use super::random::Random;
use super::support::SELLER;
use super::wallet::{FEE_PAYER, SOLANA_SELLER, SPENDER, TUSD};

/// Requests are for this host.
pub const HOST: &str = "api.example.com";
pub const SOLANA: &str = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1";
/// Who settles `upto` for each facilitator.
pub const SETTLERS: [&str; 2] = [
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
];
/// What clients and backends say in headers that only the filter may set.
pub const FORGED: &str = "forged";
/// Part of a prompt, and of an answer: found nowhere but there.
pub const PROMPT: &str = "my-secret-question";
pub const COMPLETION: &str = "my-secret-answer";
/// How far clocks may differ, in seconds: `pre_check.clock_skew`.
pub const SKEW: u64 = 5;
/// How long payments are to be valid, in seconds: `max_timeout`.
pub const VALIDITY: u64 = 300;
/// 1000 bytes of input and 100 of overhead at 2.5, and 100 tokens of output at 10.
const CHAT_QUOTE: u64 = 3750;

/// How a payment moves the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Eip3009,
    Permit2,
    /// Permit2 with another token, whose payments share their nonces with those of all tokens.
    Token,
    Solana,
    /// `upto` with Permit2.
    Upto,
    /// `upto` with EIP-2612, LibertAI's.
    Permit,
}

impl Way {
    /// Whether less than what was signed may be settled.
    pub fn is_upto(self) -> bool {
        matches!(self, Self::Upto | Self::Permit)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Free,
    Authorization,
    Upfront,
    Metered,
}

/// When the backend may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Before,
    Overlap,
    Local,
}

/// What is asked for on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asks {
    #[default]
    One,
    /// Something else.
    Other,
    /// With a body that nobody has read.
    Unread,
}

/// A route, as the simulator knows it.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub name: &'static str,
    pub path: &'static str,
    pub flow: Flow,
    pub start: Start,
    /// The quote of each way to pay, in the smallest unit, in the first price list.
    quote: u64,
    pub ways: &'static [Way],
    /// Whether it is sold by the token.
    pub tokens: bool,
    /// How many requests a payment buys.
    pub requests: u32,
}

impl Route {
    /// What it costs in one of the two price lists.
    pub fn quote(&self, list: usize) -> u64 {
        match self.flow {
            Flow::Authorization | Flow::Upfront if list == 1 => self.quote + 100,
            _ => self.quote,
        }
    }

    /// What tells a request from others, if anything does.
    pub fn request(&self, asks: Asks) -> Option<Asks> {
        match asks {
            // What has a price by its body has been read.
            Asks::Unread if self.tokens => Some(Asks::Other),
            Asks::Unread => None,
            read => Some(read),
        }
    }

    /// The path, with its query.
    pub fn target(&self, asks: Asks) -> String {
        match asks {
            Asks::Other if !self.tokens => format!("{}?page=2", self.path),
            _ => self.path.into(),
        }
    }

    /// Whether an answer that is paid in this way is metered as it passes.
    pub fn meters(&self, way: Way) -> bool {
        self.flow == Flow::Metered && way.is_upto()
    }
}

const EXACT: &[Way] = &[Way::Eip3009, Way::Permit2, Way::Token, Way::Solana];

const fn route(name: &'static str, path: &'static str, flow: Flow, start: Start, quote: u64, ways: &'static [Way]) -> Route {
    Route {
        name,
        path,
        flow,
        start,
        quote,
        ways,
        tokens: false,
        requests: 1,
    }
}

pub const ROUTES: [Route; 9] = [
    route("health", "/healthz", Flow::Free, Start::Before, 0, &[]),
    route("basic", "/basic", Flow::Authorization, Start::Before, 1000, EXACT),
    route("overlap", "/overlap", Flow::Authorization, Start::Overlap, 1000, EXACT),
    route("local", "/local", Flow::Authorization, Start::Local, 2000, EXACT),
    route("upfront", "/upfront", Flow::Upfront, Start::Before, 2000, EXACT),
    route("told", "/told", Flow::Authorization, Start::Before, 3000, &[Way::Upto]),
    Route {
        tokens: true,
        ..route(
            "chat",
            "/v1/chat/completions",
            Flow::Metered,
            Start::Before,
            CHAT_QUOTE,
            &[Way::Upto, Way::Eip3009],
        )
    },
    route("call", "/call", Flow::Metered, Start::Overlap, 375, &[Way::Upto, Way::Permit]),
    Route {
        requests: 3,
        ..route("several", "/several", Flow::Authorization, Start::Before, 1500, EXACT)
    },
];

/// The configuration of a run: the same routes each time, and terms that differ.
pub struct Shop {
    /// With each of the two price lists.
    pub configs: [Config; 2],
    /// What the reader hands over of two chat completions.
    chats: [BodyFacts; 2],
    /// `redeliver`, in seconds.
    pub times: u32,
    pub window: u64,
    /// How many requests of a payer are let in within so many seconds, if that is limited.
    pub limit: Option<(u64, u64)>,
    /// Whether payments can have names.
    pub named: bool,
    /// `accept_used_nonce_up_to`, in the smallest unit.
    pub used_nonce_limit: u64,
    /// `metered.exposure`, in the smallest unit, which are millionths.
    pub exposure_payer: u64,
    pub exposure_total: u64,
    /// Whether an answer that the backend breaks off is free.
    pub failures_are_free: bool,
    /// Whether a complete answer without usage is.
    pub missing_usage_is_free: bool,
}

impl Shop {
    pub fn new(random: &Random) -> Self {
        let retries = random.below(4);
        let budget = *random.pick(&["0s", "2s", "20s"]);
        let used_nonce_limit = *random.pick(&[0, 1500, 1500, 5000]);
        let (exposure_payer, exposure_total) = *random.pick(&[(3750, 7500), (8000, 20000), (100_000, 200_000)]);
        let (times, window) = (*random.pick(&[0, 1, 1, 2]), *random.pick(&[2, 20, 120]));
        let limit = random.chance(150).then_some((20, 4));
        let named = random.chance(300);
        let failures_are_free = random.chance(300);
        let missing_usage = *random.pick(&["estimate", "maximum", "free"]);
        let metered = json!({
            "exposure": {"payer": dollars(exposure_payer), "total": dollars(exposure_total)},
            "ban": random.pick(&["0s", "60s", "10m"]),
            "receipt_wait": random.pick(&["0s", "1s", "10s"]),
            "on_backend_failure": if failures_are_free { "free" } else { "delivered" },
            "on_client_abort": random.pick(&["estimate", "maximum"]),
            "missing_usage": missing_usage,
        });
        let settlement = json!({"retries": retries, "retry_budget": budget, "accept_used_nonce_up_to": dollars(used_nonce_limit)});
        let facilitators: Vec<Value> = ["first", "second"]
            .iter()
            .map(|name| json!({"cluster": name, "url": format!("http://{name}.test"), "verify_timeout": "2s", "settle_timeout": "8s"}))
            .collect();
        let configuration = |list| {
            let mut configuration = json!({
                "pay_to": {"eip155": SELLER.to_string(), "solana": SOLANA_SELLER},
                "assets": [{
                    "symbol": "TUSD", "network": "eip155:84532", "address": TUSD.to_string(), "decimals": 6, "currency": "usd",
                    "eip712": {"name": "Test USD", "version": "1"},
                }],
                "accept": ROUTES[1].ways.iter().map(|way| offer(*way)).collect::<Vec<_>>(),
                "facilitators": facilitators,
                "settlement": settlement,
                "redeliver": {"times": times, "window": format!("{window}s")},
                "unmatched": "deny",
                "routes": ROUTES.iter().map(|route| configured(route, list, &metered)).collect::<Vec<_>>(),
            });
            if let Some((seconds, requests)) = limit {
                configuration["limits"] = json!({"payer": {"window": format!("{seconds}s"), "requests": requests}});
            }
            if named {
                configuration["payment_identifier"] = "optional".into();
            }
            configuration
        };
        let configs = [0, 1].map(|list| parse(configuration(list).to_string().as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}")));
        let chats = ["x", "y"].map(|letter| chat(&configs[0], letter));
        Self {
            configs,
            chats,
            times,
            window,
            limit,
            named,
            used_nonce_limit,
            exposure_payer,
            exposure_total,
            failures_are_free,
            missing_usage_is_free: missing_usage == "free",
        }
    }

    /// What the reader hands over of a request, if it was in front.
    pub fn body(&self, route: &Route, asks: Asks) -> Option<&BodyFacts> {
        let [one, other] = &self.chats;
        route.tokens.then_some(if asks == Asks::One { one } else { other })
    }
}

/// So many millionths.
fn dollars(units: u64) -> String {
    format!("${}.{:06}", units / 1_000_000, units % 1_000_000)
}

fn configured(route: &Route, list: usize, metered: &Value) -> Value {
    let price = match (route.flow, route.name) {
        (Flow::Free, _) => json!("free"),
        (_, "chat") => json!({"per_token": {"input": "$0.0000025", "output": "$0.00001", "max_output": 4096}}),
        (_, "call") => json!({"per_minute": {"amount": "$0.000125", "minimum": 1, "maximum": 3}}),
        _ => json!({"per_request": dollars(route.quote(list))}),
    };
    let mut fields = json!({"name": route.name, "match": {"path": route.path}, "price": price});
    match route.flow {
        Flow::Free => return fields,
        Flow::Authorization => {}
        Flow::Upfront => fields["flow"] = "upfront".into(),
        Flow::Metered => {
            fields["flow"] = "metered".into();
            fields["metered"] = metered.clone();
        }
    }
    match route.start {
        Start::Before => {}
        Start::Overlap => fields["verify"] = "overlap".into(),
        Start::Local => fields["verify"] = "local".into(),
    }
    if route.requests > 1 {
        fields["limits"] = json!({"requests_per_payment": route.requests});
    }
    fields["accept"] = route.ways.iter().map(|way| offer(*way)).collect();
    fields
}

fn offer(way: Way) -> Value {
    let (scheme, network) = match way {
        Way::Eip3009 | Way::Permit2 | Way::Token => ("exact", "eip155:84532"),
        Way::Solana => ("exact", SOLANA),
        Way::Upto | Way::Permit => ("upto", "eip155:84532"),
    };
    let mut offer = json!({"scheme": scheme, "network": network, "asset": "USDC", "max_timeout": format!("{VALIDITY}s")});
    if way == Way::Token {
        offer["asset"] = "TUSD".into();
    }
    match way {
        Way::Permit2 | Way::Token | Way::Upto => offer["transfer"] = "permit2".into(),
        Way::Permit => {
            offer["transfer"] = "permit".into();
            offer["spender"] = SPENDER.to_string().into();
        }
        Way::Eip3009 | Way::Solana => {}
    }
    offer
}

/// What a facilitator says of itself.
pub fn supported(facilitator: usize) -> String {
    let kind = |version: u8, scheme: &str, network: &str, extra: Value| json!({"x402Version": version, "scheme": scheme, "network": network, "extra": extra});
    json!({"kinds": [
        kind(2, "exact", "eip155:84532", json!({})),
        kind(1, "exact", "base-sepolia", json!({})),
        kind(2, "upto", "eip155:84532", json!({"facilitatorAddress": SETTLERS[facilitator]})),
        kind(1, "upto", "base-sepolia", json!({})),
        kind(2, "exact", SOLANA, json!({"feePayer": FEE_PAYER})),
    ], "extensions": [], "signers": {}})
    .to_string()
}

/// A chat completion of 1000 bytes and 100 tokens, as the reader hands it over.
fn chat(config: &Config, letter: &str) -> BodyFacts {
    let body = |padding: usize| {
        let content = format!("{PROMPT}{}", letter.repeat(padding));
        json!({"messages": [{"role": "user", "content": content}], "max_tokens": 100, "stream": true}).to_string()
    };
    let body = body(1000 - body(0).len());
    let route = ROUTES.iter().find(|route| route.tokens).unwrap();
    let request = RequestFacts {
        place: place(route, route.path),
        headers: &[],
        body: None,
    };
    let reading = config
        .routes
        .read(None, &request, body.as_bytes(), Some(b"application/json"), None, false);
    reader::decode(&reader::encode(&reading.facts)).unwrap()
}

pub fn place<'a>(route: &Route, target: &'a str) -> Place<'a> {
    Place {
        method: if route.tokens { b"POST" } else { b"GET" },
        authority: HOST.as_bytes(),
        path: target.as_bytes(),
        envoy_route: None,
        is_cors_preflight: false,
    }
}
