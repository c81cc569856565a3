//! The scenarios, by name.

mod attacks;
mod big;
mod counted;
mod crashes;
mod deaths;
mod deleted_key;
mod deploys_speed;
mod escapes;
mod fair;
mod handovers;
mod hang;
mod json;
mod kills;
mod libraries;
mod many;
mod memory;
mod no_control;
mod overload;
mod per_call;
mod recovery;
mod redeploys;
mod restarts;
mod shared_connection;
mod slow;
mod steady;
mod track;
mod tracked;
mod values;

use std::{pin::Pin, time::Duration};

use crate::figures::Figures;

/// One scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// How long its load goes on where nothing else is asked for.
    pub(crate) time: Duration,
    pub(crate) run: fn(Duration) -> Pin<Box<dyn Future<Output = Figures>>>,
}

macro_rules! scenario {
    ($module:ident, $seconds:literal, $what:literal) => {
        Scenario {
            name: stringify!($module),
            what: $what,
            time: Duration::from_secs($seconds),
            run: |time| Box::pin($module::run(time)),
        }
    };
}

/// All of them. Suites run theirs in this order.
pub(crate) const ALL: &[Scenario] = &[
    scenario!(
        attacks,
        80,
        "every request that must be refused, row by row: framing, JSON, keys, slowness, HTTP/2"
    ),
    scenario!(steady, 600, "70 % of capacity on 4 replicas: nothing lost, doubled, crossed or leaked"),
    scenario!(kills, 180, "kill -9 of a random replica each second: only calls that ran may fail"),
    scenario!(
        overload,
        120,
        "ten times the calls that can be served: good answers hold, the others get 429, and back at once"
    ),
    scenario!(
        tracked,
        600,
        "200,000 tracked predictions with kill -9 of the server each 3 s: none lost, none doubled"
    ),
    Scenario {
        name: "tracked_postgres",
        what: "the same with PostgreSQL, which is killed in turn with the server",
        time: Duration::from_secs(600),
        run: |time| Box::pin(tracked::run_on_postgres(time)),
    },
    scenario!(handovers, 600, "100 hand-overs of the listening socket under load: no connection dropped"),
    scenario!(slow, 120, "5,000 slow and silent sockets: what good callers notice, and what they cost"),
    scenario!(
        no_control,
        180,
        "kill -9 of the control API each 5 s, then none: no error; and when a deleted key ends"
    ),
    scenario!(
        redeploys,
        1_800,
        "redeploy, rollback, restart, scale and a failing build, 20 times each under load: no call lost"
    ),
    scenario!(
        deaths,
        3_600,
        "the server killed at each step of each operation, 200 times: nothing stuck, doubled or left behind"
    ),
    scenario!(
        fair,
        20,
        "16 callers on 4 replicas of a 10 ms function: calls per second against 400, and fairness"
    ),
    scenario!(
        crashes,
        0,
        "everything a function can do wrong, while another model serves: the answer of each, and no effect on the other"
    ),
    scenario!(recovery, 60, "from an exception to the next replica, for a small and a 300 MB function"),
    scenario!(memory, 0, "nine replicas of a 300 MB function: their memory against one's"),
    scenario!(per_call, 10, "a fresh fork for each call: calls per second, and the time of one"),
    scenario!(
        hang,
        30,
        "a function that hangs, and its children: when the caller knows, and when all are gone"
    ),
    scenario!(escapes, 0, "a function tries to get out, in every way we know"),
    scenario!(
        shared_connection,
        10,
        "a connection opened at import: no crossed answers, and a restart heals it"
    ),
    scenario!(track, 60, "tracked metrics against none, in turns"),
    scenario!(json, 0, "JSON in and out beside json and orjson, in one process"),
    scenario!(
        restarts,
        60,
        "kill -9 of the whole server each 5 s: replicas stay, and calls go on after each start"
    ),
    scenario!(
        libraries,
        5,
        "numpy, scikit-learn and lightgbm from the package index: forked where that is safe, right in three replicas at once"
    ),
    scenario!(
        many,
        0,
        "500 models in 50 projects, 2,000 builds, on SQLite and PostgreSQL: list pages, a deploy beside them, memory"
    ),
    scenario!(
        deploys_speed,
        0,
        "from `millgate deploy` to the first answer of changed code, for add and Iris, beside a first deploy"
    ),
    scenario!(values, 0, "what numpy and pandas make, value by value: JSON, or `function.bad_output`"),
];

/// Answers with the call's own number.
const ECHO: &str = "def predict(args):\n    return args['n']\n";
/// Answers with the call's own number after 10 ms.
const TEN_MS: &str = "import time\ndef predict(args):\n    time.sleep(0.01)\n    return args['n']\n";
/// Adds two numbers: as little as a function can do.
const ADD: &str = "def predict(args):\n    return args['a'] + args['b']\n";
/// A request of it.
const ADD_REQUEST: &str = r#"{"a": 3, "b": 5}"#;
