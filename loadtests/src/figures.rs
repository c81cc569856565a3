//! What a scenario found: named figures, which of them had to be what, and which had an aim.
//!
//! A broken promise (something lost, crossed, reached) fails the scenario. A missed aim (a rate, a time) does not, for it
//! may be the machine's; by how much it was missed is said beside it.

use std::{
    fmt::{Display, Write},
    time::Duration,
};

/// The aim of a row.
const AS_EXPECTED: &str = "as expected";

/// Figures in the order they were found.
#[derive(Default)]
pub(crate) struct Figures {
    figures: Vec<Figure>,
}

struct Figure {
    name: String,
    found: String,
    aim: Option<Aim>,
    /// A row of a scenario's own table, which its summary counts.
    is_detail: bool,
}

struct Aim {
    text: String,
    verdict: Verdict,
}

enum Verdict {
    Met,
    Missed(String),
    Broken,
}

impl Figures {
    /// A figure to look at.
    pub(crate) fn show(&mut self, name: impl Display, found: impl Display) {
        self.add(name, found, None);
    }

    /// A promise: the scenario fails when the figure is another one.
    pub(crate) fn must_be<T: Display + PartialEq>(&mut self, name: impl Display, found: T, wanted: T) {
        let text = wanted.to_string();
        self.promise(name, &found, text, found == wanted);
    }

    /// A promise: the scenario fails when the figure is a greater one.
    pub(crate) fn at_most<T: Display + PartialOrd>(&mut self, name: impl Display, found: T, most: T) {
        let text = format!("at most {most}");
        self.promise(name, &found, text, found <= most);
    }

    /// A row of a table, a promise too; it holds when nothing is wrong with it.
    pub(crate) fn row(&mut self, name: impl Display, found: impl Display, faults: &[String]) {
        let found =
            if faults.is_empty() { found.to_string() } else { format!("{found}: {}", faults.join("; ")) };
        self.promise(name, found, AS_EXPECTED.to_owned(), faults.is_empty());
        if let Some(figure) = self.figures.last_mut() {
            figure.is_detail = true;
        }
    }

    /// An aim, in a unit: what is greater misses it.
    pub(crate) fn aim_at_most(&mut self, name: impl Display, found: f64, most: f64, unit: &str) {
        self.aim(name, (found, most), format!("at most {most}{unit}"), (unit, found <= most));
    }

    /// An aim, in a unit: what is less misses it.
    pub(crate) fn aim_at_least(&mut self, name: impl Display, found: f64, least: f64, unit: &str) {
        self.aim(name, (found, least), format!("at least {least}{unit}"), (unit, found >= least));
    }

    /// True when no promise is broken.
    pub(crate) fn holds(&self) -> bool {
        !self.figures.iter().any(|f| matches!(&f.aim, Some(Aim { verdict: Verdict::Broken, .. })))
    }

    /// All of it, for a person.
    pub(crate) fn text(&self, title: &str) -> String {
        let width = self.figures.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
        let mut text = format!("{title}\n");
        for Figure { name, found, aim, .. } in &self.figures {
            let (mark, behind) = match aim {
                None => (' ', String::new()),
                Some(aim) => (aim.verdict.mark(), aim.behind(found)),
            };
            let _ = writeln!(text, "  {mark} {name:<width$}  {found}{behind}");
        }
        text
    }

    /// Figures with an aim, as cells of a suite's table: name, found, aim, verdict. Of a table only what is wrong.
    pub(crate) fn judged(&self) -> Vec<[String; 4]> {
        let judged = self.figures.iter().filter_map(|figure| {
            let aim = figure.aim.as_ref()?;
            let is_wanted = !figure.is_detail || !matches!(aim.verdict, Verdict::Met);
            is_wanted.then(|| {
                [figure.name.clone(), figure.found.clone(), aim.text.clone(), aim.verdict.to_string()]
            })
        });
        judged.collect()
    }

    fn add(&mut self, name: impl Display, found: impl Display, aim: Option<Aim>) {
        let (name, found) = (name.to_string(), found.to_string());
        self.figures.push(Figure { name, found, aim, is_detail: false });
    }

    fn promise(&mut self, name: impl Display, found: impl Display, text: String, is_kept: bool) {
        let verdict = if is_kept { Verdict::Met } else { Verdict::Broken };
        self.add(name, found, Some(Aim { text, verdict }));
    }

    fn aim(
        &mut self,
        name: impl Display,
        (found, aim): (f64, f64),
        text: String,
        (unit, is_met): (&str, bool),
    ) {
        let off = (found / aim - 1.0).abs() * 100.0;
        let verdict = if is_met { Verdict::Met } else { Verdict::Missed(format!("{off:.1} %")) };
        self.add(name, format!("{found:.2}{unit}"), Some(Aim { text, verdict }));
    }
}

impl Aim {
    fn behind(&self, found: &str) -> String {
        match &self.verdict {
            Verdict::Met if self.text == found || self.text == AS_EXPECTED => String::new(),
            Verdict::Met => format!("  ({})", self.text),
            Verdict::Missed(off) => format!("  (aim: {}, missed by {off})", self.text),
            Verdict::Broken => format!("  (must be {})", self.text),
        }
    }
}

impl Verdict {
    fn mark(&self) -> char {
        match self {
            Self::Met => ' ',
            Self::Missed(_) => '~',
            Self::Broken => '!',
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Met => f.write_str("met"),
            Self::Missed(off) => write!(f, "missed by {off}"),
            Self::Broken => f.write_str("BROKEN"),
        }
    }
}

/// The value below which `share` of the sorted ones lie.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Milliseconds with two decimals.
pub(crate) fn ms(duration: Duration) -> String {
    format!("{:.2} ms", as_ms(duration))
}

/// Milliseconds as a number.
pub(crate) fn as_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Bytes as MB with one decimal.
pub(crate) fn mb(bytes: u64) -> String {
    format!("{:.1} MB", as_mb(bytes))
}

/// Bytes as a number of MB.
pub(crate) fn as_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let sorted: Vec<Duration> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!(quantile(&sorted, 0.5), Duration::from_millis(50));
        assert_eq!(quantile(&sorted, 0.99), Duration::from_millis(99));
        assert_eq!(quantile::<Duration>(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn a_broken_promise_fails_the_scenario_and_a_missed_aim_is_said() {
        let mut figures = Figures::default();
        figures.show("calls", 7);
        figures.must_be("lost", 0, 0);
        figures.aim_at_least("share", 81.0, 90.0, " %");
        figures.row("a good row", "200", &[]);
        assert!(figures.holds());
        figures.must_be("doubled", 1, 0);
        figures.row("a bad row", "200", &["must be 400".to_owned()]);
        assert!(!figures.holds());
        let judged: Vec<String> = figures.judged().iter().map(|cells| cells.join(" | ")).collect();
        assert_eq!(
            judged,
            [
                "lost | 0 | 0 | met",
                "share | 81.00 % | at least 90 % | missed by 10.0 %",
                "doubled | 1 | 0 | BROKEN",
                "a bad row | 200: must be 400 | as expected | BROKEN",
            ]
        );
    }
}
