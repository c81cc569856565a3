//! The scenarios, one file each.

mod attacks;
mod control;
mod crashes;
mod fair;
mod kills;
mod libraries;
mod memory;
mod overload;
mod steady;

use std::{future::Future, pin::Pin, time::Duration};

use crate::figures::Figures;

/// A scenario by name.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// How long its load goes on where nothing else is asked for.
    pub(crate) seconds: u64,
    pub(crate) run: fn(Duration) -> Pin<Box<dyn Future<Output = Figures>>>,
}

/// All of them.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "memory",
        what: "nine replicas with 100 MB imported: their memory, and the time from an exception to the next replica",
        seconds: 5,
        run: |time| Box::pin(memory::run(time)),
    },
    Scenario {
        name: "steady",
        what: "70 % of capacity on 4 replicas: nothing lost, doubled, crossed or leaked",
        seconds: 600,
        run: |time| Box::pin(steady::run(time)),
    },
    Scenario {
        name: "kills",
        what: "kill -9 of a replica each second: only calls that ran may fail",
        seconds: 180,
        run: |time| Box::pin(kills::run(time)),
    },
    Scenario {
        name: "overload",
        what: "ten times too many callers: the rate of good answers holds, the others get 429",
        seconds: 120,
        run: |time| Box::pin(overload::run(time)),
    },
    Scenario {
        name: "control",
        what: "kill -9 of the whole server each 5 s: replicas stay and calls go on after each start",
        seconds: 60,
        run: |time| Box::pin(control::run(time)),
    },
    Scenario {
        name: "crashes",
        what: "everything a function can do wrong, while another model serves: the answer of each, and no effect on the other",
        seconds: 0,
        run: |time| Box::pin(crashes::run(time)),
    },
    Scenario {
        name: "libraries",
        what: "numpy, scikit-learn and lightgbm from the package index: forked where that is safe, right in three replicas at once",
        seconds: 5,
        run: |time| Box::pin(libraries::run(time)),
    },
    Scenario {
        name: "fair",
        what: "16 callers on 4 replicas of a 10 ms function: calls per second against 400, and fairness",
        seconds: 20,
        run: |time| Box::pin(fair::run(time)),
    },
    Scenario {
        name: "attacks",
        what: "every request that must be refused, row by row: framing, JSON, keys, slowness, HTTP/2",
        seconds: 80,
        run: |time| Box::pin(attacks::run(time)),
    },
];

/// Answers with the call's own number.
const ECHO: &str = "def predict(args):\n    return args['n']\n";
/// Answers with the call's own number after 10 ms.
const TEN_MS: &str = "import time\ndef predict(args):\n    time.sleep(0.01)\n    return args['n']\n";
