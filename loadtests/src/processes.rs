//! What processes cost, from `/proc`.

use std::{fs, path::Path};

use nix::{sys::signal::Signal, unistd::Pid};

/// Proportional memory of a process, in bytes: shared pages divided among those who share them.
pub(crate) fn pss_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    kilobytes_of(&text, "Pss:") * 1_024
}

/// Resident memory of a process, in bytes.
pub(crate) fn rss_bytes(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes_of(&text, "VmRSS:") * 1_024
}

/// Open descriptors of a process.
pub(crate) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Processes whose command line names `path`.
pub(crate) fn naming(path: &Path) -> Vec<i32> {
    let wanted = path.to_string_lossy().into_owned();
    all().filter(|pid| command_line(*pid).contains(&wanted)).collect()
}

/// A process and all its descendants.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = all().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let current = tree[next];
        tree.extend(parents.iter().filter(|(_, parent)| *parent == current).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// Sends a signal to one process, which this program or its server started.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).is_ok()
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kilobytes_of(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}
