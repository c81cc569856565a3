//! Build scripts with a real server: what they reach, what they may use, and where their packages come from.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{Server, until};
use serde_json::{Value, json};

const FUNCTION: &str = "import json\ndef f(args):\n    return json.load(open('found.json'))\n";

/// Text that lives as long as the test: what a server is started with.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A server with these lines in `[builds]`, and these variables.
fn server(folder: &Path, builds: &str, variables: &[(&'static str, &'static str)]) -> Server {
    let config = folder.join("millgate.toml");
    fs::write(&config, format!("[builds]\n{builds}\n")).unwrap();
    let mut all = vec![("MILLGATE_CONFIG", kept(config.display().to_string()))];
    all.extend(variables);
    Server::start_with(all)
}

fn deploy(server: &Server, name: &str, files: &[(&str, &str)]) -> (bool, String) {
    let folder = server.project(name, files);
    let output = server.run(&["deploy", &format!("{}:f", folder.join("f.py").display()), "--name", name]);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What the function `f` of a model answers.
fn answer(server: &Server, model: &str) -> Value {
    let answer = server.call(&server.access_key(model), "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["response"].clone()
}

/// A wheel of one module, whose `VALUE` it has.
fn wheel(folder: &Path, value: &str) -> PathBuf {
    wheel_of(folder, "1.0", value)
}

fn wheel_of(folder: &Path, version: &str, value: &str) -> PathBuf {
    const MAKE: &str = "
import sys, zipfile
folder, version, value = sys.argv[1:]
path = f'{folder}/tinything-{version}-py3-none-any.whl'
with zipfile.ZipFile(path, 'w') as wheel:
    wheel.writestr('tinything.py', f'VALUE = {value!r}\\n')
    info = f'tinything-{version}.dist-info/'
    wheel.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: tinything\\nVersion: {version}\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', 'tinything.py,,\\n')
";
    fs::create_dir_all(folder).unwrap();
    let made =
        Command::new("python3").args(["-c", MAKE]).arg(folder).args([version, value]).status().unwrap();
    assert!(made.success());
    folder.join(format!("tinything-{version}-py3-none-any.whl"))
}

/// A package index on this host's loopback, of what lies in a folder; it tells each request.
struct Index {
    child: Child,
    address: String,
}

impl Index {
    fn serve(folder: &Path) -> Self {
        const SERVE: &str = "
import http.server, sys
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()
";
        let mut child = Command::new("python3")
            .args(["-c", SERVE])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: format!("127.0.0.1:{}", line.trim()) }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROWLER: &str = r#"
import json, os, socket, sys, urllib.request

def outcome(act, *arguments):
    try:
        return "reached: " + repr(act(*arguments))
    except Exception as error:
        return f"denied: {type(error).__name__}: {error}"

def directly(host, port):
    socket.create_connection((host, port), timeout=5)

def by_proxy(url):
    return urllib.request.urlopen(url, timeout=10).read(100)

def by_tunnel(host, port):
    proxy = socket.create_connection(("127.0.0.1", 3128), timeout=10)
    proxy.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
    status = proxy.recv(200)
    assert b" 200 " in status, status
    return status

def abstract(name):
    socket.socket(socket.AF_UNIX).connect(name)

port, own, data = int(sys.argv[1]), sys.argv[2], sys.argv[3]
hosts = ["127.0.0.1", "localhost", "127.9.9.9", "::1", "0.0.0.0", "::ffff:127.0.0.1", "169.254.169.254", own]
found = {}
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
for host in hosts:
    shown = f"[{host}]" if ":" in host else host
    found[f"directly {host}"] = outcome(directly, host, port)
    found[f"by proxy {host}"] = outcome(by_proxy, f"http://{shown}:{port}/api/v2/swagger.json")
    found[f"by tunnel {host}"] = outcome(by_tunnel, shown, port)
found["by proxy, as a decimal"] = outcome(by_proxy, f"http://2130706433:{port}/")
found["metadata"] = outcome(by_proxy, "http://169.254.169.254/latest/meta-data/")
# The way to its own build, and nothing beside it.
assert len(os.listdir(f"{data}/builds")) == 1
for path in ("keys", "millgate.db", "projects", "run", "credentials.json"):
    found[f"list {path}"] = outcome(os.listdir, f"{data}/{path}")
    found[f"read {path}"] = outcome(lambda: open(f"{data}/{path}").read())
found["socket of gateways"] = outcome(abstract, f"{data}/gateways.sock")
json.dump(found, open("found.json", "w"))
"#;

/// An address of this host that is not its loopback, if it has one.
fn own_address() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel says which address it would send from.
    let _ = socket.connect("203.0.113.1:9");
    socket.local_addr().unwrap().ip().to_string()
}

#[test]
fn a_build_script_reaches_nothing_of_the_inside_by_any_way() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(temp.path(), "", &[]);
    let port = server.url().rsplit(':').next().unwrap().trim_end_matches('/');
    let script = format!("python3 prowl.py {port} {} {}\n", own_address(), server.data_dir().display());
    let (is_live, said) = deploy(&server, "other", &[("f.py", "def f(args): return 1\n")]);
    assert!(is_live, "{said}");
    let files = [("f.py", FUNCTION), ("prowl.py", PROWLER), ("cdsw-build.sh", script.as_str())];
    let (is_live, said) = deploy(&server, "prowl", &files);
    assert!(is_live, "{said}");
    let found = answer(&server, "prowl");
    let found = found.as_object().unwrap();
    assert!(found.len() > 30, "{found:?}");
    let reached: Vec<_> =
        found.iter().filter(|(_, how)| !how.as_str().unwrap().starts_with("denied")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert!(said.contains("its own processes, files, memory, network"), "{said}");
    assert!(said.contains("network: refused: 169.254.169.254:80: a link-local address"), "{said}");
}

#[test]
fn a_build_with_the_network_off_is_built_from_local_wheels() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(temp.path(), "network = 'none'", &[]);
    let wheel = fs::read(wheel(&temp.path().join("wheels"), "local")).unwrap();
    let folder = server.project("local", &[("x", "")]);
    fs::create_dir_all(folder.join("wheels")).unwrap();
    fs::write(folder.join("wheels/tinything-1.0-py3-none-any.whl"), wheel).unwrap();
    let files = [
        (
            "f.py",
            "import json, tinything\ndef f(args):\n    return [tinything.VALUE, json.load(open('found.json'))]\n",
        ),
        (
            "cdsw-build.sh",
            "set -e\npip install --no-index --find-links wheels tinything\n\
             python3 -c 'import socket, json; json.dump(socket.socket().connect_ex((\"203.0.113.80\", 443)), \
             open(\"found.json\", \"w\"))'\n",
        ),
    ];
    let (is_live, said) = deploy(&server, "local", &files);
    assert!(is_live, "{said}");
    let answered = answer(&server, "local");
    // ENETUNREACH: there is nothing to go out by.
    assert_eq!(answered, json!(["local", 101]));
}

#[test]
fn the_index_of_this_host_is_reached_wherever_it_is_and_nothing_else_when_only_listed_hosts_are() {
    let temp = tempfile::tempdir().unwrap();
    let wheel = wheel(&temp.path().join("index/tinything"), "indexed");
    let index = Index::serve(&temp.path().join("index"));
    assert!(wheel.exists());
    let url = kept(format!("http://{}/", index.address));
    let server = server(
        temp.path(),
        "network = 'listed'",
        &[
            ("PIP_INDEX_URL", url),
            ("PIP_TRUSTED_HOST", "127.0.0.1"),
            ("PIP_FIND_LINKS", ""),
            ("UV_INDEX_URL", url),
        ],
    );
    let files = [
        ("f.py", "import tinything\ndef f(args): return tinything.VALUE\n"),
        (
            "cdsw-build.sh",
            "set -e\npip install tinything\n\
             ! python3 -c 'import urllib.request as u; u.urlopen(\"http://203.0.113.80/\", timeout=5)'\n",
        ),
    ];
    let (is_live, said) = deploy(&server, "indexed", &files);
    assert!(is_live, "{said}");
    assert_eq!(answer(&server, "indexed"), "indexed");
    assert!(said.contains(&format!("network: reached {}", index.address)), "{said}");
    assert!(said.contains("refused: 203.0.113.80:80: not among `allowed_hosts`"), "{said}");
}

#[test]
fn a_script_that_fills_the_disk_hangs_or_eats_memory_fails_its_build_and_says_which_bound() {
    let temp = tempfile::tempdir().unwrap();
    let server = server(temp.path(), "disk_mib = 64\ntimeout_s = 6\nmemory_mib = 256", &[]);
    for (name, script, words) in [
        ("one-file", "echo one; head -c 200M /dev/zero > big\n", "File size limit exceeded"),
        (
            "many-files",
            "echo many; for i in $(seq 1000000); do head -c 8M /dev/zero > f$i; done\n",
            "took more disk than it may",
        ),
        ("slow", "echo slow; exec 1>&-; sleep 1000\n", "ran longer than 6 s"),
        ("memory", "echo memory; python3 -c 'x = bytearray(10**9)'\n", "256 MiB"),
    ] {
        let (is_live, said) = deploy(&server, name, &[("f.py", FUNCTION), ("cdsw-build.sh", script)]);
        assert!(!is_live, "{name}: {said}");
        // Without a cgroup there is no bound of memory to run into.
        let is_without = name == "memory" && said.contains("cgroup:");
        assert!(said.contains(words) || is_without, "{name}: {said}");
        let last = script.split([';', ' ']).nth(1).unwrap();
        assert!(said.contains(&format!("\n{last}")), "{name}: its last lines are said: {said}");
    }
    // Nothing of them is left, and the next build is built.
    until("all scripts have ended", || {
        common::processes_of(&server.data_dir().join("builds")).is_empty().then_some(())
    });
    let (is_live, said) = deploy(&server, "good", &[("f.py", "def f(args): return 1\n")]);
    assert!(is_live, "{said}");
}

/// `uv` of this host, where there is one: beside the program, or on the PATH.
fn uv() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_BIN_EXE_millgate")).with_file_name("uv");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("uv"));
    std::iter::once(beside).chain(on_path).find(|uv| uv.is_file())
}

/// By `uv` where this host has it, else by pip.
#[test]
fn every_way_to_call_pip_installs_into_the_builds_environment_and_nothing_of_it_stays() {
    let temp = tempfile::tempdir().unwrap();
    let wheel = fs::read(wheel(&temp.path().join("wheels"), "here")).unwrap();
    let uv = uv().map_or_else(String::new, |uv| uv.display().to_string());
    let server = server(temp.path(), &format!("network = 'none'\nuv = '{uv}'"), &[]);
    for (name, call) in [
        ("pip", "pip install --no-index -f wheels tinything"),
        ("pip3", "pip3 install --no-index --find-links=wheels -r needs.txt"),
        ("module", "python -m pip install --no-index -f wheels 'tinything>=1'"),
        ("module3", "PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels python3 -m pip install tinything"),
        // Of pip alone.
        ("path", "$VIRTUAL_ENV/bin/pip install --no-index --find-links wheels tinything"),
        ("only-pip", "pip install --no-index --find-links wheels --report r.json tinything; test -s r.json"),
    ] {
        let folder = server.project(name, &[("wheels/x", ""), ("needs.txt", "tinything==1.0\n")]);
        fs::write(folder.join("wheels/tinything-1.0-py3-none-any.whl"), &wheel).unwrap();
        let script = format!("set -e\n{call}\npip list\n");
        let files = [
            (
                "f.py",
                "import tinything, sys, os\ndef f(args): return [tinything.VALUE, os.listdir(sys.path[-1])]\n",
            ),
            ("cdsw-build.sh", script.as_str()),
        ];
        let (is_live, said) = deploy(&server, name, &files);
        assert!(is_live, "{name}: {said}");
        let answered = answer(&server, name);
        assert_eq!(answered[0], "here", "{name}");
        assert!(!answered.to_string().contains("_millgate"), "{name}: {answered}");
        let is_by_uv = said.contains("Installed 1 package");
        assert_eq!(is_by_uv, !uv.is_empty() && !["path", "only-pip"].contains(&name), "{name}: {said}");
    }
}

#[test]
fn what_one_project_puts_into_its_package_cache_reaches_no_other_project() {
    let temp = tempfile::tempdir().unwrap();
    wheel(&temp.path().join("index/tinything"), "good");
    let index = Index::serve(&temp.path().join("index"));
    let url = kept(format!("http://{}/", index.address));
    let variables = [
        ("PIP_INDEX_URL", url),
        ("PIP_TRUSTED_HOST", "127.0.0.1"),
        ("PIP_FIND_LINKS", ""),
        ("UV_INDEX_URL", url),
    ];
    let server = server(temp.path(), "network = 'listed'", &variables);
    // Fills its own cache, changes all that is in it, and looks for the caches of others.
    let attack = "pip install tinything\nmkdir -p \"$PIP_CACHE_DIR\" \"$UV_CACHE_DIR\"\npip download -q tinything -d /tmp\n\
                  find \"$PIP_CACHE_DIR\" \"$UV_CACHE_DIR\" -type f -exec sed -i s/good/evil/ {} +\n\
                  ls \"$PIP_CACHE_DIR/../..\" | wc -l > seen\n\
                  for way in ../../other ../../pip ../../../environments; do echo evil > \"$PIP_CACHE_DIR/$way\" && echo wrote >> seen; done\n\
                  ls -d \"$PIP_CACHE_DIR\"/../../../environments && echo saw >> seen\ntrue\n";
    let function = "def f(args): return open('seen').read()\n";
    let (is_live, said) = deploy(&server, "evil", &[("f.py", function), ("cdsw-build.sh", attack)]);
    assert!(is_live, "{said}");
    assert_eq!(answer(&server, "evil"), "1\n", "it sees its own cache alone: {said}");
    let function = "import tinything\ndef f(args): return tinything.VALUE\n";
    let (is_live, said) =
        deploy(&server, "good", &[("f.py", function), ("cdsw-build.sh", "set -e\npip install tinything\n")]);
    assert!(is_live, "{said}");
    assert_eq!(answer(&server, "good"), "good");
}

#[test]
fn a_build_that_was_collected_is_made_again_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let wheels = temp.path().join("wheels");
    wheel_of(&wheels, "1.0", "first");
    let links = kept(wheels.display().to_string());
    let keep = "network = 'none'\nkeep_last = 1\nkeep_days = 0";
    let server = server(temp.path(), keep, &[("PIP_FIND_LINKS", links), ("PIP_NO_INDEX", "1")]);
    let deploy_note = |note: &str| {
        let code = format!("import tinything\ndef f(args):\n    return [tinything.VALUE, '{note}']\n");
        let script = "set -e\npip install tinything\n";
        let (is_live, said) = deploy(&server, "m", &[("f.py", &code), ("cdsw-build.sh", script)]);
        assert!(is_live, "{said}");
    };
    deploy_note("one");
    wheel_of(&wheels, "2.0", "second");
    for note in ["two", "three"] {
        deploy_note(note);
    }
    assert_eq!(answer(&server, "m"), json!(["second", "three"]));
    let build = |nth: usize| server.json(&["builds", "m"])["model_builds"][nth].clone();
    until("the first build to be collected", || build(0)["is_collected"].as_bool().filter(|is| *is));
    assert_eq!((&build(1)["is_collected"], &build(2)["is_collected"]), (&json!(false), &json!(false)));
    let folder = server_folder(&server, build(0)["id"].as_str().unwrap());
    until("its files to go", || {
        (!folder.join("venv").exists() && !folder.join("root").exists()).then_some(())
    });
    assert!(folder.join("build.log").is_file() && folder.join("manifest.json").is_file());
    assert!(
        server.ok(&["builds", "m"]).lines().any(|line| line.starts_with("1 ") && line.contains("collected"))
    );
    let said = server.fails(1, &["rollback", "m", "--build", "1"]);
    assert!(said.contains("hint: `millgate builds m --rebuild 1`"), "{said}");

    let again = server.json(&["builds", "m", "--rebuild", "1"]);
    assert_eq!((&again["build_number"], &again["status"]), (&json!(4), &json!("built")));
    assert_eq!(again["rebuilt_from"], build(0)["id"]);
    assert!(again["dependencies"].as_array().unwrap().contains(&json!("tinything==1.0")), "{again}");
    server.ok(&["rollback", "m", "--build", "4"]);
    assert_eq!(answer(&server, "m"), json!(["first", "one"]));

    assert!(server.ok(&["builds", "m", "--pin", "3"]).contains("stays"));
    assert!(server.ok(&["builds", "m"]).contains("built, pinned"));
    assert!(server.fails(1, &["builds", "m", "--pin", "1"]).contains("was collected"));
    server.ok(&["builds", "m", "--unpin", "3"]);
    server.fails(2, &["builds", "m", "--pin", "1", "--rebuild", "1"]);
}

#[test]
fn a_server_that_is_killed_at_each_step_of_a_collection_ends_it_and_serves_on() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = server(temp.path(), "", &[]);
    for note in ["one", "two", "three"] {
        let code = format!("def f(args):\n    return '{note}'\n");
        let (is_live, said) = deploy(&server, "m", &[("f.py", &code)]);
        assert!(is_live, "{said}");
    }
    let builds = server.json(&["builds", "m"])["model_builds"].clone();
    let folder = |nth: usize| server_folder(&server, builds[nth]["id"].as_str().unwrap());
    let (old, kept) = (folder(0), [folder(1), folder(2)]);
    server.kill();
    fs::write(temp.path().join("millgate.toml"), "[builds]\nkeep_last = 1\nkeep_days = 0\n").unwrap();
    for (step, is_whole) in [("collected:1", true), ("files-removed:1", false)] {
        let ended = server.serve_command().env("MILLGATE_DIE_AT", step).output().unwrap();
        assert!(String::from_utf8_lossy(&ended.stderr).contains("dies at"), "{step}: {ended:?}");
        assert_eq!(old.join("root/f.py").exists(), is_whole, "{step}");
    }
    server.start_again();
    assert_eq!(answer(&server, "m"), json!("three"));
    assert_eq!(server.json(&["builds", "m"])["model_builds"][0]["is_collected"], true);
    assert!(old.join("manifest.json").is_file() && !old.join("root").exists());
    assert!(kept.iter().all(|folder| folder.join("root/f.py").is_file()));
    server.ok(&["rollback", "m"]);
    assert_eq!(answer(&server, "m"), json!("two"));
}

fn server_folder(server: &Server, build: &str) -> PathBuf {
    server.data_dir().join("builds").join(build)
}
