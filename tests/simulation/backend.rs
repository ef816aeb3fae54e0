//! The backend: it answers, fails, breaks off, or says nothing.

use std::collections::VecDeque;
use std::fmt;

use super::agenda::{Cut, Event};
use super::shop::{COMPLETION, FORGED, Flow, ROUTES, Way};
use super::world::World;

pub type Headers = Vec<(&'static [u8], &'static [u8])>;

/// The head of an answer.
#[derive(Clone)]
pub struct Head {
    after_ms: u64,
    pub status: u16,
    pub from_backend: bool,
    pub ended: bool,
    pub headers: Headers,
}

/// What the backend does next, and how long it takes for that.
#[derive(Clone)]
pub enum Step {
    Headers(Head),
    Part(u64, Vec<u8>),
    End(u64, Vec<u8>),
    Trailers(u64),
    Reset(u64),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(head) => {
                let told = head.headers.iter().find(|(name, _)| *name == b"settlement-overrides");
                let told = told.map(|(_, value)| String::from_utf8_lossy(value));
                write!(
                    f,
                    "{} from_backend: {} ended: {} {told:?}",
                    head.status, head.from_backend, head.ended
                )
            }
            Self::Part(_, bytes) => write!(f, "part {:?}", String::from_utf8_lossy(bytes)),
            Self::End(..) => f.write_str("end"),
            Self::Trailers(_) => f.write_str("trailers"),
            Self::Reset(_) => f.write_str("reset"),
        }
    }
}

impl Step {
    pub fn after_ms(&self) -> u64 {
        match self {
            Self::Headers(head) => head.after_ms,
            Self::Part(ms, _) | Self::End(ms, _) | Self::Trailers(ms) | Self::Reset(ms) => *ms,
        }
    }
}

/// What Settlement-Overrides can say, and how much that is; above every quote it is the quote.
const OVERRIDES: [(&[u8], u64); 3] = [
    (b"{\"amount\":\"123\"}", 123),
    (b"{\"amount\":\"0\"}", 0),
    (b"{\"amount\":\"999999\"}", 999_999),
];

/// Decides what the backend does about a request.
pub fn script(world: &World, visit: usize) -> VecDeque<Step> {
    let random = &world.random;
    let (route, way) = world.route_and_way(visit);
    let after_ms = match random.below(1000) {
        0..20 => random.between(200_001, 400_000),
        20..100 => random.between(2000, 20_000),
        _ => random.between(1, 150),
    };
    if let Some(payment) = world.visits(visit, |seen| seen.errand.payment).filter(|_| after_ms > 200_000) {
        // Just before the answer comes, and perhaps after the payment has expired.
        let at = world.now_ms() + after_ms - random.between(0, 100);
        world.plan(at, Event::Sibling(payment));
    }
    let head = |status, headers: Headers| Head {
        after_ms,
        status,
        from_backend: true,
        ended: false,
        headers,
    };
    let kind = random.below(1000);
    let mut steps = VecDeque::new();
    match kind {
        0..50 => {
            world.count("backend: 5xx");
            steps.push_back(Step::Headers(head(*random.pick(&[500, 502, 503]), Vec::new())));
            steps.push_back(Step::End(1, b"sorry".to_vec()));
        }
        50..100 => {
            world.count("backend: 4xx");
            steps.push_back(Step::Headers(head(*random.pick(&[400, 402, 404, 429]), Vec::new())));
            steps.push_back(Step::End(1, b"no".to_vec()));
        }
        100..140 => {
            world.count("backend: reset before its headers");
            steps.push_back(Step::Reset(after_ms));
        }
        140..170 => {
            world.count("backend: never answers");
            let head = head(504, Vec::new());
            steps.push_back(Step::Headers(Head {
                after_ms: random.between(15_000, 60_000),
                from_backend: false,
                ended: true,
                ..head
            }));
        }
        170..190 => {
            world.count("backend: another filter answers");
            let head = head(*random.pick(&[200, 302, 403]), Vec::new());
            steps.push_back(Step::Headers(Head {
                from_backend: false,
                ended: true,
                ..head
            }));
        }
        _ => {
            let metered = ROUTES[route].flow == Flow::Metered && way.is_some_and(Way::is_upto);
            let mut headers: Headers = vec![(b"payment-response", FORGED.as_bytes())];
            if way.is_some_and(Way::is_upto) && random.chance(if metered { 60 } else { 600 }) {
                let (value, amount) = *random.pick(&OVERRIDES);
                headers.push((b"settlement-overrides", value));
                world.visits(visit, |visit| visit.told_amount = Some(amount.min(visit.quote)));
            }
            answer(
                world,
                visit,
                head(*random.pick(&[200, 200, 200, 201, 302]), headers),
                metered,
                &mut steps,
            );
        }
    }
    steps
}

/// What befalls the connection to the backend at any moment, and when.
pub fn mishap(world: &World) -> Option<(u64, Cut)> {
    let random = &world.random;
    match random.below(1000) {
        0..25 => Some((random.between(0, 3000), Cut::Backend)),
        25..45 => Some((random.between(0, 10_000), Cut::Timeout)),
        _ => None,
    }
}

/// A good answer, in one of its forms, and how it ends.
fn answer(world: &World, visit: usize, mut head: Head, metered: bool, steps: &mut VecDeque<Step>) {
    let random = &world.random;
    if random.chance(80) {
        world.count("backend: no body");
        steps.push_back(Step::Headers(Head { ended: true, ..head }));
        return;
    }
    let is_sse = metered && random.chance(800);
    head.headers
        .push((b"content-type", if is_sse { b"text/event-stream" } else { b"application/json" }));
    steps.push_back(Step::Headers(head));
    let pause = || match random.below(100) {
        0..3 => random.between(10_000, 100_000),
        _ => random.between(1, 400),
    };
    for _ in 0..random.below(6) {
        let text = match is_sse {
            true => format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{COMPLETION} \"}}}}]}}\n\n"),
            false => format!("  {COMPLETION}"),
        };
        steps.push_back(Step::Part(pause(), text.into_bytes()));
    }
    if random.chance(60) {
        world.count("backend: reset in mid-answer");
        steps.push_back(Step::Reset(pause()));
        return;
    }
    if is_sse && random.chance(700) {
        world.count("backend: usage told");
        let (input, output) = (random.below(900), random.below(110));
        let usage = format!("data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}\n\n");
        steps.push_back(Step::Part(1, usage.into_bytes()));
        // At 2.5 and 10 units, rounded up.
        let amount = (input * 5).div_ceil(2) + output * 10;
        world.visits(visit, |visit| visit.usage_amount = Some(amount));
        if random.chance(500) {
            steps.push_back(Step::Part(1, b"data: [DONE]\n\n".to_vec()));
        }
    } else if is_sse {
        world.count("backend: usage not told");
    }
    match random.chance(200) {
        true => steps.push_back(Step::Trailers(1)),
        false => steps.push_back(Step::End(1, Vec::new())),
    }
}
