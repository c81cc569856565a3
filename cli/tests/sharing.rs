//! Two gateways in front of one replica, all of them real: it is theirs in turn.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Running, figure, millgate, post, processes_of, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How often it was called, and for whom. It takes a moment, in which who else has sent a call is refused and queued.
const COUNT: &str = "import time\ncalls = 0\ndef count(who):\n    global calls\n    calls += 1\n    time.sleep(0.005)\n    return [calls, who]\n";
const CALLS: usize = 40;

/// A control API of its own, and the model `count` with one replica.
struct Setting {
    data: PathBuf,
    control: Running,
    access_key: String,
    api_key: String,
    _folder: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        let file = folder.path().join("count/count.py");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, COUNT).unwrap();
        let control = start("control", &data);
        let setting =
            Self { data, control, access_key: String::new(), api_key: String::new(), _folder: folder };
        setting.ok(&["deploy", &format!("{}:count", file.display()), "--replicas", "1"]);
        let access_key = setting.model()["access_key"].as_str().unwrap().to_owned();
        let api_key = setting.ok(&["key", "create"]).trim().to_owned();
        Self { access_key, api_key, ..setting }
    }

    fn ok(&self, args: &[&str]) -> String {
        let mut command = millgate();
        command.args(args).env("MILLGATE_SERVER", &self.control.url).env("MILLGATE_DATA_DIR", &self.data);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn model(&self) -> Value {
        serde_json::from_str(&self.ok(&["--json", "show", "count"])).unwrap()
    }

    fn replica(&self) -> Pid {
        let replicas = &self.model()["replicas"];
        Pid::from_raw(replicas[0]["pid"].as_i64().unwrap().try_into().unwrap())
    }

    fn call(&self, gateway: &Running, request: usize) -> common::Answer {
        let body = format!(r#"{{"accessKey":"{}","request":{request}}}"#, self.access_key);
        post(&gateway.url, "/model", Some(&self.api_key), &body)
    }

    /// The replica is nobody's but its supervisor's when the servers have gone; one of the same directory ends it.
    fn end(self) {
        drop(self.control);
        assert!(start("serve", &self.data).interrupt().success());
        until("the end of the replicas", || processes_of(&self.data).is_empty().then_some(()));
    }
}

fn start(role: &str, data: &Path) -> Running {
    let mut command = millgate();
    command.args([role, "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    if role != "control" {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    Running::start(command)
}

#[test]
fn two_gateways_that_both_have_calls_waiting_have_every_other_turn() {
    let setting = Setting::new();
    let gateways = [start("gateway", &setting.data), start("gateway", &setting.data)];
    for gateway in &gateways {
        until("a first answer", || (setting.call(gateway, 0).status == 200).then_some(()));
    }
    let replica = setting.replica();
    kill(replica, Signal::SIGSTOP).unwrap();
    let mut runs: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2 * CALLS)
            .map(|caller| {
                let (setting, gateway) = (&setting, &gateways[caller % 2]);
                scope.spawn(move || {
                    let answer = setting.call(gateway, caller % 2);
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let run = &answer.body["response"];
                    assert_eq!(run[1], caller % 2, "another one's answer");
                    (run[0].as_u64().unwrap(), run[1].as_u64().unwrap())
                })
            })
            .collect();
        for gateway in &gateways {
            // One has been sent to the replica, which does not read it.
            let all_wait =
                || figure(gateway, "millgate_line_calls").filter(|n| *n == (CALLS - 1).to_string());
            until("a line with every call but one", all_wait);
        }
        kill(replica, Signal::SIGCONT).unwrap();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    drop(gateways);
    setting.end();

    runs.sort_unstable();
    let numbers: Vec<u64> = runs.iter().map(|run| run.0).collect();
    let begin = numbers[0];
    assert_eq!(numbers, (begin..begin + 2 * CALLS as u64).collect::<Vec<_>>(), "once each, and nothing else");
    let turns: Vec<u64> = runs.iter().map(|run| run.1).collect();
    let twice = turns.windows(2).filter(|pair| pair[0] == pair[1]).count();
    // None but the very first, before the other's is refused.
    assert!(twice <= 1, "{twice} times two turns in a row: {turns:?}");
}
