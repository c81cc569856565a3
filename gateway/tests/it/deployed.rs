//! What `deploy/` asks of the page of figures: rules and board name no series that is not there, and every alert is tested
//! both ways.

use std::{collections::BTreeSet, fs, path::Path};

use millgate_contract::{
    ids::ReplicaId,
    supervision::{FromSupervisor, ReplicaUsage},
};
use millgate_gateway::{GatewayConfig, Spool, SpoolConfig};
use serde_json::Value;

use crate::house::House;

const RULES: &str = "prometheus/millgate.rules.yml";
const RULES_TEST: &str = "prometheus/millgate.rules.test.yml";
const BOARD: &str = "grafana/millgate.json";

fn deployed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What looks like a series of ours or of the process.
fn series(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("millgate_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn every_series_that_rules_and_board_name_is_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let spool = SpoolConfig::new(folder.path()).with_bytes_max(SpoolConfig::BYTES_MIN);
    let config = GatewayConfig {
        spool: Some(Spool::open(spool).unwrap()),
        damaged_builds: Some(std::sync::Arc::default()),
        ..GatewayConfig::default()
    };
    let (house, double) = House::with_config(config, 1, vec![]).await;
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(house.ask(&crate::http::post("/model", &[], "{}")).await.status, 400);
    double.say_ready(0, "r");
    let usage = ReplicaUsage {
        replica: ReplicaId::new("r"),
        calls: 1,
        busy_us: 1,
        interpreter_wait_us: 1,
        idle_us: 1,
    };
    double.say(FromSupervisor::Usage { replicas: vec![usage] });
    let page = loop {
        let page = house.metrics().await;
        if page.contains("millgate_replica_seconds_total{") {
            break page;
        }
        tokio::task::yield_now().await;
    };
    let told: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for (file, series_min) in [(RULES, 20), (RULES_TEST, 20), (BOARD, 30)] {
        let text = deployed(file);
        let named = series(&text);
        assert!(named.len() >= series_min, "{file} names only {named:?}");
        let missing: Vec<_> = named.difference(&told).collect();
        assert!(missing.is_empty(), "{file} names {missing:?}, which no gateway tells");
    }
}

#[test]
fn every_alert_is_tested_with_a_time_at_which_it_fires_and_one_at_which_it_does_not() {
    let (rules, test) = (deployed(RULES), deployed(RULES_TEST));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 20, "{alerts:?}");
    for alert in alerts {
        let silent = format!("alertname: {alert}, exp_alerts: []");
        let firing = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(test.contains(&silent), "nothing says when {alert} is silent");
        assert!(test.contains(&firing), "nothing says when {alert} fires");
    }
}

#[test]
fn every_panel_of_the_board_has_its_own_id_and_something_to_show() {
    let board: Value = serde_json::from_str(&deployed(BOARD)).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        let exprs = targets.iter().map(|target| target["expr"].as_str().unwrap());
        assert!(!targets.is_empty() && exprs.into_iter().all(|expr| !series(expr).is_empty()), "{panel}");
    }
}
