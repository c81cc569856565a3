//! Files and archives from outside.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::testing::{Reply, Rig};

async fn upload(rig: &Rig, project: &str, files: &[(&str, &str)]) -> Reply {
    let mut body = String::new();
    for (path, text) in files {
        body += "--cut\r\nContent-Disposition: form-data; name=\"";
        body += path;
        body += "\"; filename=\"x\"\r\n\r\n";
        body += text;
        body += "\r\n";
    }
    body.push_str("--cut--\r\n");
    let request = Request::post(format!("{project}/files"))
        .header("authorization", format!("Bearer {}", rig.key))
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(Body::from(body))
        .unwrap();
    rig.send(request).await
}

async fn put_source(rig: &Rig, project: &str, tar: Vec<u8>) -> Reply {
    let request = Request::put(format!("{project}/source"))
        .header("authorization", format!("Bearer {}", rig.key))
        .body(Body::from(tar))
        .unwrap();
    rig.send(request).await
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

async fn paths(rig: &Rig, path: &str) -> Vec<String> {
    let list = rig.call("GET", path, Value::Null).await.ok();
    list["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn files_go_where_their_form_keys_say_and_overwrite() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    upload(&rig, &project, &[("a.py", "one"), ("d/e/b.py", "two")]).await.ok();
    upload(&rig, &project, &[("a.py", "three!")]).await.ok();
    let list = rig.call("GET", &format!("{project}/files/"), Value::Null).await.ok();
    let expected = json!([
        {"path": "a.py", "is_dir": false, "file_size": "6"},
        {"path": "d", "is_dir": true, "file_size": "0"},
    ]);
    assert_eq!(list["files"], expected);
    assert_eq!(paths(&rig, &format!("{project}/files/d%2Fe")).await, ["d/e/b.py"]);
    assert_eq!(paths(&rig, &format!("{project}/files/d/e/b.py")).await, ["d/e/b.py"]);
    let file = rig.call("POST", &format!("{project}/files/d/e/b.py:download"), json!({})).await;
    assert_eq!(file.text, "two");
    rig.call("DELETE", &format!("{project}/files/d"), json!({})).await.ok();
    assert_eq!(paths(&rig, &format!("{project}/files")).await, ["a.py"]);
    assert_eq!(rig.call("GET", &format!("{project}/files/d"), Value::Null).await.error().0, 404);
}

#[tokio::test]
async fn nothing_outside_the_project_is_reached() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    for path in ["../x", "/etc/x", "d/../../x", "..", ".", "a/../../../keys/x"] {
        assert_eq!(upload(&rig, &project, &[(path, "x")]).await.error().0, 400, "{path}");
    }
    let id = project.rsplit('/').next().unwrap();
    std::os::unix::fs::symlink(rig.app.dir.keys(), rig.app.dir.project(id).join("out")).unwrap();
    assert_eq!(upload(&rig, &project, &[("out/x", "x")]).await.error().0, 400);
    for (method, path) in [
        ("GET", "out/signing-1.pkcs8"),
        ("GET", "%2e%2e/%2e%2e/keys"),
        ("DELETE", "out/signing-1.pkcs8"),
        ("POST", "out/signing-1.pkcs8:download"),
        ("POST", "out:download"),
        ("DELETE", "%2e%2e%2fx"),
    ] {
        let (status, _) = rig.call(method, &format!("{project}/files/{path}"), json!({})).await.error();
        assert!(status == 404 || status == 400, "{method} {path}: {status}");
    }
    assert_eq!(std::fs::read_dir(rig.app.dir.keys()).unwrap().count(), 3);
    assert_eq!(
        std::fs::read_dir(rig.app.dir.uploads()).unwrap().count(),
        0,
        "nothing is left of refused uploads"
    );
}

#[tokio::test]
async fn a_file_over_the_bound_is_refused_and_the_old_one_stays() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    upload(&rig, &project, &[("a.py", "old")]).await.ok();
    assert_eq!(upload(&rig, &project, &[("a.py", &"x".repeat(1_001))]).await.error().0, 413);
    assert_eq!(rig.call("POST", &format!("{project}/files/a.py:download"), json!({})).await.text, "old");
    assert_eq!(upload(&rig, &project, &[]).await.error().0, 400);
}

#[tokio::test]
async fn an_archive_takes_the_place_of_all_files_or_changes_nothing() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    upload(&rig, &project, &[("old.py", "x")]).await.ok();
    let answer = put_source(&rig, &project, tar(&[("a.py", "one"), ("d/b.py", "two!")])).await.ok();
    assert_eq!(answer, json!({"files": 2, "bytes": 7}));
    assert_eq!(paths(&rig, &format!("{project}/files")).await, ["a.py", "d"]);
    assert_eq!(put_source(&rig, &project, b"not a tar archive".repeat(100)).await.error().0, 400);
    assert_eq!(paths(&rig, &format!("{project}/files")).await, ["a.py", "d"]);
    assert_eq!(std::fs::read_dir(rig.app.dir.uploads()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_is_given_another_path_and_never_one_outside() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    upload(&rig, &project, &[("file", "one"), ("b.py", "two")]).await.ok();
    // The way of clients that upload under a fixed name and say the right one afterwards.
    let body = json!({"name": "a.py", "path": "d/a.py", "type": "file"});
    rig.call("PATCH", &format!("{project}/files/file"), body).await.ok();
    assert_eq!(paths(&rig, &format!("{project}/files")).await, ["b.py", "d"]);
    rig.call("PATCH", &format!("{project}/files/d%2Fa.py"), json!({"path": "b.py"})).await.ok();
    assert_eq!(rig.call("POST", &format!("{project}/files/b.py:download"), json!({})).await.text, "one");
    for (from, to, expected) in [
        ("b.py", "../x", 400),
        ("b.py", "/x", 400),
        ("b.py", "d", 400),
        ("b.py", "d/b.py/c", 200),
        ("gone", "x", 404),
    ] {
        let reply = rig.call("PATCH", &format!("{project}/files/{from}"), json!({ "path": to })).await;
        assert_eq!(reply.status, expected, "{from} {to}: {}", reply.text);
    }
}

#[tokio::test]
async fn an_archive_among_a_form_s_files_is_a_file_and_nothing_of_it_is_unpacked() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let archive = String::from_utf8(tar(&[("a.py", "x")])).unwrap();
    // Its first bytes: what is uploaded in tests is bounded at a thousand.
    upload(&rig, &project, &[("a.tar", &archive[..600])]).await.ok();
    assert_eq!(paths(&rig, &format!("{project}/files")).await, ["a.tar"]);
}

#[tokio::test]
async fn what_ends_before_it_is_whole_changes_nothing() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    put_source(&rig, &project, tar(&[("a.py", "good")])).await.ok();
    let mut cut = tar(&[("a.py", &"evil".repeat(200))]);
    cut.truncate(512 + 100);
    assert_eq!(put_source(&rig, &project, cut).await.error().0, 400);
    let form = "--cut\r\nContent-Disposition: form-data; name=\"a.py\"; filename=\"x\"\r\n\r\nevil";
    let request = Request::post(format!("{project}/files"))
        .header("authorization", format!("Bearer {}", rig.key))
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(Body::from(form))
        .unwrap();
    assert_eq!(rig.send(request).await.error().0, 400);
    let file = rig.call("POST", &format!("{project}/files/a.py:download"), json!({})).await;
    assert_eq!(file.text, "good");
}
