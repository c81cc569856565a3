use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use millgate_contract::ids::{DeploymentId, KeyId, ModelId, ReplicaId, RequestId, Username};

use super::*;
use crate::{keys::KeyFacts, lane::Drain, metrics::KeyCalls};

fn event(number: u64, model: &str) -> Box<CallEvent> {
    Box::new(CallEvent {
        time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + number),
        request_id: RequestId::new(format!("r-{number}")),
        trace_id: None,
        names: Some(Arc::new(Names::new(ModelId::new(model), format!("name of \"{model}\"")))),
        deployment: None,
        replica: None,
        status: 200,
        code: if number.is_multiple_of(2) { "ok" } else { "model.busy" },
        waited: None,
        ran: None,
        took: Duration::from_micros(1_500),
        request_bytes: 10,
        response_bytes: 20,
        address: IpAddr::from([127, 0, 0, 1]),
        holder: None,
    })
}

fn line(event: &CallEvent) -> String {
    let mut line = Vec::new();
    Writer::default().write(&mut line, event);
    assert_eq!(line.pop(), Some(b'\n'));
    String::from_utf8(line).unwrap()
}

fn json(event: &CallEvent) -> serde_json::Value {
    serde_json::from_str(&line(event)).unwrap()
}

fn config(folder: &Path) -> CallLogConfig {
    CallLogConfig {
        file_bytes_max: 2_000,
        folder_bytes_max: 10_000,
        ..CallLogConfig::new(folder.join("calls"), 0)
    }
}

fn files(config: &CallLogConfig) -> Files {
    Files::new(config.clone(), Counter::default())
}

fn ids(lines: &[String]) -> Vec<u64> {
    let id = |line: &String| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["request_id"].as_str().unwrap()[2..].parse().unwrap()
    };
    lines.iter().map(id).collect()
}

fn filter(parameters: &[(&str, &str)]) -> CallFilter {
    let mut filter = CallFilter::default();
    for (name, value) in parameters {
        filter.set(name, value).unwrap();
    }
    filter
}

#[test]
fn an_event_has_its_form_and_leaves_out_what_is_not_known() {
    insta::assert_snapshot!(line(&event(1_234, "m1")));
    let unrouted = json(&CallEvent { names: None, ..*event(0, "m1") });
    assert!(unrouted.get("model").is_none() && unrouted.get("model_name").is_none());
}

#[test]
fn an_event_of_which_everything_is_known_says_everything() {
    let facts = KeyFacts {
        key: KeyId::new("k-1"),
        user: Username::new("name\\ with \n"),
        expires_at_s: 0,
        not_before_s: 0,
        calls: KeyCalls::default(),
    };
    let event = CallEvent {
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        deployment: Some(DeploymentId::new("d-1")),
        replica: Some(ReplicaId::new("add-1-1-x-0")),
        waited: Some(Duration::ZERO),
        ran: Some(Duration::from_micros(12_340)),
        took: Duration::from_micros(30_000_007),
        holder: Some(Arc::new(facts)),
        ..*event(987, "m1")
    };
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:20.987Z", "request_id": "r-987", "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "model": "m1", "model_name": "name of \"m1\"", "deployment": "d-1", "replica": "add-1-1-x-0", "status": 200,
        "code": "model.busy", "wait_ms": 0.0, "run_ms": 12.34, "total_ms": 30_000.007, "request_bytes": 10,
        "response_bytes": 20, "address": "127.0.0.1", "user": "name\\ with \n", "key": "k-1",
    });
    assert_eq!(json(&event), expected);
}

#[test]
fn each_event_has_the_date_of_its_own_second() {
    let (mut writer, mut lines) = (Writer::default(), Vec::new());
    for number in [1_999, 2_000, 2_001, 0] {
        writer.write(&mut lines, &event(number, "m1"));
    }
    let lines = String::from_utf8(lines).unwrap();
    let times: Vec<&str> = lines.lines().map(|line| &line[9..33]).collect();
    let expected =
        ["21.999", "22.000", "22.001", "20.000"].map(|second| format!("2023-11-14T22:13:{second}Z"));
    assert_eq!(times, expected);
}

#[test]
fn the_folder_is_private_and_bounded_and_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let mut writing = files(&config);
    for number in 0..500 {
        writing.take(&mut vec![event(number, "m1")]);
    }
    let kept = files::list(&config.folder).unwrap();
    let bytes: u64 = kept.iter().map(|file| file.bytes).sum();
    assert!((4_000..=config.folder_bytes_max + 300).contains(&bytes), "{bytes}");
    assert_eq!(fs::metadata(&config.folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&kept[0].path).unwrap().permissions().mode() & 0o777, 0o600);
    let newest = ids(&read_calls(&config.folder, &filter(&[("limit", "10")])).unwrap());
    assert_eq!(newest, (490..500).collect::<Vec<_>>());
}

#[test]
fn calls_are_found_by_model_code_and_time_the_newest_last() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    // Two processes write by turns, as in a hand-over.
    let (mut one, mut two) = (files(&config), files(&config));
    for number in 0..30 {
        let model = if number < 15 { "m1" } else { "m2" };
        let writing = if number % 3 == 0 { &mut one } else { &mut two };
        writing.take(&mut vec![event(number, model)]);
    }
    // Written to when its last call ended, as it is when time is not a test's: what is too old is not read.
    for file in files::list(&config.folder).unwrap() {
        let last =
            *ids(&fs::read_to_string(&file.path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
                .last()
                .unwrap();
        fs::File::options()
            .append(true)
            .open(&file.path)
            .unwrap()
            .set_modified(event(last, "").time)
            .unwrap();
    }
    let found = |parameters: &[(&str, &str)]| ids(&read_calls(&config.folder, &filter(parameters)).unwrap());
    assert_eq!(found(&[]), (0..30).collect::<Vec<_>>());
    assert_eq!(found(&[("limit", "4")]), [26, 27, 28, 29]);
    assert_eq!(found(&[("model", "m1"), ("limit", "2")]), [13, 14]);
    assert_eq!(found(&[("model", "name of \"m2\""), ("limit", "2")]), [28, 29]);
    assert_eq!(found(&[("model", "m1"), ("code", "model.busy"), ("limit", "3")]), [9, 11, 13]);
    assert_eq!(found(&[("model", "m3")]), [] as [u64; 0]);
    assert_eq!(found(&[("since", "2023-11-14T22:13:20.027Z")]), [27, 28, 29]);
    assert_eq!(found(&[("since", "2023-11-14T23:13:20.028+01:00")]), [28, 29]);
    assert_eq!(found(&[("since", "1h")]), [] as [u64; 0]);
}

#[test]
fn lines_that_are_not_whole_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let mut writing = files(&config);
    writing.take(&mut vec![event(1, "m1"), event(2, "m1")]);
    let path = files::list(&config.folder).unwrap().remove(0).path;
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"time\":\"2023-\n\xff\xfe\n\n{}\n");
    let whole = line(&event(3, "m1"));
    bytes.extend_from_slice(whole.as_bytes());
    bytes.extend_from_slice(b"\n{\"time\":\"2024");
    fs::write(&path, bytes).unwrap();
    assert_eq!(ids(&read_calls(&config.folder, &CallFilter::default()).unwrap()), [1, 2, 3]);
    assert_eq!(read_calls(&folder.path().join("nowhere"), &CallFilter::default()).unwrap(), [""; 0]);
}

#[test]
fn events_that_cannot_be_written_are_counted_and_the_next_ones_are_kept_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    fs::write(&config.folder, b"a file where the folder should be").unwrap();
    let lost = Counter::default();
    let mut writing = Files::new(config.clone(), lost.clone());
    writing.take(&mut vec![event(1, "m1"), event(2, "m1")]);
    assert_eq!(lost.get(), 2);
    fs::remove_file(&config.folder).unwrap();
    writing.take(&mut vec![event(3, "m1")]);
    assert_eq!((lost.get(), ids(&read_calls(&config.folder, &CallFilter::default()).unwrap())), (2, vec![3]));
}

#[test]
fn a_question_that_makes_no_sense_is_told_what_would() {
    let said = |name, value| CallFilter::default().set(name, value).unwrap_err().to_string();
    let all = [
        said("since", "yesterday"),
        said("since", "-1h"),
        said("since", "é"),
        said("limit", "0"),
        said("limit", "10001"),
        said("user", "ana"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
