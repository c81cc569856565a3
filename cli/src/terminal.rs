//! What a person sees: steps with their time and a table, on standard error and standard output. Colours only where
//! there is a terminal and `NO_COLOR` is not set.

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    time::Instant,
};

use crate::env_vars;

/// Reports the steps of a longer command on standard error.
pub(crate) struct Steps {
    begun: Instant,
    has_colour: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            has_colour: std::io::stderr().is_terminal() && std::env::var_os(env_vars::NO_COLOR).is_none(),
        }
    }

    /// A step has ended; the time is since the last one ended.
    pub(crate) fn done(&mut self, step: &str, detail: &str) {
        let took = self.begun.elapsed().as_secs_f64();
        self.begun = Instant::now();
        let (bold, dim, plain) = self.colours();
        let _ = writeln!(std::io::stderr(), "{bold}{step:>12}{plain}  {detail}  {dim}{took:.1} s{plain}");
    }

    /// A line of what a step says while it goes on.
    pub(crate) fn line(&self, step: &str, text: &str) {
        let (_, dim, plain) = self.colours();
        let _ = writeln!(std::io::stderr(), "{dim}{step:>12}  {text}{plain}");
    }

    fn colours(&self) -> (&'static str, &'static str, &'static str) {
        if self.has_colour { ("\x1b[1;32m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") }
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Bytes as people say them.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// What somebody's code has printed, for a terminal: a control character is shown as its escape, so that no line can
/// take the place of another, or pretend to be one.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| !c.is_control() || c == '\t';
    if text.chars().all(is_harmless) {
        return text.into();
    }
    text.chars()
        .map(|c| if is_harmless(c) { c.to_string() } else { c.escape_default().to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["add-numbers".into(), "deployed".into()], vec!["iris".into(), "stopped".into()]];
        insta::assert_snapshot!(table(&["NAME", "STATUS"], &rows), @r"
        NAME         STATUS
        add-numbers  deployed
        iris         stopped
        ");
    }

    #[test]
    fn control_characters_cannot_forge_a_line() {
        assert_eq!(printable("a\tü 😀"), "a\tü 😀");
        let forged = printable("x\r    stdout abcde all is well\u{1b}[2K\u{9b}1A\u{85}");
        assert_eq!(forged, "x\\r    stdout abcde all is well\\u{1b}[2K\\u{9b}1A\\u{85}");
    }
}
