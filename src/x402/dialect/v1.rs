//! v1: `X-PAYMENT` with base64 JSON. Source: x402 v1, HTTP transport.

use super::super::json::Object;
use super::super::payment::{Dialect, Payment, PaymentError};

/// Reads a payment of v1.
///
/// ```json
/// {"x402Version": 1, "scheme": "exact", "network": "base-sepolia",
///  "payload": {"signature": "0x…", "authorization": {"from": "0x…", "to": "0x…", "value": "1000", "validAfter": "1795222733",
///              "validBefore": "1795223633", "nonce": "0x…"}}}
/// ```
pub(super) fn payment(object: &Object<'_>) -> Result<Payment, PaymentError> {
    super::v1_shape(Dialect::V1, object)
}
