//! Where this process is in the hierarchies of control groups, from `/proc/self/cgroup` and `/proc/self/mountinfo`.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The controllers that a deployment needs.
const CONTROLLERS_V2: [&str; 3] = ["memory", "pids", "cpu"];

/// The group below a delegated one into which the processes move that lived in it.
const LEAF: &str = "server";
/// Rounds of moving processes: those moved may have forked meanwhile.
const MOVE_ROUNDS_MAX: u32 = 16;

/// This process's own group on each hierarchy.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// Version 1, by controller.
    pub(super) v1: BTreeMap<String, PathBuf>,
    /// Version 2.
    pub(super) v2: Option<PathBuf>,
    /// Where version 2 is mounted.
    v2_root: Option<PathBuf>,
}

impl Hierarchies {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::parse(&groups, &mounts))
    }

    fn parse(groups: &str, mounts: &str) -> Self {
        let mut found = Self::default();
        for mount in mounts.lines().filter_map(CgroupMount::parse) {
            for group in groups.lines() {
                let mut fields = group.splitn(3, ':');
                let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
                else {
                    continue;
                };
                // A container may see only its own part of a hierarchy, mounted as if it were the whole.
                let Ok(below) = Path::new(path).strip_prefix(mount.root) else { continue };
                let own = Path::new(mount.point).join(below);
                if mount.is_v2 && controllers.is_empty() {
                    found.v2 = Some(own);
                    found.v2_root = Some(mount.point.into());
                } else if !mount.is_v2 {
                    for controller in controllers.split(',').filter(|name| mount.options.contains(name)) {
                        found.v1.insert(controller.to_owned(), own.clone());
                    }
                }
            }
        }
        found
    }

    /// The version 2 group below which groups with limits can be made: our own, or the one above it when that was
    /// delegated to us and we live in a leaf of it (a group with limits below it may hold no process itself).
    pub(super) fn delegate_v2(&self) -> io::Result<PathBuf> {
        let own = self.v2.as_ref().ok_or_else(|| io::Error::other("no hierarchy is mounted"))?;
        let available = fs::read_to_string(own.join("cgroup.controllers"))?;
        if let Some(absent) =
            CONTROLLERS_V2.iter().find(|name| !available.split_whitespace().any(|a| a == **name))
        {
            return Err(io::Error::other(format!("no controller `{absent}` in `{}`", own.display())));
        }
        match enable(own) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let above = own.parent().filter(|above| self.is_ours(above)).ok_or_else(|| {
                    io::Error::other(format!(
                        "`{}` holds processes, and neither it nor the group above it is delegated; hint: `Delegate=yes`",
                        own.display()
                    ))
                })?;
                enable(above)?;
                Ok(above.to_owned())
            }
            result => result.map(|()| own.clone()),
        }
    }
}

impl Hierarchies {
    /// A group with limits below it may hold no process itself. Where the whole group that we live in was delegated,
    /// every process in it, the server included, moves into a leaf of it. Must be done where its processes can be seen:
    /// from outside of a PID namespace of our own.
    pub(super) fn make_room_v2(&self) -> io::Result<()> {
        let Some(own) = self.v2.as_ref().filter(|_| !self.v1.contains_key("memory")) else { return Ok(()) };
        match enable(own) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            // Nobody is in the way; or what is will be found, and named, when groups are made.
            _ => return Ok(()),
        }
        // What was delegated is used before what is above it: that may be the host's root.
        let has_room_above = own.parent().is_some_and(|above| self.is_ours(above));
        if !is_delegated(own) && (has_room_above || !self.is_ours(own)) {
            return Ok(());
        }
        move_to_leaf(own)?;
        enable(own)
    }

    /// A group that was delegated, or the uppermost one that a container sees.
    fn is_ours(&self, dir: &Path) -> bool {
        self.v2_root.as_deref() == Some(dir) || is_delegated(dir)
    }
}

fn move_to_leaf(own: &Path) -> io::Result<()> {
    let leaf = own.join(LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for _ in 0..MOVE_ROUNDS_MAX {
        let members = fs::read_to_string(own.join("cgroup.procs"))?;
        if members.is_empty() {
            break;
        }
        for pid in members.lines() {
            match fs::write(leaf.join("cgroup.procs"), pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Gives the groups of `dir` their controllers, from `base` down.
pub(super) fn enable_v2(dir: &Path, base: &Path) -> io::Result<()> {
    let mut chain: Vec<&Path> = dir.ancestors().take_while(|above| *above != base).collect();
    chain.reverse();
    chain.into_iter().try_for_each(enable)
}

fn enable(dir: &Path) -> io::Result<()> {
    let all = CONTROLLERS_V2.map(|name| format!("+{name}")).join(" ");
    fs::write(dir.join("cgroup.subtree_control"), all)
}

/// systemd marks what it delegated.
fn is_delegated(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    [c"user.delegate", c"trusted.delegate"].into_iter().any(|name| {
        let mut value = [0_u8; 4];
        // SAFETY: path and name end with NUL, and the buffer has the length that is passed.
        let count =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        count == 1 && value[0] == b'1'
    })
}

struct CgroupMount<'a> {
    root: &'a str,
    point: &'a str,
    is_v2: bool,
    options: Vec<&'a str>,
}

impl<'a> CgroupMount<'a> {
    /// `36 35 98:0 /root /point rw,… shared:1 - type source options`
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let kind = fields.next()?;
        let is_v2 = kind == "cgroup2";
        let options = fields.nth(1)?.split(',').collect();
        (is_v2 || kind == "cgroup").then_some(Self { root, point, is_v2, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_found_by_controller() {
        let groups = "8:pids:/\n4:memory:/jobs/a\n1:cpu,cpuacct:/\n9:name=systemd:/\n0::/\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      34 25 0:30 / /tmp rw - tmpfs tmpfs rw\n";
        let found = Hierarchies::parse(groups, mounts);
        let v1: Vec<(&str, &str)> =
            found.v1.iter().map(|(name, path)| (name.as_str(), path.to_str().unwrap())).collect();
        assert_eq!(
            v1,
            [
                ("cpu", "/sys/fs/cgroup/cpu,cpuacct/"),
                ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/"),
                ("memory", "/sys/fs/cgroup/memory/jobs/a"),
                ("pids", "/sys/fs/cgroup/pids/"),
            ]
        );
        assert_eq!(found.v2.unwrap().to_str().unwrap(), "/sys/fs/cgroup/unified/");
    }

    #[test]
    fn a_delegated_group_is_told_by_where_it_is() {
        let found = Hierarchies::parse("0::/app\n", "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        assert!(found.is_ours(Path::new("/sys/fs/cgroup")));
        assert!(!found.is_ours(Path::new("/sys/fs/cgroup/app")));
    }

    #[test]
    fn processes_are_moved_into_a_leaf() {
        // A folder stands for a group: nothing moves by itself there, so the members stay listed.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.procs"), "7\n8\n").unwrap();
        move_to_leaf(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(LEAF).join("cgroup.procs")).unwrap(), "8");
    }

    #[test]
    fn a_container_that_sees_a_part_of_the_hierarchy_is_at_its_root() {
        let mounts = "30 25 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = Hierarchies::parse("0::/docker/x/app\n", mounts);
        assert_eq!(found.v2, Some("/sys/fs/cgroup/app".into()));
        assert_eq!(Hierarchies::parse("0::/elsewhere\n", mounts).v2, None);
    }
}
