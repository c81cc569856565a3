//! What is deleted gives its space back: looked at on the disk, and with the server killed in between.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use millgate_contract::{ids::BuildId, supervision::Phase};
use serde_json::json;

use super::driver::settle;
use crate::{
    builder::{self, source},
    launch::{Launcher, UnitName},
    reconcile::Reconciler,
    rows::BuildStatus,
    testing::Rig,
};

/// Everything there is of models and projects: each file and folder.
fn held(rig: &Rig) -> BTreeSet<PathBuf> {
    fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(path).into_iter().flatten() {
            let path = entry.unwrap().path();
            found.insert(path.clone());
            if path.is_dir() && !path.is_symlink() {
                walk(&path, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    for part in ["builds", "run", "projects", "sources", "cache/packages", "uploads"] {
        walk(&rig.app.dir.root().join(part), &mut found);
    }
    found
}

async fn project_with_files(rig: &Rig, name: &str, files: &[(&str, &str)]) -> String {
    let project = rig.project(name).await;
    let root = rig.app.dir.project(last(&project));
    fs::create_dir_all(&root).unwrap();
    for (path, text) in files {
        fs::write(root.join(path), text).unwrap();
    }
    let cache = rig.app.dir.package_cache(last(&project));
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("wheel"), "x").unwrap();
    project
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

/// Builds and deploys a model, whose supervisor leaves a run directory; answers its path and its build's.
async fn deployed(rig: &Rig, project: &str, name: &str) -> (String, String) {
    let model = rig.model(project, name).await;
    let build = rig.build(&model, 1).await;
    assert!(rig.make_next_build().await);
    settle(&mut Reconciler::new(rig.app.clone())).await;
    let deployment = rig.deployment(&build).await;
    assert_eq!(deployment["status"], "deployed");
    let number = deployment["deployment_number"].as_i64().unwrap();
    let run = rig.launcher.run_dir(&UnitName::deployment(number));
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("replicas.log"), "printed").unwrap();
    (model, build)
}

async fn free(rig: &Rig) {
    settle(&mut Reconciler::new(rig.app.clone())).await;
    source::sweep(&rig.app).await.unwrap();
}

const FILES: [(&str, &str); 2] = [("add.py", "def add(args): return 1"), ("weights", "1234")];

#[tokio::test]
async fn a_deleted_model_leaves_nothing_and_takes_nothing_of_others_along() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = project_with_files(&rig, "p", &FILES).await;
    deployed(&rig, &project, "stays").await;
    let before = held(&rig);
    // Of the same files, and of some of its own.
    fs::write(rig.app.dir.project(last(&project)).join("weights"), "5678").unwrap();
    let (model, build) = deployed(&rig, &project, "goes").await;
    fs::write(rig.app.dir.project(last(&project)).join("weights"), "1234").unwrap();
    assert!(held(&rig).len() > before.len());
    rig.call("DELETE", &model, json!({})).await.ok();
    free(&rig).await;
    assert_eq!(rig.launcher.stopped().last(), Some(&UnitName::deployment(2)), "it is stopped first");
    assert_eq!(held(&rig), before);
    assert!(!rig.app.dir.build(last(&build)).exists());
}

#[tokio::test]
async fn a_deleted_project_leaves_nothing() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let before = held(&rig);
    let project = project_with_files(&rig, "p", &FILES).await;
    deployed(&rig, &project, "one").await;
    deployed(&rig, &project, "two").await;
    rig.call("DELETE", &project, json!({})).await.ok();
    free(&rig).await;
    assert_eq!(held(&rig), before);
    assert!(rig.app.store.all_models().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_deletion_that_was_cut_off_is_finished_by_the_next_server() {
    for cut in 0..3 {
        let mut rig = Rig::new().await;
        rig.launcher.units_become(Some(Phase::Serving), "");
        let before = held(&rig);
        let project = project_with_files(&rig, "p", &FILES).await;
        let (_, build) = deployed(&rig, &project, "m").await;
        rig.call("DELETE", &project, json!({})).await.ok();
        let folder = rig.app.dir.build(last(&build));
        // As far as a server came that was killed: nowhere, the logs and half a build, all but the rows.
        if cut > 0 {
            fs::remove_dir_all(rig.app.dir.run()).unwrap();
            fs::create_dir(rig.app.dir.run()).unwrap();
            fs::remove_dir_all(folder.join("root")).unwrap();
        }
        if cut > 1 {
            fs::remove_dir_all(folder).unwrap();
            fs::remove_dir_all(rig.app.dir.project(last(&project))).unwrap();
        }
        rig.restart_with(|_| {}).await;
        free(&rig).await;
        assert_eq!(held(&rig), before, "cut {cut}");
    }
}

#[tokio::test]
async fn a_build_that_was_deleted_while_a_server_made_it_that_was_killed_goes_with_its_trial() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = project_with_files(&rig, "p", &FILES).await;
    let (_, done) = deployed(&rig, &project, "m").await;
    let before = held(&rig);
    let model = rig.model(&project, "other").await;
    let body = json!({"file_path": "add.py", "function_name": "add"});
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let id = BuildId::new(build["id"].as_str().unwrap());
    assert!(rig.app.store.move_build(&id, BuildStatus::Pending, BuildStatus::Building, "").await.unwrap());
    fs::create_dir_all(rig.app.dir.build(id.as_str()).join("root")).unwrap();
    let trial = UnitName::build(2);
    let spec = rig.launcher.launched()[0].clone();
    rig.launcher.launch(trial.clone(), spec).await.unwrap();
    fs::create_dir_all(rig.launcher.run_dir(&trial)).unwrap();
    rig.call("DELETE", &format!("{model}/builds/{id}"), json!({})).await.ok();
    free(&rig).await;
    assert!(rig.launcher.stopped().contains(&trial));
    assert_eq!(held(&rig), before);
    assert!(rig.app.dir.build(last(&done)).exists());
    assert!(!builder::next(&rig.app).await.unwrap(), "nobody makes it");
}
