use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::UNIX_EPOCH};

use millgate_contract::ids::{ModelId, RequestId};

use super::{event::Names, *};
use crate::lane::Drain;

fn event(number: u64, model: &str) -> Box<CallEvent> {
    Box::new(CallEvent {
        time: UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_000 + number),
        request_id: RequestId::new(format!("r-{number}")),
        trace_id: None,
        names: Some(Arc::new(Names { model: ModelId::new(model), name: format!("name of \"{model}\"") })),
        deployment: None,
        replica: None,
        status: 200,
        code: if number.is_multiple_of(2) { "ok" } else { "model.busy" },
        wait_ms: None,
        run_ms: None,
        total_ms: 1.5,
        request_bytes: 10,
        response_bytes: 20,
        address: IpAddr::from([127, 0, 0, 1]),
        user: None,
        key: None,
    })
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
    let text = serde_json::to_string(&event(1_234, "m1")).unwrap();
    insta::assert_snapshot!(text);
    let unrouted = serde_json::to_value(CallEvent { names: None, ..*event(0, "m1") }).unwrap();
    assert!(unrouted.get("model").is_none() && unrouted.get("model_name").is_none());
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
    let whole = serde_json::to_string(&event(3, "m1")).unwrap();
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
