//! Replica → supervisor, within what the replica prints: marks that say whose the bytes behind them are.
//!
//! A line is read after it was printed, perhaps when another call runs; only what lies in the pipe itself can say where
//! one call's lines end. So a runtime may put a mark before the first bytes that a call prints to a stream, and another
//! behind the last. A call that prints nothing writes none. A mark is written by one `write` of at most `PIPE_BUF` bytes,
//! so that nothing of other threads or processes gets into it.
//!
//! ```text
//! NUL m g <key> SPACE <request id> NUL     from here on it is this request's
//! NUL m g <key> SPACE NUL                  from here on it is nobody's in particular
//! ```
//!
//! The key is 16 hexadecimal digits, drawn for each replica and handed over on its page ([`crate::page`]): a function that
//! prints what a caller has sent prints no mark, whatever that is. User code could find the key in its own memory; by
//! that it attributes its own lines to another request, and can do nothing else: a mark is no line, and an id is well
//! formed.

use crate::{
    ids::{RequestId, is_request_id},
    limits::REQUEST_ID_BYTES_MAX,
};

const OPENING_BYTES: usize = "\0mg0123456789abcdef ".len();
/// Bytes of the longest mark.
pub const MARK_BYTES_MAX: usize = OPENING_BYTES + REQUEST_ID_BYTES_MAX + 1;

/// What a replica and its supervisor know, and its callers do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkKey(pub u64);

impl MarkKey {
    fn opening(self) -> Vec<u8> {
        format!("\0mg{:016x} ", self.0).into_bytes()
    }
}

/// What bytes that begin with a NUL are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A mark of so many bytes.
    Mark(Option<RequestId>, usize),
    /// Perhaps the beginning of one: less than [`MARK_BYTES_MAX`] bytes that more must follow.
    Beginning,
    /// The NUL is text.
    Text,
}

/// The mark before what a request prints, or (none) behind it.
pub fn encode(key: MarkKey, request_id: Option<&RequestId>) -> Vec<u8> {
    let id = request_id.map_or("", RequestId::as_str);
    [&key.opening(), id.as_bytes(), b"\0"].concat()
}

/// Looks at bytes that begin with a NUL.
pub fn parse(key: MarkKey, bytes: &[u8]) -> Parsed {
    let opening = key.opening();
    let begun = &bytes[..bytes.len().min(OPENING_BYTES)];
    if !opening.starts_with(begun) {
        return Parsed::Text;
    }
    let rest = &bytes[begun.len()..];
    let end = rest.iter().take(REQUEST_ID_BYTES_MAX + 1).position(|byte| *byte == 0);
    let id = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).unwrap_or("\0");
    match end {
        Some(0) => Parsed::Mark(None, OPENING_BYTES + 1),
        Some(end) if is_request_id(id) => Parsed::Mark(Some(RequestId::new(id)), OPENING_BYTES + end + 1),
        None if id.is_empty() || is_request_id(id) => Parsed::Beginning,
        _ => Parsed::Text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: MarkKey = MarkKey(0xfeed);
    const OPENING: &str = "\0mg000000000000feed ";

    #[test]
    fn what_is_no_mark_is_text() {
        let longest = format!("{OPENING}{}", "a".repeat(REQUEST_ID_BYTES_MAX));
        for text in ["\0", "\0m", "\0mg", "\0mg000000000000fee", OPENING, &longest] {
            assert_eq!(parse(KEY, text.as_bytes()), Parsed::Beginning, "{text:?}");
        }
        for text in [
            "\0x",
            "\0mgx",
            "\0mg ",
            "\0mg000000000000fee ",
            "\0mg000000000000feed\0",
            "\0mg000000000000FEED a\0",
        ] {
            assert_eq!(parse(KEY, text.as_bytes()), Parsed::Text, "{text:?}");
        }
        for id in ["a b", "a\n\0", "\u{e9}\0", &"a".repeat(REQUEST_ID_BYTES_MAX + 1)] {
            assert_eq!(parse(KEY, format!("{OPENING}{id}").as_bytes()), Parsed::Text, "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written_and_any_cut_of_it_waits_for_more(
            id in proptest::option::of("[A-Za-z0-9._:/+=-]{1,128}"),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
            key: u64,
        ) {
            let (id, key) = (id.map(RequestId::new), MarkKey(key));
            let mark = encode(key, id.as_ref());
            prop_assert!(mark.len() <= MARK_BYTES_MAX);
            for cut in 1..mark.len() {
                prop_assert_eq!(parse(key, &mark[..cut]), Parsed::Beginning);
            }
            prop_assert_eq!(parse(MarkKey(key.0 ^ 1), &mark), Parsed::Text);
            let length = mark.len();
            prop_assert_eq!(parse(key, &[mark, behind].concat()), Parsed::Mark(id, length));
        }
    }
}
