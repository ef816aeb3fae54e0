//! Doubles as people write them. The standard library's way takes fourteen kilobytes, beside what `serde_json` brings for the same.

/// A shortest decimal that reads back as the same double, without an exponent: what [`f64`] displays, or as near to it. `None` for what is no
/// number, and for what has more than a hundred zeros: nobody means it.
pub(crate) fn written(number: f64) -> Option<String> {
    let text = serde_json::Number::from_f64(number)?.to_string();
    let (sign, text) = text.strip_prefix('-').map_or(("", &*text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    let exponent: i32 = exponent.parse().ok()?;
    let (digits, point) = (
        format!("{whole}{fraction}"),
        i32::try_from(whole.len()).ok()?.checked_add(exponent)?,
    );
    if !(-100..=100).contains(&point) {
        return None;
    }
    // Where the point is among the digits: zeros are missing before them, after them, or nowhere.
    let before = usize::try_from(1_i32.saturating_sub(point)).unwrap_or(0);
    let point = usize::try_from(point.max(1)).ok()?;
    let padded = format!("{}{digits}", "0".repeat(before));
    let after = point.saturating_sub(padded.len());
    let padded = format!("{padded}{}", "0".repeat(after));
    let (whole, fraction) = padded.split_at_checked(point)?;
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{dot}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zeros_and_points_are_where_they_belong() {
        for number in [
            0.0,
            -0.0,
            1.0,
            -1.0,
            10.0,
            100.0,
            0.1,
            0.01,
            1.5,
            1e-5,
            1.25e-7,
            1e15,
            1e16,
            1e17,
            1.5e16,
            123_456_789.125,
            1e21,
            1e99,
        ] {
            assert_eq!(written(number), Some(number.to_string()));
        }
        for number in [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(written(number), None);
        }
    }

    proptest! {
        #[test]
        fn it_is_as_short_as_what_the_standard_library_writes(bits in any::<u64>(), whole in -10_000_i32..10_000, places in 0..12) {
            for number in [f64::from_bits(bits), f64::from(whole) / 10_f64.powi(places)] {
                if let Some(text) = written(number) {
                    prop_assert_eq!(text.parse(), Ok(number), "{}", text);
                    prop_assert_eq!(text.len(), number.to_string().len(), "{}", text);
                }
            }
        }
    }
}
