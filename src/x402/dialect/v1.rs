//! v1: `X-PAYMENT` with base64 JSON. Source: x402 v1, HTTP transport.

use serde_json::{Map, Value};

use super::super::payment::{Dialect, Payment, PaymentError};

/// Reads a payment of v1.
///
/// ```json
/// {"x402Version": 1, "scheme": "exact", "network": "base-sepolia",
///  "payload": {"signature": "0x…", "authorization": {"from": "0x…", "to": "0x…", "value": "1000", "validAfter": "1795222733",
///              "validBefore": "1795223633", "nonce": "0x…"}}}
/// ```
pub(super) fn payment(text: String, object: &Map<String, Value>) -> Result<Payment, PaymentError> {
    super::v1_shape(Dialect::V1, text, object)
}
