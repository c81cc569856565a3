//! Many numbers of an array at once, as `simdjson` and Parabix do it: each byte of a window is put into classes, a bit of a mask for each, and the
//! grammar of numbers is asked of the masks. What has an exponent or unusual blanks is left to be looked at one by one.
//!
//! 50,000 floats are split with 4.1 million instructions so; one by one with 7.2 million.

use wide::u8x16;

/// Bytes of a window.
const WINDOW_BYTES: usize = 64;

/// Bytes of the numbers at the front of `text`, each with its comma and the spaces behind it. Not of all of them: what follows
/// may be a number, too.
pub(super) fn with_commas(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(window) = text[at..].first_chunk() {
        let bytes = Classes::of(window).numbers();
        if bytes == 0 {
            break;
        }
        at += bytes;
        at += text[at..].iter().take_while(|b| **b == b' ').count();
    }
    at
}

/// Which bytes of a window are what: the first byte is the lowest bit.
struct Classes {
    digits: u64,
    zeros: u64,
    points: u64,
    signs: u64,
    commas: u64,
    spaces: u64,
}

impl Classes {
    #[inline]
    fn of(window: &[u8; WINDOW_BYTES]) -> Self {
        let quarters = window.as_chunks().0;
        let nine = u8x16::splat(9);
        Self {
            digits: bits(quarters, |bytes| (bytes - u8x16::splat(b'0')).max(nine).simd_eq(nine)),
            zeros: bits(quarters, |bytes| bytes.simd_eq(u8x16::splat(b'0'))),
            points: bits(quarters, |bytes| bytes.simd_eq(u8x16::splat(b'.'))),
            signs: bits(quarters, |bytes| bytes.simd_eq(u8x16::splat(b'-'))),
            commas: bits(quarters, |bytes| bytes.simd_eq(u8x16::splat(b','))),
            spaces: bits(quarters, |bytes| bytes.simd_eq(u8x16::splat(b' '))),
        }
    }

    /// Bytes up to the last comma of what can only be numbers with commas and spaces behind them; 0 if they are not, or if
    /// there is no comma.
    #[inline]
    fn numbers(&self) -> usize {
        let known = self.digits | self.points | self.signs | self.commas | self.spaces;
        let rest = u64::MAX.checked_shl(known.trailing_ones()).unwrap_or(0);
        let bytes = u64::BITS - (self.commas & !rest).leading_zeros();
        let Some(above) = u64::BITS.checked_sub(bytes).filter(|above| *above < u64::BITS) else { return 0 };
        let all = u64::MAX >> above;
        let (digits, points, signs) = (self.digits & all, self.points & all, self.signs & all);

        let numbers = digits | points | signs;
        let begins = numbers & !(numbers << 1);
        let ends = !numbers & (numbers << 1);
        let first_digits = begins & digits | signs << 1;
        // The addition carries through the digits behind a point, to what stands behind them.
        let after_fractions = digits.wrapping_add(points << 1) & !digits;
        let wrong = (!numbers & 1)
            | (ends ^ (self.commas & all))
            | (signs & !begins)
            | ((signs << 1 | points << 1) & !digits)
            | (points & !(digits << 1))
            | (after_fractions & points)
            | (((first_digits & self.zeros) << 1) & digits);
        if wrong == 0 { bytes as usize } else { 0 }
    }
}

/// A bit for each byte that `is` so.
#[inline]
fn bits(quarters: &[[u8; 16]], is: impl Fn(u8x16) -> u8x16) -> u64 {
    quarters
        .iter()
        .rev()
        .fold(0, |bits, quarter| bits << 16 | u64::from(is(u8x16::new(*quarter)).to_bitmask()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One number, a comma, and as many spaces as there are.
    fn one_by_one(text: &[u8]) -> Option<usize> {
        let end = text.iter().position(|b| *b == b',')?;
        let number = str::from_utf8(&text[..end]).ok()?;
        let is_number = number.trim() == number && serde_json::from_str::<serde_json::Number>(number).is_ok();
        let spaces = text[end + 1..].iter().take_while(|b| **b == b' ').count();
        is_number.then_some(end + 1 + spaces)
    }

    fn is_made_of_numbers(mut text: &[u8]) -> bool {
        while !text.is_empty() {
            let Some(bytes) = one_by_one(text) else { return false };
            text = &text[bytes..];
        }
        true
    }

    #[test]
    fn usual_numbers_are_taken_up_to_the_last_window() {
        let text = "0.13436424411240122, -17, 0, 8.5,90210,-0.0,  ".repeat(100);
        let taken = with_commas(text.as_bytes());
        assert!(text.len() - taken < WINDOW_BYTES, "{taken} of {}", text.len());
        assert!(is_made_of_numbers(&text.as_bytes()[..taken]));
    }

    #[test]
    fn what_is_no_number_ends_them() {
        for wrong in [
            "01", "-01", "00", "-", "--1", "1-", "1-2", "1.", ".5", "-.5", "1..2", "1.2.3", "1 2", "", " ",
            "1 ", "0.5.", "1.-2", "0x", "1e5", "\"1\"", "]", "1]", "-]",
        ] {
            for before in 0..40 {
                let good = "7,".repeat(before);
                let text = format!("{good}{wrong},{}", "8, ".repeat(40));
                let taken = text[..with_commas(text.as_bytes())].trim_end().len();
                assert!(taken <= good.len(), "{wrong:?} behind {before}: {taken}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// Of any text of these characters, also of one that was numbers until a byte of it was changed.
        #[test]
        fn only_numbers_are_taken(
            mut text in "((-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,20})?), ?){1,40}[-0-9., ]{0,80}",
            changes in prop::collection::vec((any::<prop::sample::Index>(), "[-0-9., e\\]]"), 0..3),
        ) {
            for (at, new) in changes {
                let at = at.index(text.len());
                text.replace_range(at..=at, &new);
            }
            let taken = with_commas(text.as_bytes());
            prop_assert!(is_made_of_numbers(&text.as_bytes()[..taken]), "{:?}", &text[..taken]);
        }
    }
}
