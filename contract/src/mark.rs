//! Replica → supervisor, within what the replica prints: marks that say whose the bytes behind them are.
//!
//! A line is read after it was printed, perhaps when another call runs; only what lies in the pipe itself can say where
//! one call's lines end. So a runtime may put a mark before the first bytes that a call prints to a stream, and another
//! behind the last. A call that prints nothing writes none. A mark is written by one `write` of at most `PIPE_BUF` bytes,
//! so that nothing of other threads or processes gets into it.
//!
//! ```text
//! NUL m g SPACE <request id> NUL     from here on it is this request's
//! NUL m g SPACE NUL                  from here on it is nobody's in particular
//! ```
//!
//! User code that prints a mark of its own attributes its own lines to another request, and can do nothing else by it:
//! a mark is no line, and an id is well formed.

use crate::{
    ids::{RequestId, is_request_id},
    limits::REQUEST_ID_BYTES_MAX,
};

const OPENING: &[u8] = b"\0mg ";
/// Bytes of the longest mark.
pub const MARK_BYTES_MAX: usize = OPENING.len() + REQUEST_ID_BYTES_MAX + 1;

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
pub fn encode(request_id: Option<&RequestId>) -> Vec<u8> {
    let id = request_id.map_or("", RequestId::as_str);
    [OPENING, id.as_bytes(), b"\0"].concat()
}

/// Looks at bytes that begin with a NUL.
pub fn parse(bytes: &[u8]) -> Parsed {
    let opening = &bytes[..bytes.len().min(OPENING.len())];
    if !OPENING.starts_with(opening) {
        return Parsed::Text;
    }
    let rest = &bytes[opening.len()..];
    let end = rest.iter().take(REQUEST_ID_BYTES_MAX + 1).position(|byte| *byte == 0);
    let id = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).unwrap_or("\0");
    match end {
        Some(0) => Parsed::Mark(None, OPENING.len() + 1),
        Some(end) if is_request_id(id) => Parsed::Mark(Some(RequestId::new(id)), OPENING.len() + end + 1),
        None if id.is_empty() || is_request_id(id) => Parsed::Beginning,
        _ => Parsed::Text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_mark_is_text() {
        for text in
            ["\0", "\0m", "\0mg", "\0mg ", "\0mg a", &format!("\0mg {}", "a".repeat(REQUEST_ID_BYTES_MAX))]
        {
            assert_eq!(parse(text.as_bytes()), Parsed::Beginning, "{text:?}");
        }
        let too_long = "a".repeat(REQUEST_ID_BYTES_MAX + 1);
        for text in ["\0x", "\0mgx", "\0mg a b", "\0mg a\n\0", "\0mg \u{e9}\0", &format!("\0mg {too_long}")] {
            assert_eq!(parse(text.as_bytes()), Parsed::Text, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written_and_any_cut_of_it_waits_for_more(
            id in proptest::option::of("[A-Za-z0-9._:/+=-]{1,128}"),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let id = id.map(RequestId::new);
            let mark = encode(id.as_ref());
            prop_assert!(mark.len() <= MARK_BYTES_MAX);
            for cut in 1..mark.len() {
                prop_assert_eq!(parse(&mark[..cut]), Parsed::Beginning);
            }
            let length = mark.len();
            prop_assert_eq!(parse(&[mark, behind].concat()), Parsed::Mark(id, length));
        }
    }
}
