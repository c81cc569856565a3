//! From `millgate deploy` to the first answer of the new code: a first deploy, and then changes of one line of code, each
//! the command a person gives, its own start included. Somebody calls the model all the while, so that the first answer
//! of new code is seen when it comes, and none is lost.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::ADD_REQUEST;
use crate::{
    figures::{Figures, as_ms, quantile},
    http::{Connection, request},
    server::{Model, Server},
};

const CHANGES: usize = 10;
const ADD_MS_MAX: f64 = 300.0;
const IRIS_MS_MAX: f64 = 2_000.0;
const IRIS_REQUEST: &str = r#"{"petal_length": 4.7}"#;
const IRIS: [(&str, &str); 4] = [
    ("cdsw-build.sh", include_str!("../../../examples/iris/cdsw-build.sh")),
    ("requirements.txt", include_str!("../../../examples/iris/requirements.txt")),
    ("fit.py", include_str!("../../../examples/iris/fit.py")),
    ("predict.py", include_str!("../../../examples/iris/predict.py")),
];
/// The function that is deployed: it says which code answers.
const OF_ADD: &str = "def of(args):\n    return args['a'] + args['b']\n";
const OF_IRIS: &str = "from predict import predict as of\n";
/// Between two calls.
const PERIOD: Duration = Duration::from_millis(2);

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    measure(
        &mut figures,
        &server,
        &Case { name: "add", code: OF_ADD, files: &[], request: ADD_REQUEST },
        ADD_MS_MAX,
    )
    .await;
    let iris = Case { name: "iris", code: OF_IRIS, files: &IRIS, request: IRIS_REQUEST };
    measure(&mut figures, &server, &iris, IRIS_MS_MAX).await;
    figures
}

struct Case<'a> {
    name: &'a str,
    code: &'a str,
    files: &'a [(&'a str, &'a str)],
    request: &'a str,
}

impl Case<'_> {
    fn model(&self, version: usize) -> String {
        format!("{}\ndef predict(args):\n    return [{version}, str(of(args))]\n", self.code)
    }
}

async fn measure(figures: &mut Figures, server: &Server, case: &Case<'_>, ms_max: f64) {
    let name = case.name;
    let first = case.model(0);
    let mut files = case.files.to_vec();
    files.push(("model.py", &first));
    let begun = Instant::now();
    let model = server.deploy_files(name, &files, &["--example", case.request]);
    figures.show(format!("{name}: a first deploy"), format!("{:.1} s", begun.elapsed().as_secs_f64()));
    let (mut times, mut faults) = (Vec::new(), Vec::new());
    for version in 1..=CHANGES {
        match change(server, &model, case, version).await {
            Ok(time) => times.push(time),
            Err(fault) => faults.push(fault),
        }
    }
    times.sort_unstable();
    faults.truncate(3);
    figures.row(
        format!("{name}: changes of code, each answered by the new code, no call lost"),
        times.len(),
        &faults,
    );
    let of = |share| as_ms(quantile(&times, share));
    let what = format!("{name}: `millgate deploy` to the first answer of changed code");
    figures.aim_at_most(format!("{what}, median"), of(0.5), ms_max, " ms");
    figures.show(format!("{what}, longest"), format!("{:.0} ms", of(1.0)));
}

/// Deploys changed code; from the command's start to the first answer of it.
async fn change(server: &Server, model: &Model, case: &Case<'_>, version: usize) -> Result<Duration, String> {
    let file = server.project_file(&model.name, "model.py");
    fs::write(&file, case.model(version)).expect("the folder is ours");
    let target = format!("{}:predict", Path::new(&file).display());
    let call = request(&model.host, "/model", &model.api_key, &model.body(case.request));
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let begun = Instant::now();
    let mut deploying = server.begin(&["deploy", &target, "--name", &model.name, "--example", case.request]);
    loop {
        let answer = connection.exchange(&call).await.map_err(|e| format!("{version}: {e}"))?;
        let time = begun.elapsed();
        if answer.status != 200 {
            return Err(format!("{version}: status {}", answer.status));
        }
        let body: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{version}: {e}"))?;
        if body["response"][0] == version {
            let status = deploying.0.wait().map_err(|e| e.to_string())?;
            return if status.success() { Ok(time) } else { Err(format!("{version}: {status}")) };
        }
        if let Ok(Some(status)) = deploying.0.try_wait()
            && !status.success()
        {
            return Err(format!("{version}: `millgate deploy` ended with {status}"));
        }
        tokio::time::sleep(PERIOD).await;
    }
}
