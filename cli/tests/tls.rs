//! A server over TLS, and the commands that talk to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{Running, millgate, until};
use nix::sys::signal::Signal;

const ADD: &str = "def add(args):\n    return args['a'] + args['b']\n";

/// A folder with a server's certificate and settings.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let place = Self(folder);
        place.renew();
        let settings = format!(
            "[tls]\ncertificate_file = '{}'\nkey_file = '{}'\n",
            place.path("tls.crt").display(),
            place.path("tls.key").display()
        );
        fs::write(place.path("millgate.toml"), settings).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes another certificate over the one that is there.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(self.path("tls.crt"), made.cert.pem()).unwrap();
        fs::write(self.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    }

    fn role(&self, role: &str) -> Command {
        let mut command = millgate();
        command.args([role, "--listen", "127.0.0.1:0", "--config"]).arg(self.path("millgate.toml"));
        command.arg("--data-dir").arg(self.path("data")).args(["--admin-listen", "127.0.0.1:0"]);
        command
    }

    fn run(&self, server: &Running, ca_file: &Path, args: &[&str]) -> Output {
        let mut command = millgate();
        command.args(args).env("MILLGATE_SERVER", &server.url).env("MILLGATE_DATA_DIR", self.path("data"));
        command.env("MILLGATE_CA_FILE", ca_file).output().unwrap()
    }

    fn ok(&self, server: &Running, args: &[&str]) -> String {
        let output = self.run(server, &self.path("tls.crt"), args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn commands_talk_to_a_server_over_tls_and_trust_whom_they_are_told_to() {
    let place = Place::new();
    let server = Running::start(place.role("serve"));
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let file = place.path("add/add.py");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, ADD).unwrap();
    place.ok(&server, &["deploy", &format!("{}:add", file.display()), "--example", r#"{"a":3,"b":5}"#]);
    assert_eq!(place.ok(&server, &["call", "add", r#"{"a":3,"b":5}"#]).trim(), "8");

    // Another's certificate vouches for nobody here.
    let other = Place::new();
    let refused = place.run(&server, &other.path("tls.crt"), &["list"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot reach the server"), "{said}");
    let missing = place.run(&server, &place.path("nothing"), &["list"]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && said.contains("--ca-file") && said.contains("nothing"), "{said}");

    // The old certificate goes on until the signal, or a second or two; who trusts only the new one gets through then.
    place.renew();
    server.signal(Signal::SIGHUP);
    let listed = until("the new certificate", || {
        let output = place.run(&server, &place.path("tls.crt"), &["--json", "list"]);
        output.status.success().then_some(output.stdout)
    });
    assert!(String::from_utf8_lossy(&listed).contains("add"));
    assert!(server.interrupt().success());
}

#[test]
fn the_control_api_alone_speaks_tls_too_and_has_no_calls() {
    let place = Place::new();
    let control = Running::start(place.role("control"));
    assert!(control.url.starts_with("https://"), "{}", control.url);
    assert_eq!(place.ok(&control, &["--json", "list"]).trim(), r#"{"models":[]}"#);
}
