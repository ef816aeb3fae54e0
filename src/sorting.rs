//! Sorting of short lists. The standard library's costs several kilobytes for each kind of element, which the module has no room for.

/// Sorts, and keeps the order of equal elements. Takes a quadratic number of steps, unless they are nearly in order.
pub(crate) fn sort<T>(list: &mut [T], is_less: impl Fn(&T, &T) -> bool) {
    for end in 1..list.len() {
        let mut at = end;
        while let Some([before, this]) = at.checked_sub(1).and_then(|before| list.get_mut(before..=at)) {
            if !is_less(this, before) {
                break;
            }
            core::mem::swap(before, this);
            at = at.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts_as_the_standard_library_does(mut list in prop::collection::vec((0u8..8, any::<u16>()), 0..40)) {
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort(&mut list, |one, other| one.0 < other.0);
            prop_assert_eq!(list, expected);
        }
    }
}
