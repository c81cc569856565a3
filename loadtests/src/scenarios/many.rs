//! 500 models in 50 projects, 2,000 builds: what a list page takes, what a deploy takes beside them, and the server's
//! memory; on SQLite and on PostgreSQL.
//!
//! One model is really built and deployed. Its rows in a backup are multiplied, and that backup is restored: the lists are
//! of rows as the server writes them, though no files belong to them.

use std::{
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{ADD, ADD_REQUEST};
use crate::{
    figures::{Figures, mb, ms, quantile},
    http::ask,
    load::{Plan, load},
    postgres::Postgres,
    processes,
    server::{Model, Server},
};

const PROJECTS: usize = 50;
const MODELS: usize = 500;
const BUILDS: usize = 2_000;
/// Of each model but the first, which has the rest.
const BUILDS_EACH: usize = 3;
/// How often each page is asked for.
const ASKED: usize = 40;

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let folder = tempfile::tempdir().expect("a folder can be made");
    let backup = folder.path().join("backup.jsonl");
    let credentials = folder.path().join("credentials.json");
    {
        let server = Server::start();
        server.deploy("seed", ADD, &[]);
        deploy(&server, &mut figures, "an empty server");
        figures.show("an empty server: memory of the server", mb(processes::rss_bytes(server.pid())));
        server.millgate(&["stop", "seed"]);
        server.millgate(&["delete", "beside"]);
        server.millgate(&["backup", "--with-keys", &backup.display().to_string()]);
        fs::copy(server.data_dir().join("credentials.json"), &credentials).expect("the folder is ours");
    }
    multiply(&backup);
    measure("SQLite", "", &backup, &credentials, &mut figures).await;
    let postgres = Postgres::start();
    measure("PostgreSQL", &postgres.configuration(), &backup, &credentials, &mut figures).await;
    figures
}

async fn measure(name: &str, configuration: &str, backup: &Path, credentials: &Path, figures: &mut Figures) {
    let server = Server::start_restored(configuration, backup, credentials);
    let model = server.model("seed");
    let get = |path: &str| {
        let begun = Instant::now();
        let answer = ask("GET", server.api_host(), path, &model.api_key).expect("the server is there");
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        let read: Value = serde_json::from_slice(&answer.body).expect("answers are JSON");
        (begun.elapsed(), read)
    };
    let all = get("/api/v2/models?page_size=1000").1;
    let models = all["models"].as_array().expect("it is a list").clone();
    figures.must_be(format!("{name}: models listed"), models.len(), MODELS + 1);
    let first = models.iter().find(|model| model["name"] == "model-0").expect("it was restored");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_model = format!(
        "/api/v2/projects/{}/models/{}",
        text(&first["project"]["public_identifier"]),
        text(&first["id"])
    );
    let deep = text(&get("/api/v2/models?page_size=490").1["next_page_token"]);
    let deep_builds = text(&get(&format!("{of_model}/builds?page_size=490")).1["next_page_token"]);
    let pages = [
        ("models, first 10", "/api/v2/models".to_owned()),
        ("models, 100", "/api/v2/models?page_size=100".to_owned()),
        ("models, 100 with their latest", "/api/v2/models?page_size=100&include_latest=true".to_owned()),
        ("models, 10 after 490", format!("/api/v2/models?page_token={deep}")),
        (
            "models, filtered by name",
            "/api/v2/models?search_filter=%7B%22name%22%3A%22el-37%22%7D".to_owned(),
        ),
        ("models, sorted by name", "/api/v2/models?sort=-name".to_owned()),
        ("builds, first 10", format!("{of_model}/builds")),
        ("builds, 10 after 490", format!("{of_model}/builds?page_token={deep_builds}")),
        (
            "builds, filtered and sorted",
            format!("{of_model}/builds?sort=-created_at&search_filter=%7B%22comment%22%3A%2299%22%7D"),
        ),
        ("deployments, first 10", format!("{of_model}/deployments")),
        ("deployments, 100 sorted", format!("{of_model}/deployments?page_size=100&sort=-created_at")),
        ("projects, 100", "/api/v2/projects?page_size=100".to_owned()),
    ];
    for (page, path) in pages {
        let mut times: Vec<Duration> = (0..ASKED).map(|_| get(&path).0).collect();
        times.sort_unstable();
        let [p50, p95] = [0.5, 0.95].map(|share| ms(quantile(&times, share)));
        figures.show(format!("{name}: {page}: p50, p95 of {ASKED}"), format!("{p50}, {p95}"));
    }
    let beside = deploy(&server, figures, name);
    figures.show(format!("{name}: memory of the server"), mb(processes::rss_bytes(server.pid())));
    let outcome = load(&beside, &Plan::repeated(1, Duration::from_secs(2), ADD_REQUEST)).await;
    figures.must_be(format!("{name}: calls other than 200"), outcome.all() - outcome.good(), 0);
}

/// A first deploy, and one of new code.
fn deploy(server: &Server, figures: &mut Figures, name: &str) -> Model {
    let begun = Instant::now();
    server.deploy("beside", ADD, &[]);
    figures.show(format!("{name}: a first deploy"), ms(begun.elapsed()));
    let begun = Instant::now();
    let model = server.deploy("beside", &format!("# Changed.\n{ADD}"), &[]);
    figures.show(format!("{name}: a deploy of new code"), ms(begun.elapsed()));
    model
}

/// One table of a backup: its columns, and the row that others are made of.
struct Seed {
    columns: Vec<String>,
    row: Vec<Value>,
}

impl Seed {
    /// The row with some columns changed, as a line.
    fn with(&self, changes: &[(&str, Value)]) -> String {
        let mut row = self.row.clone();
        for (name, value) in changes {
            let at = self.columns.iter().position(|column| column == name).expect("the column is there");
            row[at] = value.clone();
        }
        Value::Array(row).to_string()
    }
}

/// Adds to a backup so many projects, models, builds and deployments, made of the first of each.
fn multiply(path: &Path) {
    let text = fs::read_to_string(path).expect("the backup was written");
    let mut lines: Vec<String> = Vec::new();
    let (mut table, mut columns, mut is_first) = (String::new(), Vec::new(), false);
    for line in text.lines() {
        let read: Value = serde_json::from_str(line).expect("each line is JSON");
        if let Some(name) = read["table"].as_str() {
            name.clone_into(&mut table);
            columns = read["columns"].as_array().into_iter().flatten().map(text_of).collect();
            is_first = true;
        } else if read["sha256"].is_string() {
            break;
        }
        let row = read.as_array().cloned();
        lines.push(match (&row, table.as_str()) {
            (Some(row), "counters") => json!([row[0], row[1].as_i64().unwrap_or(0) + 10_000]).to_string(),
            _ => line.to_owned(),
        });
        if let Some(row) = row
            && std::mem::take(&mut is_first)
        {
            more(&table, &Seed { columns: columns.clone(), row }, &mut lines);
        }
    }
    let rows = lines.iter().filter(|line| line.starts_with('[')).count();
    let mut text = lines.join("\n") + "\n";
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut sha256 = String::new();
    for byte in digest.as_ref() {
        write!(sha256, "{byte:02x}").expect("a text takes what is written");
    }
    text += &json!({ "rows": rows, "sha256": sha256 }).to_string();
    text.push('\n');
    fs::write(path, text).expect("the folder is ours");
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn more(table: &str, seed: &Seed, lines: &mut Vec<String>) {
    let uuid = |kind: u32, n: usize| json!(format!("{kind:08x}-0000-4000-8000-{n:012x}"));
    // Of a project, of ten models each.
    let project = |n: usize| json!(format!("aaaa-bbbb-cccc-{n:04}"));
    // The builds of model `n`, numbered.
    let builds = |n: usize| match n {
        0 => 0..BUILDS - (MODELS - 1) * BUILDS_EACH,
        n => BUILDS - (MODELS - n) * BUILDS_EACH..BUILDS - (MODELS - n - 1) * BUILDS_EACH,
    };
    let number = |n: usize| json!(1_000 + n);
    match table {
        "projects" => lines.extend((0..PROJECTS).map(|n| {
            seed.with(&[("id", project(n)), ("number", number(n)), ("name", json!(format!("project-{n}")))])
        })),
        "models" => lines.extend((0..MODELS).map(|n| {
            seed.with(&[
                ("id", uuid(1, n)),
                ("number", number(n)),
                ("project_id", project(n % PROJECTS)),
                ("name", json!(format!("model-{n}"))),
                ("access_key_digest", json!(format!("{n:064x}"))),
            ])
        })),
        "builds" => lines.extend((0..MODELS).flat_map(|model| builds(model).map(move |n| (model, n))).map(
            |(model, n)| {
                seed.with(&[
                    ("id", uuid(2, n)),
                    ("number", number(n)),
                    ("build_number", json!(n - builds(model).start + 1)),
                    ("model_id", uuid(1, model)),
                    ("comment", json!(format!("build {n}"))),
                ])
            },
        )),
        "deployments" => lines.extend(
            (0..MODELS).flat_map(|model| builds(model).map(move |n| (model, n))).map(|(model, n)| {
                seed.with(&[
                    ("id", uuid(3, n)),
                    ("number", number(n)),
                    ("sequence", number(n)),
                    ("build_id", uuid(2, n)),
                    ("model_id", uuid(1, model)),
                ])
            }),
        ),
        _ => {}
    }
}
