//! Makes ids and names: the one place that decides their form.

use millgate_contract::ids::ProjectId;
use ring::rand::{SecureRandom, SystemRandom};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// `count` characters of `[a-z0-9]`, each equally likely.
pub(crate) fn random_text(count: usize) -> String {
    let random = SystemRandom::new();
    let mut text = String::with_capacity(count);
    let mut bytes = [0_u8; 64];
    while text.len() < count {
        random.fill(&mut bytes).expect("the system's random source answers");
        // 252 is the largest multiple of 36 in a byte: higher values would make some characters likelier.
        for b in bytes.iter().filter(|b| **b < 252).take(count - text.len()) {
            text.push(char::from(ALPHABET[usize::from(*b) % 36]));
        }
    }
    text
}

/// `xxxx-xxxx-xxxx-xxxx`.
pub(crate) fn project_id() -> ProjectId {
    let text = random_text(16);
    ProjectId::new(format!("{}-{}-{}-{}", &text[..4], &text[4..8], &text[8..12], &text[12..]))
}

/// A UUID, version 4.
pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The CRN of an object: public form, this server's workspace in it.
pub(crate) fn crn(workspace: &str, id: &str) -> String {
    format!("crn:cdp:ml:us-west-1:millgate:workspace:{workspace}/{id}")
}

/// True of a text with control characters, with ones that are not shown, or that turn the direction of what is around
/// them: it may look like another.
pub(crate) fn hides_something(text: &str) -> bool {
    text.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads what [`hex`] wrote.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_ids_are_four_groups_of_four() {
        let id = project_id();
        assert_eq!(id.as_str().split('-').map(str::len).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert_ne!(id, project_id());
    }

    #[test]
    fn a_name_that_looks_like_another_hides_something() {
        for text in ["a\tb", "a\0", "add\u{200b}", "\u{202e}dda", "a\u{2066}b", "\u{feff}add", "a\u{e0041}"] {
            assert!(hides_something(text), "{text:?}");
        }
        for text in ["add two", "Ünïcode", "e\u{301}", "日本語", "a/b", "🙂"] {
            assert!(!hides_something(text), "{text:?}");
        }
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(unhex(&hex(&[0, 255, 16])).unwrap(), [0, 255, 16]);
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
