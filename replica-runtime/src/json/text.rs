//! Text to JSON. Most texts need no escape: one look in wide steps finds that out, and they are copied in one go. Those
//! that need one go the slow way.
//!
//! Instructions to encode 158 KB of records, 18,161 keys and texts among them, by callgrind: 4,940,000, and 6,050,000 with
//! `serde_json`, which looks at each byte and copies piece by piece. `examples/json_side_by_side.rs` says how to count.

/// Appends `text` in quotes, as `serde_json` does.
pub(super) fn push(out: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("text always serializes into memory");
    }
}

/// No byte of it is escaped in JSON. The last step may look again at bytes of the one before.
fn is_plain(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        let is_plain = |word: &[u8; 8]| is_plain_word(u64::from_le_bytes(*word));
        return bytes.as_chunks::<8>().0.iter().all(is_plain) && is_plain(last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return is_plain_word(u64::from(first) | u64::from(last) << 32);
    }
    !bytes.iter().any(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
}

/// Eight bytes at once. A byte below `n` has its top bit set after `n` is taken from it and had it not before; a byte that
/// is `c` is below 1 after `^ c`. A borrow can only come from a byte that counts itself.
fn is_plain_word(word: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, n: u8| word.wrapping_sub(EACH * u64::from(n)) & !word & (EACH << 7);
    let equal = |c: u8| below(word ^ (EACH * u64::from(c)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\') == 0
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

    proptest! {
        #[test]
        fn any_text_is_as_serde_json_has_it(text in any::<String>()) {
            prop_assert_eq!(pushed(&text), format!("[{}", serde_json::to_string(&text).unwrap()));
        }
    }
}
