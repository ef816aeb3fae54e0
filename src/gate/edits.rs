//! Changes to headers: what the backend and the client are told, and what is kept from them.

use super::overrides;
use super::sale::Sale;
use crate::pricing::Offer;

/// Headers that tell the backend who paid. Only this filter may set them: copies sent by clients are removed on every route.
pub const TRUSTED_HEADERS: [&str; 6] = [
    "x-x402-payer",
    "x-x402-network",
    "x-x402-asset",
    "x-x402-amount",
    "x-x402-scheme",
    FORWARDED_HEADER,
];

/// The mark of a request that was let through for money: see `redirect`.
pub const FORWARDED_HEADER: &str = "x-x402-forwarded";

/// Headers in which clients pay.
const PAYMENT_HEADERS: [&str; 10] = [
    "payment-signature",
    "x-payment",
    "x-payment-signature",
    "x-payment-payer",
    "x-payment-amount",
    "x-payment-asset",
    "x-payment-network",
    "x-payment-nonce",
    "x-payment-valid-after",
    "x-payment-valid-before",
];

/// Those of them that make a request one with a payment.
const PAYMENTS: [&str; 3] = ["payment-signature", "x-payment", "x-payment-signature"];

/// Whether a request carries a payment, good or bad.
pub fn carries_payment(headers: &[(&[u8], &[u8])]) -> bool {
    headers.iter().any(|(sent, _)| PAYMENTS.iter().any(|name| *sent == name.as_bytes()))
}

/// Headers with which Envoy's router can be told how to ask the backend.
const ROUTER_HEADERS: [&str; 13] = [
    "grpc-timeout",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
];

/// Headers of receipts, whichever version of the protocol the client speaks.
const RECEIPT_HEADERS: [&str; 2] = ["payment-response", "x-payment-response"];

/// What caches between the buyer and us must tell apart.
const VARY: &str = "PAYMENT-SIGNATURE, X-PAYMENT";

/// Changes to a header map, in this order: removals, replacements, additions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Names to remove, in lower case.
    pub remove: Vec<Box<str>>,
    /// Names and values to set, replacing what is there.
    pub set: Vec<(&'static str, String)>,
    /// Names and values to add to what is there.
    pub add: Vec<(&'static str, String)>,
}

impl Edits {
    /// Removes copies of the filter's own headers that a client sent, also those with underscores, which many backends (CGI, WSGI,
    /// PHP) take for the same.
    pub fn distrust(mut self, headers: &[(&[u8], &[u8])]) -> Self {
        // Few headers have this in their names, and only those are looked at closely.
        let ours = headers.iter().filter(|(name, _)| name.get(2..6) == Some(b"x402"));
        let forged = ours.filter_map(|(name, _)| std::str::from_utf8(name).ok());
        let forged = forged.filter(|name| TRUSTED_HEADERS.contains(&&*name.replace('_', "-")));
        self.remove.extend(forged.map(Box::from));
        self
    }

    /// Removes the payment itself.
    pub(super) fn keep_payment(mut self, headers: &[(&[u8], &[u8])]) -> Self {
        self.remove_present(headers, &PAYMENT_HEADERS);
        self
    }

    /// Removes what tells Envoy's router how long to wait for the backend and how often to ask it: one payment buys one try, and a
    /// client must not decide when an answer counts as failed.
    pub(super) fn ask_once(mut self, headers: &[(&[u8], &[u8])]) -> Self {
        self.remove_present(headers, &ROUTER_HEADERS);
        self
    }

    /// Removes one header.
    pub(super) fn without(mut self, name: Option<&str>) -> Self {
        self.remove.extend(name.map(Into::into));
        self
    }

    /// Tells the backend who has paid what.
    pub(super) fn tell_backend(mut self, payer: &str, offer: &Offer, mark: String) -> Self {
        let [payer_name, network_name, asset_name, amount_name, scheme_name, mark_name] = TRUSTED_HEADERS;
        self.set = vec![
            (payer_name, payer.into()),
            (network_name, offer.asset.network.as_str().into()),
            (asset_name, offer.asset.address.to_string()),
            (amount_name, offer.amount.0.to_string()),
            (scheme_name, offer.scheme.name().into()),
            (mark_name, mark),
        ];
        self
    }

    /// Tells the backend whose balance pays, and how much of it is reserved, in millionths of a dollar.
    pub(super) fn tell_backend_of_credit(mut self, tenant: &str, reserved: u64, mark: String) -> Self {
        let [payer_name, network_name, asset_name, amount_name, scheme_name, mark_name] = TRUSTED_HEADERS;
        self.set = vec![
            (payer_name, tenant.into()),
            (network_name, "credits".into()),
            (asset_name, "usd".into()),
            (amount_name, reserved.to_string()),
            (scheme_name, "credits".into()),
            (mark_name, mark),
        ];
        self
    }

    /// The headers of a request that pay, as far as they are text.
    pub(super) fn payment<'h>(headers: &[(&'h [u8], &'h [u8])]) -> Vec<(&'h str, &'h str)> {
        let pays = |name: &[u8]| PAYMENT_HEADERS.iter().any(|header| header.as_bytes() == name);
        let sent = headers.iter().filter(|(name, _)| pays(name));
        sent.filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?)))
            .collect()
    }

    /// Asks the backend for an answer that can be read as it passes.
    pub(super) fn unencoded(mut self) -> Self {
        self.set.push(("accept-encoding", "identity".into()));
        self
    }

    /// What every answer of a priced route loses: the backend's word to the filter, and receipts that are not ours.
    pub(super) fn strip_answer(headers: &[(&[u8], &[u8])]) -> Self {
        let mut edits = Self::default();
        edits.remove_present(headers, &[overrides::HEADER]);
        edits.remove_present(headers, &RECEIPT_HEADERS);
        edits
    }

    /// Marks a paid answer as one buyer's: not for shared caches.
    pub(super) fn private(self, headers: &[(&[u8], &[u8])], sale: &Sale) -> Self {
        self.private_to(headers, sale.order.hints.origin)
    }

    /// The same; `origin`: the buyer is a page of another origin.
    #[inline(never)] // twice as large otherwise
    pub(super) fn private_to(mut self, headers: &[(&[u8], &[u8])], origin: bool) -> Self {
        let directives: Vec<String> = headers
            .iter()
            .filter(|(name, _)| *name == b"cache-control")
            .flat_map(|(_, value)| {
                String::from_utf8_lossy(value)
                    .split(',')
                    .map(|part| part.trim().to_owned())
                    .collect::<Vec<_>>()
            })
            .filter(|part| !part.is_empty() && part.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            .collect();
        let names = |directive: &String, name: &str| {
            directive
                .split('=')
                .next()
                .is_some_and(|first| first.trim().eq_ignore_ascii_case(name))
        };
        if !directives
            .iter()
            .any(|directive| names(directive, "private") || names(directive, "no-store"))
        {
            let mut kept: Vec<String> = directives
                .into_iter()
                .filter(|directive| !names(directive, "public") && !names(directive, "s-maxage"))
                .collect();
            if kept.is_empty() {
                self.set.push(("cache-control", "private".to_owned()));
            } else {
                kept.push("private".into());
                self.set.push(("cache-control", kept.join(", ")));
            }
        }
        self.add.push(("vary", VARY.into()));
        if origin {
            self.add
                .push(("access-control-expose-headers", RECEIPT_HEADERS.join(", ").to_ascii_uppercase()));
        }
        self
    }

    fn remove_present(&mut self, headers: &[(&[u8], &[u8])], names: &[&str]) {
        let present = names.iter().filter(|name| headers.iter().any(|(sent, _)| *sent == name.as_bytes()));
        self.remove.extend(present.map(|name| Box::from(*name)));
    }
}
