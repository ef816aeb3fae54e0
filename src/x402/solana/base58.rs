//! Base58, as Solana writes its keys.

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// A key in base58.
pub(super) fn encode(key: &[u8; 32]) -> String {
    // Digits, lowest first.
    let mut digits: Vec<u32> = Vec::with_capacity(44);
    for byte in key {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            // At most 57 * 256 + 255.
            carry = carry.wrapping_add(digit.wrapping_shl(8));
            *digit = carry % 58;
            carry /= 58;
        }
        while carry > 0 {
            digits.push(carry % 58);
            carry /= 58;
        }
    }
    let zeros = key.iter().take_while(|byte| **byte == 0).map(|_| 0);
    zeros
        .chain(digits.into_iter().rev())
        .filter_map(|digit| ALPHABET.get(usize::try_from(digit).ok()?))
        .map(|letter| char::from(*letter))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_known_keys() {
        assert_eq!(encode(&[0; 32]), "1".repeat(32));
        let mut one = [0; 32];
        one[31] = 58;
        assert_eq!(encode(&one), format!("{}21", "1".repeat(31)));
        let mint = hex::decode("c6fa7af3bedbad3a3d65f36aabc97431b1bbe4c2d2f6e0e47ca60203452f5d61").unwrap();
        assert_eq!(encode(&mint.try_into().unwrap()), "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v");
    }
}
