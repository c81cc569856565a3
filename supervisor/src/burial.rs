//! What is left of dead processes: their descendants are killed, their groups removed, and their names kept for a
//! while, so that how they ended can be said when it becomes known.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use millgate_contract::ids::ReplicaId;
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{
    cgroup::Group,
    limits::SWEEP_MS,
    procfs::{self, ShownPid},
    replica::Replica,
    template::Template,
};

/// Names kept after death.
const NAMES_MAX: usize = 256;

/// The dead.
#[derive(Debug, Default)]
pub(crate) struct Graveyard {
    /// Groups whose last members have not ended yet.
    groups: Vec<Group>,
    swept_at: Option<Instant>,
    names: VecDeque<(Pid, ReplicaId)>,
}

impl Graveyard {
    pub(crate) fn bury_replica(&mut self, replica: Replica) {
        if let Some(process) = &replica.process {
            self.names.push_front((process.pid(), replica.name.clone()));
            self.names.truncate(NAMES_MAX);
        }
        self.bury_group(replica.group);
    }

    /// Its replicas are in groups of their own and live on.
    pub(crate) fn bury_template(&mut self, template: Template) {
        self.bury_group(template.group);
    }

    fn bury_group(&mut self, group: Option<Group>) {
        let Some(group) = group.filter(|group| !group.remove()) else { return };
        group.kill();
        if !group.remove() {
            self.groups.push(group);
            self.swept_at.get_or_insert_with(Instant::now);
        }
    }

    /// Whose process this was.
    pub(crate) fn name_of(&self, pid: Pid) -> Option<ReplicaId> {
        self.names.iter().find(|(known, _)| *known == pid).map(|(_, name)| name.clone())
    }

    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        self.swept_at.map(|at| at + Duration::from_millis(SWEEP_MS))
    }

    /// Tries again to remove what was still in use.
    pub(crate) fn sweep(&mut self) {
        if self.next_sweep().is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.sweep_now();
        self.swept_at = (!self.groups.is_empty()).then(Instant::now);
    }

    fn sweep_now(&mut self) {
        self.groups.retain(|group| {
            if group.remove() {
                return false;
            }
            group.kill();
            true
        });
    }

    /// Waits until no child is left and no group is in use.
    pub(crate) async fn empty(&mut self) {
        loop {
            self.sweep_now();
            let has_child = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => true,
                Err(Errno::ECHILD) => false,
                _ => continue,
            };
            if !has_child && self.groups.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Kills a process and its descendants by what `/proc` shows.
pub(crate) fn kill_tree_of(root: ShownPid) {
    for status in procfs::tree(root).into_iter().filter_map(procfs::status) {
        let _ = kill(Pid::from_raw(status.own), Signal::SIGKILL);
    }
}
