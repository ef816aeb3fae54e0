//! What can be run: a name, and so many times of it.

use crate::config::{self, Config};
use crate::evm::eip3009::TransferWithAuthorization;
use crate::evm::{Address, Nonce, Payers, Signature, SignatureForm, domain_separator, keccak256, recover};
use crate::precheck::{self, Terms};
use crate::pricing::{Offer, Quote};
use crate::replay::{ClaimKey, Claims, SharedStore, UnixSeconds};
use crate::supported::Table;
use crate::x402::{Payment, decode};
use std::hint::black_box;

/// Every part, cheapest to explain first.
pub const PARTS: &[&str] = &["nothing", "keccak", "decode", "domain", "digest", "recover", "known", "pre_check", "claim"];

const SECRET: [u8; 16] = [7; 16];
/// How long a claim of the bench lives, in seconds: longer than the bench.
const LIFE: u64 = 3600;

/// What the parts work on.
pub struct Parts {
    config: Config,
    offers: Vec<Offer>,
    table: Table,
    resource: String,
    now: UnixSeconds,
    header: Vec<u8>,
    payment: Payment,
    signed: TransferWithAuthorization,
    signature: Signature,
    digest: [u8; 32],
    payers: Payers,
    next: u64,
}

impl Parts {
    /// From `{"config": the filter's, "route": a route's name, "payment": a PAYMENT-SIGNATURE header for it, "resource": URL, "now": seconds}`;
    /// `None` if anything of it is not as the filter would have it.
    pub fn new(json: &[u8]) -> Option<Self> {
        let input: serde_json::Value = serde_json::from_slice(json).ok()?;
        let config = config::parse(input.get("config")?.to_string().as_bytes()).ok()?;
        let route = config
            .routes
            .iter()
            .find(|route| &*route.name == input["route"].as_str().unwrap_or_default())?;
        let offers = Quote::fixed().offers(route).into_owned();
        let header = input.get("payment")?.as_str()?.as_bytes().to_vec();
        let payment = decode([(&b"payment-signature"[..], &header[..])]).ok()??;
        let offer = offers.first()?;
        let (signed, form) = payment.payload.authorization(offer)?;
        let SignatureForm::Eoa(signature) = form else { return None };
        let digest = signed.digest(&offer.domain_separator);
        let now = UnixSeconds(input.get("now")?.as_u64()?);
        let resource = input.get("resource")?.as_str()?.to_owned();
        let mut made = Self {
            offers,
            table: Table::default(),
            resource,
            now,
            header,
            signed,
            signature,
            digest,
            payment,
            config,
            payers: Payers::default(),
            next: 0,
        };
        let store = crate::replay::MemoryStore::new();
        made.table.refresh(&store, &made.config);
        made.pre_check().is_ok().then_some(made)
    }

    fn pre_check(&self) -> Result<precheck::Approved, precheck::Refused> {
        precheck::pre_check(
            &self.payment,
            &Terms {
                offers: &self.offers,
                supported: &self.table,
                bounds: &self.config.pre_check,
                resource: &self.resource,
                secret: &SECRET,
                payers: None,
                now: self.now,
                grace: 0,
            },
        )
    }

    /// Runs a part; what comes of it, so that nothing is left out. `None` if there is no such part.
    pub fn run(&mut self, part: &str, times: u32, store: &dyn SharedStore) -> Option<u32> {
        let mut sum = 0_u32;
        let mut add = |byte: u8| sum = sum.wrapping_add(byte.into());
        for _ in 0..times {
            match part {
                "nothing" => add(black_box(1)),
                "keccak" => add(keccak256(black_box(&[5; 64]))[0]),
                "decode" => {
                    let decoded = decode([(&b"payment-signature"[..], black_box(&self.header[..]))]);
                    add(decoded.is_ok().into());
                }
                "domain" => add(domain_separator(black_box("USDC"), black_box("2"), black_box(84532), black_box(&self.signed.to))[0]),
                "digest" => add(black_box(&self.signed).digest(black_box(&self.offers[0].domain_separator))[0]),
                "recover" => add(recover(black_box(&self.digest), black_box(&self.signature))?.0[0]),
                "known" => add(self.payers.signed(black_box(&self.signed.from), black_box(&self.digest), black_box(&self.signature)).into()),
                "pre_check" => add(black_box(&*self).pre_check().is_ok().into()),
                "claim" => {
                    self.next += 1;
                    add(self.claim(self.next, store).into());
                }
                _ => return None,
            }
        }
        Some(sum)
    }

    /// Takes a claim that nobody had.
    fn claim(&self, number: u64, store: &dyn SharedStore) -> bool {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        let key = ClaimKey::eip3009(&SECRET, "eip155:84532", &Address([1; 20]), &self.signed.from, &Nonce(nonce));
        Claims::new(self.config.max_claims)
            .claim(store, &key, UnixSeconds(self.now.0 + LIFE), self.now)
            .is_ok()
    }
}
