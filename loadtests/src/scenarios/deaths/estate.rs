//! Everything that a server has of its models: objects, processes, folders, control groups, and whether they fit together.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    processes,
    server::{Model, Server},
};

/// Where control groups are mounted, and how deep below it ours may be.
const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUP_DEPTH_MAX: usize = 5;

/// How to look.
pub(super) struct Estate {
    name: &'static str,
    model: Model,
    data_dir: PathBuf,
}

/// What the control API says there is.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) models: Vec<FoundModel>,
    pub(super) newest_build: u64,
    pub(super) newest_deployment: u64,
    pub(super) doubled: Vec<String>,
    /// Builds and deployments by id; the latter with number and status.
    builds: BTreeMap<String, String>,
    deployments: BTreeMap<String, (u64, String)>,
}

/// A model.
#[derive(Debug)]
pub(super) struct FoundModel {
    /// How many good builds it has.
    pub(super) built: usize,
}

impl Estate {
    pub(super) fn new(name: &'static str, server: &Server, model: Model) -> Self {
        Self { name, model, data_dir: server.data_dir() }
    }

    /// Reads it; nothing when the control API does not answer.
    pub(super) fn of(&self, server: &Server) -> Option<Found> {
        let list = |path: &str, field: &str| -> Option<Vec<Value>> {
            let path = format!("{path}?page_size=10000");
            Some(server.ask("GET", &path, &self.model.api_key)?[field].as_array()?.clone())
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found = Found::default();
        for model in list("/api/v2/models", "models")? {
            let project = text(&model["project"]["public_identifier"]);
            let path = format!("/api/v2/projects/{project}/models/{}", text(&model["id"]));
            let builds = list(&format!("{path}/builds"), "model_builds")?;
            let deployments = list(&format!("{path}/deployments"), "model_deployments")?;
            found.note_doubled(&builds, &deployments);
            found.models.push(FoundModel { built: builds.iter().filter(|b| b["status"] == "built").count() });
            for build in &builds {
                found.newest_build = found.newest_build.max(build["build_number"].as_u64()?);
                found.builds.insert(text(&build["id"]), text(&build["status"]));
            }
            for deployment in &deployments {
                let number = deployment["deployment_number"].as_u64()?;
                found.newest_deployment = found.newest_deployment.max(number);
                found.deployments.insert(text(&deployment["id"]), (number, text(&deployment["status"])));
            }
        }
        Some(found)
    }

    /// What is not as it must be when nothing moves any more.
    pub(super) fn faults(&self, server: &Server) -> Vec<String> {
        let Some(found) = self.of(server) else { return vec!["no answer".to_owned()] };
        let mut faults = found.unfinished();
        let serving: BTreeSet<u64> =
            found.deployments.values().filter(|(_, status)| status == "deployed").map(|(n, _)| *n).collect();
        faults.extend(self.wrong_processes(server, &serving));
        faults.extend(self.wrong_folders(&found));
        faults.extend(wrong_groups(&found));
        if faults.is_empty() && !serving.is_empty() && !self.is_called(server) {
            faults.push("a call is not answered".to_owned());
        }
        faults
    }

    /// One supervisor for each deployment that serves, and nothing that belongs to nobody.
    fn wrong_processes(&self, server: &Server, serving: &BTreeSet<u64>) -> Vec<String> {
        let run = self.data_dir.join("run").to_string_lossy().into_owned();
        let supervisors = server.supervisors();
        let mut units: Vec<String> = supervisors
            .iter()
            .filter_map(|pid| {
                let line = processes::command_line(*pid);
                let dir = line.split(' ').find(|word| word.starts_with(&run))?;
                Some(Path::new(dir).file_name()?.to_str()?.to_owned())
            })
            .collect();
        units.sort_unstable();
        let mut wanted: Vec<String> = serving.iter().map(u64::to_string).collect();
        wanted.sort_unstable();
        let mut faults = Vec::new();
        if units != wanted {
            faults.push(format!("supervisors {units:?} for deployments {wanted:?}"));
        }
        let known: HashSet<i32> =
            supervisors.iter().chain(&[server.pid()]).flat_map(|pid| processes::tree(*pid)).collect();
        let orphans: Vec<i32> = processes::naming(&self.data_dir)
            .into_iter()
            .filter(|pid| !known.contains(pid) && processes::is_alive(*pid))
            .collect();
        if !orphans.is_empty() {
            faults.push(format!("processes {orphans:?} are nobody's"));
        }
        faults
    }

    /// A run directory for what was a deployment once, a folder for what is a build.
    fn wrong_folders(&self, found: &Found) -> Vec<String> {
        let numbers: HashSet<String> = found.deployments.values().map(|(n, _)| n.to_string()).collect();
        let runs = names_in(&self.data_dir.join("run")).into_iter().filter(|name| !numbers.contains(name));
        let builds = names_in(&self.data_dir.join("builds"))
            .into_iter()
            .filter(|name| !found.builds.contains_key(name));
        let left = runs.map(|name| format!("run/{name}")).chain(builds.map(|name| format!("builds/{name}")));
        left.map(|folder| format!("{folder} is nobody's")).collect()
    }

    /// True when a call is answered by its own run.
    fn is_called(&self, server: &Server) -> bool {
        let answer = server.try_millgate(&["call", self.name, r#"{"n": 7}"#]);
        answer.is_some_and(|text| text.contains('7'))
    }
}

impl Found {
    fn unfinished(&self) -> Vec<String> {
        let builds =
            self.builds.values().filter(|status| !["built", "build failed"].contains(&status.as_str()));
        let builds = builds.map(|status| format!("a build is {status}"));
        let is_over = |status: &str| ["deployed", "stopped", "failed"].contains(&status);
        let deployments = self.deployments.values().filter(|(_, status)| !is_over(status));
        builds.chain(deployments.map(|(n, status)| format!("deployment {n} is {status}"))).collect()
    }

    fn note_doubled(&mut self, builds: &[Value], deployments: &[Value]) {
        let mut numbers = HashSet::new();
        let mut doubled = Vec::new();
        for build in builds {
            if !numbers.insert(build["build_number"].to_string()) {
                doubled.push(format!("two builds have number {}", build["build_number"]));
            }
        }
        numbers.clear();
        for deployment in deployments {
            if !numbers.insert(deployment["deployment_number"].to_string()) {
                doubled.push(format!("two deployments have number {}", deployment["deployment_number"]));
            }
        }
        let serving = deployments.iter().filter(|d| d["status"] == "deployed").count();
        if serving > 1 {
            doubled.push(format!("{serving} deployments of one model serve"));
        }
        self.doubled.extend(doubled);
    }
}

/// Control groups of builds and deployments that have no process any more.
fn wrong_groups(found: &Found) -> Vec<String> {
    let mut parents = Vec::new();
    find_groups(Path::new(CGROUPS), CGROUP_DEPTH_MAX, &mut parents);
    let mut faults = Vec::new();
    for parent in parents {
        for name in names_in(&parent) {
            // `<owner>-<process>`.
            let Some((owner, _)) = name.rsplit_once('-') else { continue };
            let serves = found.deployments.get(owner).map(|(_, status)| status == "deployed");
            let is_over = serves.map_or_else(|| found.builds.contains_key(owner), |serves| !serves);
            if is_over {
                faults.push(format!("{} is nobody's", parent.join(&name).display()));
            }
        }
    }
    faults
}

fn find_groups(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == "millgate" {
            found.push(entry.path());
        } else if depth > 0 {
            find_groups(&entry.path(), depth - 1, found);
        }
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
