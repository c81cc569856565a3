//! What a scenario found: named figures, and which of them had to be what.

use std::{fmt::Display, time::Duration};

/// Figures in the order they were found.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<(String, String, bool)>,
}

impl Figures {
    /// A figure to look at.
    pub(crate) fn show(&mut self, name: impl Display, value: impl Display) {
        self.rows.push((name.to_string(), value.to_string(), true));
    }

    /// A figure that must be this; the scenario fails when it is not.
    pub(crate) fn must_be<T: Display + PartialEq>(&mut self, name: impl Display, value: T, wanted: T) {
        let holds = value == wanted;
        let text = if holds { value.to_string() } else { format!("{value}, must be {wanted}") };
        self.rows.push((name.to_string(), text, holds));
    }

    /// A row of a table; it holds when nothing is wrong with it.
    pub(crate) fn row(&mut self, name: impl Display, found: impl Display, faults: &[String]) {
        let text =
            if faults.is_empty() { found.to_string() } else { format!("{found}: {}", faults.join("; ")) };
        self.rows.push((name.to_string(), text, faults.is_empty()));
    }

    /// A figure that must be at most this.
    pub(crate) fn at_most<T: Display + PartialOrd>(&mut self, name: impl Display, value: T, most: T) {
        let holds = value <= most;
        let text = if holds {
            format!("{value} (at most {most})")
        } else {
            format!("{value}, must be at most {most}")
        };
        self.rows.push((name.to_string(), text, holds));
    }

    /// True when nothing was other than it had to be.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(|(_, _, holds)| *holds)
    }

    /// All of it, for a person.
    pub(crate) fn text(&self, title: &str) -> String {
        use std::fmt::Write;
        let width = self.rows.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        let mut text = format!("{title}\n");
        for (name, value, holds) in &self.rows {
            let _ = writeln!(text, "  {} {name:<width$}  {value}", if *holds { " " } else { "!" });
        }
        text
    }
}

/// The value below which `share` of the sorted durations lie.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Milliseconds with two decimals.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// Bytes as MB with one decimal.
pub(crate) fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let sorted: Vec<Duration> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_figure_that_is_not_what_it_must_be_fails_the_scenario() {
        let mut figures = Figures::default();
        figures.must_be("lost", 0, 0);
        assert!(figures.holds());
        figures.must_be("doubled", 1, 0);
        assert!(!figures.holds());
    }
}
