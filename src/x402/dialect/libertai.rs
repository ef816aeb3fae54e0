//! LibertAI: `X-PAYMENT` with JSON as it is, of v1 shape though it says version 2. Source: `@libertai/x402`, as recorded.

use super::super::json::Object;
use super::super::payment::{Dialect, Payment, PaymentError};

/// Reads a payment of LibertAI's. With scheme `upto` the authorization is an EIP-2612 permit; the offer tells.
///
/// ```json
/// {"x402Version": 2, "scheme": "upto", "network": "eip155:8453",
///  "payload": {"signature": "0x…", "authorization": {"from": "0x…", "to": "0x…", "value": "100000", "validAfter": "0",
///              "validBefore": "1795223691", "nonce": "0x00…00"}}}
/// ```
pub(super) fn payment(object: &Object<'_>) -> Result<Payment, PaymentError> {
    super::v1_shape(Dialect::LibertAi, object)
}
