//! Numerical libraries with thread pools of their own, from the package index: which are forked, and whether three
//! replicas at once answer right, however they are started. Needs a package index, and a minute for installing.
//!
//! `PyTorch` is Debian's (`apt-get install python3-torch`, where Python is of the same version as Debian's): the index has
//! it only with CUDA, which is gigabytes. Where it is not installed, that is said.

use std::{collections::BTreeSet, process::Command, time::Duration};

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

const CASES: [Case; 9] = [
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
    Case {
        name: "pytorch",
        script: WITH_DEBIAN,
        fit: include_str!("fit_torch.py"),
        file: include_str!("with_torch.py"),
        wish: "auto",
        start_mode: "fork",
    },
    Case {
        name: "pytorch-spawned",
        script: WITH_DEBIAN,
        fit: include_str!("fit_torch.py"),
        file: include_str!("with_torch.py"),
        wish: "spawn",
        start_mode: "spawn",
    },
];
/// The environment sees Debian's packages too.
const WITH_DEBIAN: &str = "\
python -c 'import sysconfig; print(\"/usr/lib/python3/dist-packages\",
    file=open(sysconfig.get_path(\"purelib\") + \"/debian.pth\", \"w\"))'
python fit.py
";
/// Each, with thread pools of two: what is looked for is a fork that waits for threads it has not got. How fast three
/// such pools are on few cores says nothing.
const OPTIONS: [&str; 6] = ["--replicas", "3", "--cpu", "2", "--example", r#"{"n":1}"#];

pub(crate) async fn run(time: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start_with("request_timeout_s = 10\n");
    let has_torch = has_torch();
    for case in &CASES {
        if case.script == WITH_DEBIAN && !has_torch {
            figures.show(case.name, "not tried: no `python3-torch` of this Python's version");
            continue;
        }
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
        if case.file.contains("draw") {
            let (draws, different) = draw(&model).await;
            figures.must_be(format!("{}: random numbers that differ", case.name), different, draws);
        }
        server.millgate(&["stop", case.name]);
    }
    figures
}

fn has_torch() -> bool {
    let mut python = Command::new(std::env::var_os("PYO3_PYTHON").unwrap_or_else(|| "python3".into()));
    let tried =
        python.env("PYTHONPATH", "/usr/lib/python3/dist-packages").args(["-c", "import torch"]).output();
    tried.is_ok_and(|output| output.status.success())
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
