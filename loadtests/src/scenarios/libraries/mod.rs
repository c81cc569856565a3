//! Numerical libraries with thread pools of their own, from the package index: which are forked, and whether three
//! replicas at once answer right, however they are started. Needs a package index, and a minute for installing.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    figures::{Figures, ms},
    http::{Connection, request},
    load::{Plan, load},
    server::{Model, Server},
};

/// A project: what its build installs and runs, its file, and how its replicas must be started.
struct Case {
    name: &'static str,
    script: &'static str,
    fit: &'static str,
    file: &'static str,
    /// What its deployment says of it.
    wish: &'static str,
    start_mode: &'static str,
}

const CASES: [Case; 7] = [
    Case {
        name: "numpy",
        script: "pip install -q numpy\n",
        fit: "",
        file: include_str!("with_numpy.py"),
        wish: "auto",
        start_mode: "fork",
    },
    Case {
        name: "scikit-learn",
        script: "pip install -q scikit-learn\npython fit.py\n",
        fit: include_str!("fit_sklearn.py"),
        file: include_str!("with_sklearn.py"),
        wish: "auto",
        start_mode: "fork",
    },
    Case {
        name: "numpy-spawned",
        script: "pip install -q numpy\n",
        fit: "",
        file: include_str!("with_numpy.py"),
        wish: "spawn",
        start_mode: "spawn",
    },
    Case {
        name: "scikit-learn-spawned",
        script: "pip install -q scikit-learn\npython fit.py\n",
        fit: include_str!("fit_sklearn.py"),
        file: include_str!("with_sklearn.py"),
        wish: "spawn",
        start_mode: "spawn",
    },
    Case {
        name: "lightgbm",
        script: "pip install -q lightgbm scikit-learn\npython fit.py\n",
        fit: include_str!("fit_lightgbm.py"),
        file: include_str!("with_lightgbm.py"),
        wish: "auto",
        // Loading a booster runs a parallel region.
        start_mode: "spawn",
    },
    Case {
        name: "xgboost",
        // The one without CUDA: 6 MB in place of 130 and NVIDIA's libraries.
        script: "pip install -q xgboost-cpu scikit-learn\npython fit.py\n",
        fit: include_str!("fit_xgboost.py"),
        file: include_str!("with_xgboost.py"),
        wish: "auto",
        // Loading a model runs a parallel region.
        start_mode: "spawn",
    },
    Case {
        name: "scikit-learn-fitted-at-import",
        script: "pip install -q scikit-learn\n",
        fit: "",
        file: include_str!("with_sklearn_fitted.py"),
        wish: "auto",
        start_mode: "spawn",
    },
];
/// Each, with thread pools of two: what is looked for is a fork that waits for threads it has not got. How fast three
/// such pools are on few cores says nothing.
const OPTIONS: [&str; 6] = ["--replicas", "3", "--cpu", "2", "--example", r#"{"n":1}"#];

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start_with("request_timeout_s = 10\n");
    for case in &CASES {
        let files = [("cdsw-build.sh", case.script), ("fit.py", case.fit), ("model.py", case.file)];
        let options = [&OPTIONS[..], &["--start", case.wish]].concat();
        let model = server.deploy_files(case.name, &files, &options);
        let shown = server.show(case.name);
        let (mode, reason) = (text(&shown["start_mode"]), text(&shown["start_mode_reason"]));
        figures.must_be(format!("{}: start mode", case.name), mode, case.start_mode.to_owned());
        if !reason.is_empty() {
            figures.show(format!("{}: its reason", case.name), reason);
        }
        let outcome = load(&model, &Plan::numbered(3, time)).await;
        figures.must_be(format!("{}: calls answered right", case.name), outcome.good(), outcome.all());
        figures.must_be(format!("{}: crossed", case.name), outcome.crossed, 0);
        figures.show(format!("{}: p50", case.name), ms(outcome.quantiles([0.5])[0]));
        if case.name == "numpy" {
            let (draws, different) = draw(&model).await;
            figures.must_be("numpy: random numbers that differ", different, draws);
        }
        server.millgate(&["stop", case.name]);
    }
    figures
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Draws from all replicas; how often, and how many different numbers came.
async fn draw(model: &Model) -> (usize, usize) {
    const DRAWS: usize = 30;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(Connection::open(&model.host).await.expect("the server listens"));
    }
    let bytes = request(&model.host, "/model", &model.api_key, &model.body(r#"{"draw":true}"#));
    let mut seen = BTreeSet::new();
    for number in 0..DRAWS {
        let connection = &mut connections[number % 3];
        let answer = connection.exchange(&bytes).await.expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        seen.insert(body["response"].to_string());
    }
    (DRAWS, seen.len())
}
