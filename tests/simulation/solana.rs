//! Solana transactions: a token transfer that the payer has signed, as wallets make them, but for the curve.

use base64::Engine as _;

/// Where the message begins: after the count and two signatures.
pub const MESSAGE_AT: usize = 1 + 2 * 64;
const DECIMALS: u8 = 6;
const MINT: &str = "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU";
const TOKEN: &str = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";
const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// A legacy transaction: `TransferChecked` of so much from the payer's tokens to `seller`. The number makes it unique, as a blockhash does.
pub fn transaction(payer: [u8; 32], seller: [u8; 32], amount: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend([0; 64]); // the fee payer signs last
    bytes.extend([7; 64]);
    bytes.extend([2, 0, 2]); // signers, and the keys that are read-only
    let source = payer.map(|byte| byte ^ 0x80);
    bytes.push(6);
    for key in [decode(super::wallet::FEE_PAYER), payer, source, seller, decode(MINT), decode(TOKEN)] {
        bytes.extend(key);
    }
    let mut blockhash = [0xb1; 32];
    blockhash[..8].copy_from_slice(&number.to_le_bytes());
    bytes.extend(blockhash);
    bytes.extend([1, 5]); // one instruction, of the token program
    bytes.extend([4, 2, 4, 3, 1]); // source, mint, destination, authority
    bytes.extend([10, 12]);
    bytes.extend(amount.to_le_bytes());
    bytes.push(DECIMALS);
    bytes
}

pub fn encode(transaction: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(transaction)
}

/// Reads 32 bytes in base58.
fn decode(text: &str) -> [u8; 32] {
    let mut bytes = [0u8; 32];
    for digit in text.bytes() {
        let mut carry = ALPHABET.iter().position(|known| *known == digit).unwrap();
        for byte in bytes.iter_mut().rev() {
            carry += 58 * usize::from(*byte);
            *byte = u8::try_from(carry % 256).unwrap();
            carry /= 256;
        }
    }
    bytes
}
