//! Text to JSON, and what of JSON is text. Most texts hold nothing that is escaped: they are copied word by word, each
//! looked at on its way. Those that do go the slow way.
//!
//! Instructions to encode 158 KB of records, 18,161 keys and texts among them, by callgrind: 3,390,000; 4,420,000 when
//! texts were looked at and then copied and each value was a call; 2,450,000 by `orjson`.
//! `examples/json_side_by_side.rs` says how to count.

use pyo3::{ffi, prelude::*, types::PyString};

/// The UTF-8 of a `str`, unless it holds a lone surrogate. Of ASCII, which most is, that is its own memory.
#[inline]
pub(super) fn of<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    #[cfg(not(Py_3_14))]
    // SAFETY: `text` is a live `str`, and its characters never change. The characters of a compact ASCII one are so many
    // bytes behind its head, and ASCII is UTF-8.
    unsafe {
        let object = text.as_ptr();
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) != 0 {
            let length = ffi::PyUnicode_GET_LENGTH(object).unsigned_abs();
            let bytes = std::slice::from_raw_parts(ffi::PyUnicode_1BYTE_DATA(object), length);
            return Some(str::from_utf8_unchecked(bytes));
        }
    }
    text.to_str().ok()
}

/// Appends `text` in quotes, as `serde_json` does.
pub(super) fn push(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // A word more, since the last one is written whole.
    out.reserve(bytes.len() + 2 + WORD);
    let begin = out.len();
    let (words, rest) = bytes.as_chunks::<WORD>();
    let mut found = 0;
    // SAFETY: all is written within the room that was just made: a quote, the words, one more that begins where they end,
    // and a quote that lies in it or behind it. Of these the bytes up to the last quote are made a part of `out`.
    unsafe {
        let mut place = out.as_mut_ptr().add(begin);
        *place = b'"';
        place = place.add(1);
        for word in words {
            found |= stops(u64::from_le_bytes(*word));
            place.cast::<[u8; WORD]>().write_unaligned(*word);
            place = place.add(WORD);
        }
        let (word, is_of_rest) = rest_of(bytes, rest.len());
        // What is behind the rest counts as well in `stops`, but is above it.
        found |= stops(word) & is_of_rest;
        place.cast::<[u8; WORD]>().write_unaligned(word.to_le_bytes());
        *place.add(rest.len()) = b'"';
        if found == 0 {
            out.set_len(begin + bytes.len() + 2);
            return;
        }
    }
    serde_json::to_writer(out, text).expect("text always serializes into memory");
}

/// The last `length` of some bytes, less than a word, and the bits that are theirs.
#[inline]
fn rest_of(bytes: &[u8], length: usize) -> (u64, u64) {
    let word = if let Some(last) = bytes.last_chunk::<WORD>() {
        u64::from_le_bytes(*last).unbounded_shr(8 * (WORD - length) as u32)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u64::from(first) | u64::from(last) << (8 * (length - 4))
    } else {
        bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    (word, (1 << (8 * length)) - 1)
}

/// Bytes up to the first that is a quote, a backslash or a control character, and whether they are ASCII.
pub(super) fn plain_bytes(bytes: &[u8]) -> (usize, bool) {
    const NOT_ASCII: u64 = EACH << 7;
    let mut seen = 0;
    let (words, rest) = bytes.as_chunks::<WORD>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let stops = stops(word);
        if stops != 0 {
            // The lowest one is never a borrow of another.
            let length = stops.trailing_zeros() / 8;
            seen |= word & !u64::MAX.unbounded_shl(8 * length);
            return (index * WORD + length as usize, seen & NOT_ASCII == 0);
        }
        seen |= word;
    }
    let length = rest.iter().take_while(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\')).count();
    (words.len() * WORD + length, seen & NOT_ASCII == 0 && rest[..length].is_ascii())
}

const WORD: usize = 8;
const EACH: u64 = 0x0101_0101_0101_0101;

/// The top bits of those of eight bytes that are escaped in JSON; above the lowest one there may be others. A byte below `n`
/// has its top bit set after `n` is taken from it and had it not before; a byte that is `c` is below 1 after `^ c`. A borrow
/// can only come from a byte that counts itself.
fn stops(word: u64) -> u64 {
    let less = |word: u64, n: u8| word.wrapping_sub(EACH * u64::from(n));
    let equal = |c: u8| less(word ^ (EACH * u64::from(c)), 1);
    // `^ c` leaves the top bits as they are.
    (less(word, 0x20) | equal(b'"') | equal(b'\\')) & !word & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pushed(text: &str) -> String {
        let mut out = b"[".to_vec();
        push(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_escape_is_seen_at_every_place_of_every_length() {
        for length in 0..70 {
            let plain = "é~ ".chars().cycle().take(length).collect::<Vec<char>>();
            for at in 0..=length {
                for escaped in ['"', '\\', '\n', '\0', '\u{1f}', '\u{7f}', 'x'] {
                    let mut text = plain.clone();
                    text.insert(at, escaped);
                    let text: String = text.into_iter().collect();
                    assert_eq!(pushed(&text), format!("[{}", serde_json::to_string(&text).unwrap()));
                }
            }
        }
    }

    #[test]
    fn plain_bytes_end_at_the_first_stop() {
        for length in 0..70 {
            let plain = "x~ é".chars().cycle().take(length).collect::<String>();
            for plain in [&plain, &"y".repeat(length)] {
                for stop in ["", "\"", "\\", "\n", "\u{1f}\u{20}\u{19}\""] {
                    let text = format!("{plain}{stop}{}", if stop.is_empty() { "" } else { "é\"\\ behind" });
                    assert_eq!(plain_bytes(text.as_bytes()), (plain.len(), plain.is_ascii()), "{text}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_as_serde_json_has_it(text in any::<String>()) {
            prop_assert_eq!(pushed(&text), format!("[{}", serde_json::to_string(&text).unwrap()));
        }
    }
}
