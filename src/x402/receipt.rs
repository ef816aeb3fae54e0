//! Receipts: what a client is told of its payment's settlement.
//!
//! Source: x402 v2 and v1, HTTP transports ("SettlementResponse"); fields and names of networks as recorded.

use serde::Serialize;

use super::payment::Dialect;
use super::{Network, base64_encode, clean};

/// A settlement as the client is told of it.
///
/// ```json
/// {"success": true, "payer": "0x3C44…", "transaction": "0xd674…", "network": "eip155:84532", "amount": "1234"}
/// ```
///
/// ```json
/// {"success": false, "errorReason": "insufficient_funds", "payer": "0x9965…", "transaction": "", "network": "eip155:84532"}
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt<'a> {
    /// Where the payment was settled.
    pub network: &'a Network,
    /// Who paid.
    pub payer: Option<&'a str>,
    /// Transaction hash or signature; empty if there is none.
    pub transaction: &'a str,
    /// What was paid, in the token's smallest unit, where the facilitator said so.
    pub amount: Option<&'a str>,
    /// Why the settlement failed; `None` if it did not. Cleaned here.
    pub error: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<&'a str>,
    transaction: &'a str,
    network: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<&'a str>,
}

impl Receipt<'_> {
    /// The response header, or trailer, that carries receipts: `payment-response` for v2 and plain headers, `x-payment-response` for
    /// v1 and LibertAI.
    pub const fn name(dialect: Dialect) -> &'static str {
        match dialect {
            Dialect::V2 | Dialect::Plain => "payment-response",
            Dialect::V1 | Dialect::LibertAi => "x-payment-response",
        }
    }

    /// The response header that carries the receipt, in lower case, and its value: base64 JSON.
    ///
    /// With CAIP-2 networks for v2 and plain headers, with v1 names for v1 and LibertAI.
    pub fn header(&self, dialect: Dialect) -> (&'static str, String) {
        let network = match dialect {
            Dialect::V2 | Dialect::Plain => self.network.as_str(),
            Dialect::V1 | Dialect::LibertAi => self.network.v1_name(),
        };
        let wire = Wire {
            success: self.error.is_none(),
            error_reason: self.error.map(clean),
            payer: self.payer,
            transaction: self.transaction,
            network,
            amount: self.amount,
        };
        (Self::name(dialect), base64_encode(&serde_json::to_vec(&wire).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(value: &str) -> String {
        String::from_utf8(super::super::dialect::base64(value).unwrap()).unwrap()
    }

    #[test]
    fn equals_the_recorded_receipts() {
        let network = Network::parse("eip155:84532").unwrap();
        let receipt = Receipt {
            network: &network,
            payer: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            transaction: "0xd67424eed7c7dfe6c7cca7bf56a5a3a94e00159d7eff19bc3515acbb4c14f8dd",
            amount: Some("1234"),
            error: None,
        };
        // py-httpx.upto, byte for byte.
        let recorded = "eyJzdWNjZXNzIjp0cnVlLCJwYXllciI6IjB4M0M0NENkRGRCNmE5MDBmYTJiNTg1ZGQyOTllMDNkMTJGQTQyOTNCQyIsInRyYW5zYWN0aW9uIjoiMHhkNjc0MjRlZWQ3YzdkZmU2YzdjY2E3YmY1NmE1YTNhOTRlMDAxNTlkN2VmZjE5YmMzNTE1YWNiYjRjMTRmOGRkIiwibmV0d29yayI6ImVpcDE1NTo4NDUzMiIsImFtb3VudCI6IjEyMzQifQ==";
        assert_eq!(receipt.header(Dialect::V2), ("payment-response", recorded.to_owned()));
        let (name, value) = receipt.header(Dialect::V1);
        assert_eq!(name, "x-payment-response");
        assert!(decoded(&value).contains(r#""network":"base-sepolia""#));
    }

    #[test]
    fn a_failure_says_why_and_names_no_servers() {
        let network = Network::parse("eip155:1").unwrap();
        let receipt = Receipt {
            network: &network,
            payer: None,
            transaction: "",
            amount: None,
            error: Some("reverted at https://rpc.example/key"),
        };
        let (_, value) = receipt.header(Dialect::Plain);
        assert_eq!(
            decoded(&value),
            r#"{"success":false,"errorReason":"reverted at (url)","transaction":"","network":"eip155:1"}"#
        );
    }
}
