//! Base58 with Bitcoin's alphabet, as far as Solana's 32-byte accounts need it.

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// No 32 bytes take more characters than this.
const LONGEST: usize = 44;

/// The 32 bytes that a Solana account or mint is written for; `None` if the text is not base58 or not of 32 bytes.
pub fn decode_32(text: &str) -> Option<[u8; 32]> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let mut bytes = [0u8; 32];
    for character in text.bytes() {
        let mut carry = u32::try_from(ALPHABET.iter().position(|own| *own == character)?).ok()?;
        for byte in bytes.iter_mut().rev() {
            carry = u32::from(*byte).checked_mul(58)?.checked_add(carry)?;
            *byte = u8::try_from(carry & 0xff).ok()?;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    // Leading zero bytes are written as leading ones: any other number of them is another length.
    let ones = text.bytes().take_while(|byte| *byte == b'1').count();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    (ones == zeros).then_some(bytes)
}

/// 32 bytes as Solana writes its accounts.
pub fn encode_32(key: &[u8; 32]) -> String {
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
    use proptest::prelude::*;

    #[test]
    fn encodes_known_keys() {
        assert_eq!(encode_32(&[0; 32]), "1".repeat(32));
        let mut one = [0; 32];
        one[31] = 58;
        assert_eq!(encode_32(&one), format!("{}21", "1".repeat(31)));
        let mint = hex::decode("c6fa7af3bedbad3a3d65f36aabc97431b1bbe4c2d2f6e0e47ca60203452f5d61").unwrap();
        assert_eq!(encode_32(&mint.try_into().unwrap()), "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v");
    }

    #[test]
    fn known_accounts_decode() {
        // The system program is 32 zero bytes; the token program's bytes are from Solana's documentation.
        assert_eq!(decode_32(&"1".repeat(32)), Some([0; 32]));
        let token = decode_32("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA").unwrap();
        assert_eq!(
            hex::encode(token),
            "06ddf6e1d765a193d9cbe146ceeb79ac1cb485ed5f5b37913a8cf5857eff00a9"
        );
        assert!(decode_32("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v").is_some());
    }

    #[test]
    fn other_texts_do_not() {
        let long = "z".repeat(44);
        let padded = format!("1{}", "1".repeat(32));
        for text in [
            "",
            "1",
            "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyT",
            &long,
            &padded,
            "\u{e9}",
        ] {
            assert_eq!(decode_32(text), None, "{text}");
        }
        assert_eq!(
            decode_32("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1l"),
            None,
            "l is not in the alphabet"
        );
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 32]) {
            prop_assert_eq!(decode_32(&encode_32(&bytes)), Some(bytes));
        }

        #[test]
        fn never_panics(text: String) {
            let _ = decode_32(&text);
        }
    }
}
