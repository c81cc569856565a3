//! Bytes of a pipe into lines, and marks out of them ([`millgate_contract::mark`]). Holds at most one line's limit and one
//! mark's.

use millgate_contract::{
    ids::RequestId,
    limits::LOG_LINE_BYTES_MAX,
    mark::{self, MarkKey, Parsed},
};

/// Behind a line that was cut.
const CUT_MARK: &str = " … (cut)";

/// A line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whose it is by a mark.
    pub(super) request_id: Option<RequestId>,
}

/// What was read and is no whole line yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Without one, nothing is a mark.
    key: Option<MarkKey>,
    partial: Vec<u8>,
    is_cut: bool,
    /// What may be the beginning of a mark.
    held: Vec<u8>,
    /// By the last mark.
    request_id: Option<RequestId>,
}

impl Lines {
    pub(super) fn new(key: Option<MarkKey>) -> Self {
        Self { key, ..Self::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let joined;
        let mut rest = bytes;
        if !self.held.is_empty() {
            joined = [&std::mem::take(&mut self.held), bytes].concat();
            rest = &joined;
        }
        let mut out = Vec::new();
        while let Some(at) = rest.iter().position(|byte| *byte == 0) {
            match self.key.map_or(Parsed::Text, |key| mark::parse(key, &rest[at..])) {
                Parsed::Mark(request_id, length) => {
                    self.text(&rest[..at], &mut out);
                    // Two calls never share a line.
                    out.extend(self.unfinished());
                    self.request_id = request_id;
                    rest = &rest[at + length..];
                }
                Parsed::Beginning => {
                    self.text(&rest[..at], &mut out);
                    self.held = rest[at..].to_vec();
                    return out;
                }
                Parsed::Text => {
                    self.text(&rest[..=at], &mut out);
                    rest = &rest[at + 1..];
                }
            }
        }
        self.text(rest, &mut out);
        out
    }

    pub(super) fn finish(&mut self) -> Vec<Line> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        self.text(&held, &mut out);
        out.extend(self.unfinished());
        out
    }

    fn text(&mut self, bytes: &[u8], out: &mut Vec<Line>) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = LOG_LINE_BYTES_MAX - self.partial.len();
            self.is_cut |= piece.len() > room;
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                out.push(self.take());
            }
        }
    }

    fn unfinished(&mut self) -> Option<Line> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Line {
        let mut text = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        if text.ends_with('\r') {
            text.pop();
        }
        if std::mem::take(&mut self.is_cut) {
            text.push_str(CUT_MARK);
        }
        Line { text, request_id: self.request_id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: MarkKey = MarkKey(7);

    fn keyed() -> Lines {
        Lines::new(Some(KEY))
    }

    /// With `<id>` for the mark of each id.
    fn marked(text: &str) -> Vec<u8> {
        text.replace('<', "\0mg0000000000000007 ").replace('>', "\0").into_bytes()
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    fn shown(lines: &[Line]) -> Vec<(&str, &str)> {
        lines
            .iter()
            .map(|line| (line.request_id.as_ref().map_or("", RequestId::as_str), line.text.as_str()))
            .collect()
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let mut lines = keyed();
        let mut out = lines.push(&vec![b'x'; LOG_LINE_BYTES_MAX]);
        out.extend(lines.push(b"more"));
        out.extend(lines.push(b"more\nnext\n"));
        assert_eq!(texts(out), [format!("{}{CUT_MARK}", "x".repeat(LOG_LINE_BYTES_MAX)), "next".into()]);
    }

    #[test]
    fn lines_are_the_request_s_whose_mark_stands_before_them() {
        let mut lines = keyed();
        let out = lines.push(&marked("early\n<a>one\nha<>late\n<b>\n<>"));
        assert_eq!(shown(&out), [("", "early"), ("a", "one"), ("a", "ha"), ("", "late"), ("b", "")]);
    }

    #[test]
    fn a_nul_that_is_no_mark_is_text_and_an_unfinished_mark_is_given_out_at_the_end() {
        let mut lines = keyed();
        assert_eq!(texts(lines.push(b"a\0b\0mgx\n\0\0mg no mark\n")), ["a\0b\0mgx", "\0\0mg no mark"]);
        assert_eq!(texts(lines.push(b"\0mg00")), [""; 0]);
        assert_eq!(texts(lines.finish()), ["\0mg00"]);
    }

    #[test]
    fn a_mark_by_another_key_or_none_is_text() {
        let other = mark::encode(MarkKey(8), Some(&RequestId::new("a")));
        let (mut lines, mut unkeyed) = (keyed(), Lines::new(None));
        let out =
            [lines.push(&[&other[..], b"\n\0mg a\0\n"].concat()), unkeyed.push(&marked("<a>\n"))].concat();
        assert!(out.iter().all(|line| line.request_id.is_none()), "{out:?}");
        assert_eq!(out.len(), 3);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_are_split(
            parts in proptest::collection::vec("[a-c\n]{0,9}|\0mg0000000000000007 [ab]{0,2}\0|\0m?g?0?", 0..12),
            cuts in proptest::collection::vec(0_usize..90, 0..6),
        ) {
            let text = parts.concat();
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.sort_unstable();
            at.push(bytes.len());
            let mut lines = keyed();
            let mut out = Vec::new();
            let mut from = 0;
            for to in at {
                out.extend(lines.push(&bytes[from..to]));
                from = to;
            }
            out.extend(lines.finish());
            let mut whole = keyed();
            let mut expected = whole.push(bytes);
            expected.extend(whole.finish());
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn without_marks_lines_are_those_of_the_text(text in "[a-c\n]{0,60}") {
            let mut lines = keyed();
            let mut out = lines.push(text.as_bytes());
            out.extend(lines.finish());
            prop_assert_eq!(texts(out), text.lines().map(str::to_owned).collect::<Vec<_>>());
        }

        /// Hostile bytes: what is held never grows over its bounds.
        #[test]
        fn what_is_held_is_bounded(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'm'), Just(b'g'), Just(b' '), Just(b'a'), Just(b'0'), Just(b'7')], 0..600)) {
            let mut lines = keyed();
            for byte in bytes {
                lines.push(&[byte]);
                prop_assert!(lines.held.len() <= mark::MARK_BYTES_MAX);
                prop_assert!(lines.partial.len() <= LOG_LINE_BYTES_MAX);
            }
        }
    }
}
