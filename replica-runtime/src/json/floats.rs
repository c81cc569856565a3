//! Many floats of a list at once, by AVX2 where the processor has it: 32 bytes are looked at, and up to 24 digits become their
//! value, by a few instructions. As [`super::number`] reads them; what is not as most programs write floats is left to that.
//!
//! JSON in for 1 MB of floats takes 14.5 million instructions so, of which Python's objects are over a half, and 19.9 million one
//! float by one. Together with what the gateway's `split::numbers` saves that is 1.10 times as many calls, side by side.

/// Floats that are read at once.
pub(super) const BATCH: usize = 32;

/// Reads floats with a comma, and perhaps a space, behind each, from `json[at..]`. How many, and where what follows begins.
#[inline]
pub(super) fn read(json: &[u8], at: usize, floats: &mut [f64; BATCH]) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what it asks for.
        return unsafe { avx2::read(json, at, floats) };
    }
    let _ = (json, floats);
    (0, at)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_cvtsi128_si64, _mm256_and_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8,
        _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
        _mm256_min_epu8, _mm256_movemask_epi8, _mm256_packus_epi32, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_sub_epi8,
    };

    use super::{
        super::number::{POWERS, WORD_DIGITS, quotient},
        BATCH,
    };

    const WINDOW_BYTES: usize = 32;

    /// A window of these that begins at the n-th byte keeps the last n bytes of another.
    const LAST: [u8; 2 * WINDOW_BYTES] = {
        let mut bytes = [0; 2 * WINDOW_BYTES];
        let mut at = WINDOW_BYTES;
        while at < bytes.len() {
            bytes[at] = 0xFF;
            at += 1;
        }
        bytes
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn read(json: &[u8], mut at: usize, floats: &mut [f64; BATCH]) -> (usize, usize) {
        let mut count = 0;
        for float in floats {
            let is_negative = json.get(at) == Some(&b'-');
            let begin = at + usize::from(is_negative);
            let Some((size, end)) = one(json, begin) else { break };
            *float = if is_negative { -size } else { size };
            count += 1;
            at = end + 1;
            at += usize::from(json.get(at) == Some(&b' '));
        }
        (count, at)
    }

    /// The float without a sign at `begin`, and where its comma is. It has one digit before the point.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn one(json: &[u8], begin: usize) -> Option<(f64, usize)> {
        let window = json.get(begin..)?.first_chunk::<WINDOW_BYTES>()?;
        let nine = _mm256_set1_epi8(9);
        let values = values(window);
        let digits =
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_min_epu8(values, nine), values)).cast_unsigned();
        let places = (digits >> 2).trailing_ones() as usize;
        let first = u64::from(window[0].wrapping_sub(b'0'));
        let places_max = WORD_DIGITS - usize::from(first > 0);
        if first > 9 || window[1] != b'.' || !(1..=places_max).contains(&places) || window[2 + places] != b','
        {
            return None;
        }
        let end = begin + 2 + places;
        // At the very front of a text there are not as many bytes.
        let last = json[..end].last_chunk()?;
        let value = first * POWERS[places] + last_digits(last, places);
        Some((quotient(value, places), end))
    }

    /// The value of the last bytes of a window, all of them digits, 24 at most.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn last_digits(window: &[u8; WINDOW_BYTES], count: usize) -> u64 {
        let kept = LAST[count..].first_chunk().expect("at most a window's bytes");
        let ones = _mm256_and_si256(values(window), load(kept));
        let pairs = _mm256_maddubs_epi16(ones, _mm256_set1_epi16((1 << 8) + 10));
        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32((1 << 16) + 100));
        let eights =
            _mm256_madd_epi16(_mm256_packus_epi32(fours, fours), _mm256_set1_epi32((1 << 16) + 10_000));
        // Of each half its first eight digits in the low word, the others above.
        let front = _mm_cvtsi128_si64(_mm256_castsi256_si128(eights)).cast_unsigned();
        let back = _mm_cvtsi128_si64(_mm256_extracti128_si256(eights, 1)).cast_unsigned();
        (front >> 32) * 10_000_000_000_000_000 + (back & 0xFFFF_FFFF) * 100_000_000 + (back >> 32)
    }

    /// Of each byte, if it is a digit; others are over 9.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn values(window: &[u8; WINDOW_BYTES]) -> __m256i {
        _mm256_sub_epi8(load(window), _mm256_set1_epi8(b'0'.cast_signed()))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(window: &[u8; WINDOW_BYTES]) -> __m256i {
        // SAFETY: as many bytes as are read, at whatever address.
        unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of a text by as many calls as it takes, and how much of it that is. Of a whole text the first and the last
    /// bytes are left to others.
    fn all(text: &str) -> (Vec<u64>, &str) {
        let around = " ".repeat(32);
        let json = format!("{around}{text}{around}");
        let (mut all, mut at, mut floats) = (Vec::new(), around.len(), [0.0; BATCH]);
        loop {
            let count;
            (count, at) = read(json.as_bytes(), at, &mut floats);
            all.extend(floats[..count].iter().map(|float| float.to_bits()));
            if count < BATCH {
                return (all, &text[..text.len().min(at - around.len())]);
            }
        }
    }

    /// The same by the standard library, for text that is only floats and commas.
    fn by_the_standard_library(text: &str) -> Vec<u64> {
        let floats = text.trim_end().split_terminator(',').map(|text| text.strip_prefix(' ').unwrap_or(text));
        floats.map(|text| text.parse::<f64>().unwrap().to_bits()).collect()
    }

    #[test]
    fn usual_floats_are_all_read() {
        let text =
            "0.13436424411240122, -0.5,8.25, -9.000000000000000001,0.0000000000000000001, -0.0, ".repeat(50);
        let (floats, read) = all(&text);
        assert_eq!(floats, by_the_standard_library(read));
        if is_x86_feature_detected!("avx2") {
            assert_eq!(read, text);
        }
    }

    #[test]
    fn what_is_no_usual_float_is_left() {
        let before = "0.25,".repeat(8);
        for wrong in [
            "1",
            "-1",
            "10.5",
            "0.5e3",
            "0.5E3",
            "1.",
            "-.5",
            ".5",
            "--1.5",
            "+1.5",
            "01.5",
            "1.5.5",
            "1.5 ",
            "1.5]",
            "x.5",
            "-x.5",
            "1.-5",
            "\"1.5\"",
            "1.0000000000000000000",
            "0.00000000000000000001",
            "9.99999999999999999999999999999999",
            "",
            " ",
        ] {
            let text = format!("{before}{wrong},");
            let (_, read) = all(&text);
            assert!(before.starts_with(read.trim_end()), "{wrong:?}: {read:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        /// Of any text of these characters.
        #[test]
        fn what_is_read_are_the_floats_that_stand_there(
            text in "((-?[0-9]\\.[0-9]{1,20}|-?[0-9]\\.0{0,9}[0-9]{8,12}), ?){0,60}[-0-9., e]{0,60}",
            change in any::<prop::sample::Index>(),
            new in "[-0-9., e\\]]",
            is_changed: bool,
        ) {
            let mut text = format!("{text},");
            if is_changed {
                let at = change.index(text.len());
                text.replace_range(at..=at, &new);
            }
            let (floats, read) = all(&text);
            prop_assert_eq!(floats, by_the_standard_library(read));
        }
    }
}
