//! UUIDs of predictions: which row is meant, and when its call began.
//!
//! They are of version 4: 74 bits are random, and the 48 before them are the call's start in Unix milliseconds, covered
//! with bits that follow from the random ones. So they cannot be told from others of version 4, nor be ordered, while
//! whoever keeps rows by their start finds one by its UUID, without an index of UUIDs: of random ones each new entry goes
//! to a page of such an index of its own. The cover hides nothing from those who read this, and need not: a row says when
//! it began. Any other UUID has some start as well, at which there is no such row.

/// Random bytes of one id; six of their bits are version and variant.
pub const RANDOM_BYTES: usize = 10;

const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
const START_BITS: u64 = (1 << 48) - 1;

/// The UUID of a prediction whose call began then.
pub fn new(start_ms: u64, mut random: [u8; RANDOM_BYTES]) -> String {
    random[0] = random[0] & 0x0f | 0x40;
    random[2] = random[2] & 0x3f | 0x80;
    let head = (start_ms ^ cover(&random)) & START_BITS;
    let mut text = String::with_capacity(TEXT_BYTES);
    for byte in head.to_be_bytes()[2..].iter().chain(&random) {
        if HYPHENS.contains(&text.len()) {
            text.push('-');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    text
}

/// When the call of a prediction began; nothing where this is no UUID of version 4 in its usual form.
pub fn start_ms(uuid: &str) -> Option<u64> {
    let text: &[u8; TEXT_BYTES] = uuid.as_bytes().try_into().ok()?;
    let mut digits = 0_u128;
    for (at, character) in text.iter().enumerate() {
        if HYPHENS.contains(&at) {
            if *character != b'-' {
                return None;
            }
            continue;
        }
        let digit = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            _ => return None,
        };
        digits = digits << 4 | u128::from(digit);
    }
    let random: [u8; RANDOM_BYTES] = *digits.to_be_bytes().last_chunk()?;
    let is_version_4 = random[0] & 0xf0 == 0x40 && random[2] & 0xc0 == 0x80;
    let head = u64::try_from(digits >> (8 * RANDOM_BYTES)).ok()?;
    is_version_4.then(|| (head ^ cover(&random)) & START_BITS)
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): each bit of it
/// depends on all that go in.
fn cover(random: &[u8; RANDOM_BYTES]) -> u64 {
    let [a, b, rest @ ..] = random;
    let ahead = u64::from(u16::from_be_bytes([*a, *b])).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = u64::from_be_bytes(*rest) ^ ahead;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_start_comes_back_from_an_id_in_the_form_of_version_4(start in 0..=START_BITS, random: [u8; RANDOM_BYTES]) {
            let id = new(start, random);
            prop_assert_eq!(start_ms(&id), Some(start));
            let marks: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
            prop_assert_eq!((id.len(), marks), (TEXT_BYTES, HYPHENS.to_vec()));
            prop_assert_eq!(&id[14..15], "4");
            prop_assert!("89ab".contains(&id[19..20]));
        }

        #[test]
        fn hostile_text_never_panics(text in ".{0,40}") {
            let _ = start_ms(&text);
        }
    }

    #[test]
    fn ids_keep_their_form() {
        assert_eq!(new(1_746_629_493_901, *b"0123456789"), "9ff1c06c-bd84-4031-b233-343536373839");
    }

    #[test]
    fn what_is_no_such_uuid_has_no_start() {
        let id = new(1, [7; RANDOM_BYTES]);
        let wrong = [
            String::new(),
            id.to_uppercase(),
            id.replace('-', "0"),
            format!("{id}0"),
            id.replacen("-4", "-7", 1),
        ];
        for wrong in wrong {
            assert_eq!(start_ms(&wrong), None, "{wrong}");
        }
        assert_eq!(start_ms("0b6d2f1e-0000-4000-c000-000000000000"), None);
    }

    /// Of one millisecond and of neighbours, by ids whose random bytes differ as little as they can.
    #[test]
    fn heads_of_ids_look_random() {
        let mut heads = BTreeSet::new();
        let mut ones = [0_u32; 48];
        for n in 0..10_000_u64 {
            let mut random = [0; RANDOM_BYTES];
            random[2..].copy_from_slice(&(n / 2).to_be_bytes());
            let id = new(1_746_629_493_901 + n % 2, random);
            let head = u64::from_str_radix(&id[..13].replace('-', ""), 16).unwrap();
            assert!(heads.insert(head));
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += u32::from(head >> bit & 1 == 1);
            }
        }
        assert!(ones.iter().all(|ones| (4_700..5_300).contains(ones)), "{ones:?}");
    }
}
