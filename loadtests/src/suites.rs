//! Scenarios one after another, and one table of all that had an aim.

use std::time::Duration;

use crate::{figures::Figures, scenarios::Scenario};

/// The suites: a name, and scenarios in their order.
pub(crate) const SUITES: [(&str, &[&str]); 3] = [
    ("gateway", &["attacks", "steady", "kills", "overload", "handovers", "slow", "no_control", "fair"]),
    (
        "runtime",
        &[
            "crashes",
            "recovery",
            "memory",
            "per_call",
            "hang",
            "escapes",
            "shared_connection",
            "track",
            "json",
        ],
    ),
    ("control", &["tracked", "tracked_postgres", "redeploys", "deaths", "track", "many", "deploys_speed"]),
];

/// The scenarios of a suite.
pub(crate) fn of(name: &str) -> Option<&'static [&'static str]> {
    SUITES.iter().find(|(suite, _)| *suite == name).map(|(_, scenarios)| *scenarios)
}

/// Runs them all, whatever becomes of one; whether every promise was kept.
pub(crate) async fn run(scenarios: &[&Scenario], time: Option<Duration>) -> bool {
    let mut rows = Vec::new();
    let mut holds = true;
    for scenario in scenarios {
        let figures = one(scenario, time.unwrap_or(scenario.time)).await;
        print!("{}", figures.text(scenario.name));
        holds &= figures.holds();
        for [figure, found, aim, verdict] in figures.judged() {
            rows.push([format!("{}: {figure}", scenario.name), found, aim, verdict]);
        }
    }
    if scenarios.len() > 1 {
        print!("\n{}", table(&rows));
    }
    holds
}

/// One that cannot go on has broken its promise, and the next one begins.
async fn one(scenario: &Scenario, time: Duration) -> Figures {
    let local = tokio::task::LocalSet::new();
    let running = local.run_until(async { tokio::task::spawn_local((scenario.run)(time)).await });
    running.await.unwrap_or_else(|error| {
        let mut figures = Figures::default();
        figures.row("the scenario", "ended early", &[error.to_string()]);
        figures
    })
}

fn table(rows: &[[String; 4]]) -> String {
    let head = ["figure", "found", "aim", "verdict"].map(str::to_owned);
    let widths: [usize; 3] = std::array::from_fn(|column| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let line = |row: &[String; 4]| {
        let [figure, found, aim, verdict] = row;
        format!(
            "{figure:<w0$}  {found:<w1$}  {aim:<w2$}  {verdict}\n",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2]
        )
    };
    [&head].into_iter().chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::ALL;

    #[test]
    fn a_suite_names_scenarios_that_there_are_in_their_order() {
        for (_, names) in SUITES {
            let found: Vec<&str> = ALL.iter().map(|s| s.name).filter(|name| names.contains(name)).collect();
            assert_eq!(found, names);
        }
    }

    #[tokio::test]
    async fn a_scenario_that_panics_breaks_its_promise() {
        let scenario = Scenario {
            name: "broken",
            what: "",
            time: Duration::ZERO,
            run: |_| Box::pin(async { panic!("no server") }),
        };
        assert!(!run(&[&scenario, &scenario], None).await);
    }

    #[test]
    fn a_table_is_aligned() {
        let row = |name: &str| [name.to_owned(), "7".to_owned(), "0".to_owned(), "BROKEN".to_owned()];
        let text = table(&[row("a: lost"), row("b: crossed")]);
        let columns: Vec<Option<usize>> = text.lines().skip(1).map(|line| line.find('7')).collect();
        assert_eq!(columns, [Some(12), Some(12)]);
    }
}
