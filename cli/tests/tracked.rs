//! Tracked metrics on real processes that are killed: what was answered is read, once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Mutex,
};

use common::{Running, Server, millgate, processes_of, role, until};
use nix::sys::signal::Signal;
use serde_json::Value;

const MODEL: &str = "\
import cml.models_v1 as models
from cml.metrics_v1 import track_metric
@models.cml_model(metrics=True)
def predict(args):
    track_metric('n', args['n'])
    return args['n']
";

/// One request over a connection of its own; nothing when there is no whole answer. HTTP/1.0, so that a body is not in
/// chunks.
fn ask(url: &str, key: &str, head: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).ok()?;
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// A tracked model and its callers.
struct Shop {
    key: String,
    access_key: String,
    crn: String,
    /// Numbers of answered calls by UUID.
    answered: Mutex<HashMap<String, u64>>,
}

impl Shop {
    /// One call; false when it has no answer.
    fn call(&self, url: &str, number: u64) -> bool {
        let body = format!(r#"{{"accessKey":"{}","request":{{"n":{number}}}}}"#, self.access_key);
        let Some(answer) = ask(url, &self.key, "POST /model", &body) else { return false };
        let Some(uuid) = answer["response"]["uuid"].as_str() else { return false };
        assert_eq!(answer["response"]["prediction"], number);
        let before = self.answered.lock().unwrap().insert(uuid.to_owned(), number);
        assert_eq!(before, None, "each prediction has a UUID of its own");
        true
    }

    fn answered(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    /// Every row is there once, and those that were answered are all there.
    fn check(&self, control: &str) {
        let path = format!("GET /api/v2/metrics?page_size=100000&model_crn={}", self.crn);
        let read = ask(control, &self.key, &path, "").unwrap();
        let mut rows: HashMap<&str, u64> = HashMap::new();
        for row in read["metrics"].as_array().unwrap() {
            let number = row["metrics"]["n"].as_u64().unwrap();
            let doubled = rows.insert(row["predictionUuid"].as_str().unwrap(), number);
            assert_eq!(doubled, None, "{row}");
        }
        for (uuid, number) in &*self.answered.lock().unwrap() {
            assert_eq!(rows.get(uuid.as_str()), Some(number), "prediction {uuid} is lost");
        }
    }
}

/// Pseudo-random numbers from a seed: xorshift.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn kills_between_an_answer_and_its_shipping_lose_nothing_and_double_nothing() {
    const KILLS: u64 = 8;
    const CALLERS: u64 = 4;
    let mut server = Server::start();
    let project = server.project("m", &[("model.py", MODEL)]);
    let file = format!("{}:predict", project.join("model.py").display());
    server.ok(&["deploy", &file, "--name", "m", "--replicas", "2"]);
    let shop = Shop {
        key: server.api_key(),
        access_key: server.access_key("m"),
        crn: server.json(&["show", "m"])["crn"].as_str().unwrap().to_owned(),
        answered: Mutex::default(),
    };
    let mut seeded = Seeded(0x5eed_0001);
    for kill in 0..KILLS {
        let url = server.url().to_owned();
        let enough = shop.answered() + 1 + usize::try_from(seeded.below(150)).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (shop, url) = (&shop, &url);
                scope.spawn(move || {
                    let first = (kill * CALLERS + caller) << 32;
                    let mut number = first;
                    // Until the server is gone.
                    while shop.call(url, number) {
                        number += 1;
                    }
                });
            }
            until("so many answers", || (shop.answered() >= enough).then_some(()));
            server.kill();
        });
        server.start_again();
        until("an answer again", || shop.call(server.url(), kill).then_some(()));
    }
    shop.check(server.url());
}

#[test]
fn what_is_tracked_while_the_control_api_is_gone_is_read_when_it_is_back_also_from_a_gateway_that_was_killed()
{
    let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    let control = Running::start(role("control", &data));
    let gateway = Running::start(role("gateway", &data));
    let file = folder.path().join("project/model.py");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, MODEL).unwrap();
    let on_control = |args: &[&str]| {
        let output = millgate()
            .args(args)
            .env("MILLGATE_SERVER", &control.url)
            .env("MILLGATE_DATA_DIR", &data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    on_control(&["deploy", &format!("{}:predict", file.display()), "--name", "m"]);
    let shown: Value = serde_json::from_str(&on_control(&["--json", "show", "m"])).unwrap();
    let shop = Shop {
        key: on_control(&["key", "create"]).trim().to_owned(),
        access_key: shown["access_key"].as_str().unwrap().to_owned(),
        crn: shown["crn"].as_str().unwrap().to_owned(),
        answered: Mutex::default(),
    };
    until("an answer", || shop.call(&gateway.url, 0).then_some(()));
    control.signal(Signal::SIGKILL);
    drop(control);
    for number in 1..20 {
        assert!(shop.call(&gateway.url, number));
    }
    // What it has kept is nobody's until another gateway takes its folder over.
    gateway.kill();
    let gateway = Running::start(role("gateway", &data));
    until("an answer again", || shop.call(&gateway.url, 20).then_some(()));
    let control = Running::start(role("control", &data));
    shop.check(&control.url);
    assert_eq!(shop.answered(), 21);
    drop(control);
    drop(gateway);

    let mut serve = role("serve", &data);
    serve.stderr(std::process::Stdio::null());
    assert!(Running::start(serve).interrupt().success());
    until("the end of the replicas", || processes_of(&data).is_empty().then_some(()));
}
