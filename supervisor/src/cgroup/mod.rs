//! Control groups, version 1 and 2: what one replica may use, and the one sure way to kill all that descends from it.
//!
//! `millgate/<deployment>/<process>` is made below the supervisor's own group, on each hierarchy that can be written.
//! What cannot be had is named, never passed over. A group belongs to one process and its descendants, never to a
//! slot: two processes of one slot overlap for a moment, and only one of them may be killed.

mod hierarchy;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use millgate_contract::spec::Resources;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::hierarchy::Hierarchies;

/// Rounds of killing every member where the kernel cannot kill a group at once.
const KILL_ROUNDS_MAX: u32 = 64;
/// Attempts at a folder whose parent others remove.
const MAKE_AGAIN_MAX: u32 = 8;
/// Looks at a group that is being frozen before it is killed as it is.
const FREEZE_LOOKS_MAX: u32 = 1_000;

/// The groups of one deployment.
#[derive(Debug)]
pub(crate) struct Groups {
    version: u8,
    /// `…/millgate/<deployment>` on each hierarchy, with the limits that a process's group gets there.
    parents: Vec<Parent>,
}

#[derive(Debug)]
struct Parent {
    dir: PathBuf,
    is_freezer: bool,
    settings: Vec<Setting>,
}

/// A file of a group, and what is written to it.
#[derive(Debug)]
struct Setting {
    file: &'static str,
    value: String,
    /// Kernels without swap, and old ones, do not have the file; the limits hold without it.
    may_be_absent: bool,
}

impl Setting {
    fn new(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), may_be_absent: false }
    }

    fn where_there(file: &'static str, value: impl ToString) -> Self {
        Self { may_be_absent: true, ..Self::new(file, value) }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let path = dir.join(self.file);
        if self.may_be_absent && !path.exists() {
            return Ok(());
        }
        fs::write(path, &self.value)
    }
}

/// The group of one process and its descendants.
#[derive(Debug)]
pub(crate) struct Group {
    version: u8,
    dirs: Vec<PathBuf>,
    freezer: Option<PathBuf>,
}

/// Makes a group below which groups can be made, where that takes moving the processes in it. To be called before this
/// process makes namespaces. Returns why it could not be done.
pub(crate) fn make_room() -> Option<String> {
    let made = Hierarchies::of_this_process().and_then(|hierarchies| hierarchies.make_room_v2());
    made.err().map(|error| format!("cgroup: {error}"))
}

impl Groups {
    /// Makes what can be made; names what cannot. The name is the owner's and the process's that makes them.
    pub(crate) fn create(owner: &str, pid: u32, resources: &Resources) -> (Option<Self>, Vec<String>) {
        match Hierarchies::of_this_process() {
            Ok(hierarchies) => Self::create_in(&hierarchies, &format!("{owner}-{pid}"), resources),
            Err(error) => (None, vec![format!("cgroup: {error}")]),
        }
    }

    fn create_in(
        hierarchies: &Hierarchies,
        deployment: &str,
        resources: &Resources,
    ) -> (Option<Self>, Vec<String>) {
        let mut missing = Vec::new();
        let mut parents = Vec::new();
        let version = if hierarchies.v1.contains_key("memory") { 1 } else { 2 };
        if version == 1 {
            for (controller, settings) in settings_v1(resources) {
                let made =
                    hierarchies.v1.get(controller).ok_or(io::ErrorKind::NotFound.into()).and_then(|own| {
                        let dir = own.join("millgate").join(deployment);
                        make_folder(&dir).map(|()| dir)
                    });
                match made {
                    Ok(dir) => parents.push(Parent { dir, is_freezer: controller == "freezer", settings }),
                    Err(error) => missing.push(format!("cgroup {controller}: {error}")),
                }
            }
        } else {
            match hierarchies.delegate_v2() {
                Ok(base) => {
                    let dir = base.join("millgate").join(deployment);
                    match make_folder(&dir).and_then(|()| hierarchy::enable_v2(&dir, &base)) {
                        Ok(()) => {
                            let settings = settings_v2(resources);
                            parents.push(Parent { dir, is_freezer: false, settings });
                        }
                        Err(error) => missing.push(format!("cgroup in `{}`: {error}", dir.display())),
                    }
                }
                Err(error) => missing.push(format!("cgroup: {error}")),
            }
        }
        let is_any = parents.iter().any(|parent| !parent.is_freezer);
        (is_any.then_some(Self { version, parents }), missing)
    }

    /// Removes what earlier processes of the same owner, killed, have left. Only for an owner with one at a time.
    pub(crate) fn remove_left(&self, owner: &str) {
        let begin = format!("{owner}-");
        for parent in &self.parents {
            for dir in folders(parent.dir.parent().unwrap_or(&parent.dir)) {
                let is_left = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin));
                if is_left && dir != parent.dir {
                    folders(&dir).into_iter().for_each(remove_quietly);
                    remove_quietly(dir);
                }
            }
        }
    }

    /// 1 or 2.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// A group for one process, with its limits set.
    pub(crate) fn group(&self, name: &str) -> io::Result<Group> {
        let mut group = Group { version: self.version, dirs: Vec::new(), freezer: None };
        for parent in &self.parents {
            let dir = parent.dir.join(name);
            let made = fs::create_dir(&dir).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            });
            group.dirs.push(dir.clone());
            let set = made.and_then(|()| parent.settings.iter().try_for_each(|setting| setting.write(&dir)));
            if let Err(error) = set {
                group.remove();
                return Err(error);
            }
            if parent.is_freezer {
                group.freezer = Some(dir);
            }
        }
        Ok(group)
    }

    /// Removes the deployment's folders; the groups in them must be gone.
    pub(crate) fn remove(&self) {
        for parent in &self.parents {
            folders(&parent.dir).into_iter().for_each(remove_quietly);
            if let Err(error) = fs::remove_dir(&parent.dir) {
                tracing::warn!(dir = %parent.dir.display(), %error, "a cgroup stays behind");
            }
            if let Some(shared) = parent.dir.parent() {
                // Another deployment's groups may still be in it.
                remove_quietly(shared.to_owned());
            }
        }
    }
}

impl Group {
    /// Moves a process into the group.
    pub(crate) fn add(&self, pid: Pid) -> io::Result<()> {
        self.dirs.iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), pid.to_string()))
    }

    /// Has the kernel make itself ready for processes that change their groups, by a change that is none: `pid` is in this
    /// group. The first change waits until every processor has been at rest once, those that follow closely do not: 5 to
    /// 20 ms and 0.02 ms here, by `strace -T`.
    pub(crate) fn rouse(&self, pid: Pid) {
        // One lock for all hierarchies. What fails here is said where it counts.
        let file = self.dirs.first().map(|dir| dir.join("cgroup.procs"));
        let _ = file.map(|file| fs::write(file, pid.to_string()));
    }

    /// True when a process is in the group, on every hierarchy.
    pub(crate) fn holds(&self, pid: Pid) -> bool {
        !self.dirs.is_empty() && self.dirs.iter().all(|dir| members(dir).contains(&pid))
    }

    /// Bytes of memory charged to the group that no file could give back.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let name = if self.version == 1 { "rss " } else { "anon " };
        let text = self.dirs.iter().find_map(|dir| fs::read_to_string(dir.join("memory.stat")).ok())?;
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
    }

    /// Kills every process in the group.
    pub(crate) fn kill(&self) {
        if self.version == 2 {
            if let Some(dir) = self.dirs.first()
                && fs::write(dir.join("cgroup.kill"), "1").is_ok()
            {
                return;
            }
            self.kill_members();
            return;
        }
        // Frozen, no member can fork while the others are killed; the signals act when it thaws.
        if let Some(freezer) = &self.freezer {
            freeze(freezer);
        }
        self.kill_members();
        if let Some(freezer) = &self.freezer {
            let _ = fs::write(freezer.join("freezer.state"), "THAWED");
        }
    }

    fn kill_members(&self) {
        let Some(dir) = self.freezer.as_ref().or(self.dirs.first()) else { return };
        let rounds = if self.freezer.is_some() { 1 } else { KILL_ROUNDS_MAX };
        for _ in 0..rounds {
            let members = members(dir);
            if members.is_empty() {
                return;
            }
            for pid in members {
                match kill(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => tracing::warn!(%pid, %error, "a process cannot be killed"),
                }
            }
        }
    }

    /// Removes the group's folders; false when processes in it have not ended yet.
    pub(crate) fn remove(&self) -> bool {
        self.dirs.iter().fold(true, |gone, dir| match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => false,
            _ => gone,
        })
    }
}

/// With those above it. One of them may just be removed by the last of another deployment: then it is made again.
fn make_folder(dir: &Path) -> io::Result<()> {
    let mut result = fs::create_dir_all(dir);
    for _ in 0..MAKE_AGAIN_MAX {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => result = fs::create_dir_all(dir),
            other => return other,
        }
    }
    result
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// One that is in use stays.
fn remove_quietly(dir: PathBuf) {
    if let Err(error) = fs::remove_dir(&dir) {
        tracing::debug!(dir = %dir.display(), %error, "a cgroup stays");
    }
}

fn freeze(dir: &Path) {
    let state = dir.join("freezer.state");
    for _ in 0..FREEZE_LOOKS_MAX {
        // Written again on each look: a member that forks while the group freezes may restart it.
        if fs::write(&state, "FROZEN").is_err()
            || fs::read_to_string(&state).is_ok_and(|now| now.trim() == "FROZEN")
        {
            return;
        }
    }
}

/// The members as our PID namespace names them; those it cannot name are not ours.
fn members(dir: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .collect()
}

/// Without swap, or a function that takes too much memory would slow the host down in place of ending.
fn settings_v1(resources: &Resources) -> [(&'static str, Vec<Setting>); 4] {
    let shares = (u64::from(resources.cpu_millicores) * 1_024 / 1_000).max(2);
    let memory = vec![
        Setting::new("memory.limit_in_bytes", resources.memory_bytes),
        Setting::where_there("memory.memsw.limit_in_bytes", resources.memory_bytes),
    ];
    [
        ("memory", memory),
        ("pids", vec![Setting::new("pids.max", resources.processes_max)]),
        ("cpu", vec![Setting::new("cpu.shares", shares)]),
        ("freezer", vec![]),
    ]
}

/// As in version 1; and where one process of a group is out of memory all are killed: a replica whose worker process is
/// gone would else wait for it until its caller's time is up.
fn settings_v2(resources: &Resources) -> Vec<Setting> {
    let weight = (u64::from(resources.cpu_millicores) / 10).clamp(1, 10_000);
    vec![
        Setting::new("memory.max", resources.memory_bytes),
        Setting::where_there("memory.swap.max", 0),
        Setting::where_there("memory.oom.group", 1),
        Setting::new("pids.max", resources.processes_max),
        Setting::new("cpu.weight", weight),
    ]
}
