//! What processes cost and what they are doing, from `/proc`.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Pid, SysconfVar, sysconf},
};

const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

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

/// Processor time of a process and of its threads, since it began.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    let fields = stat_fields(pid).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).unsigned_abs();
    Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / ticks_per_s)
}

/// Processor time of this program, which makes the load and shares the machine with what it measures.
pub(crate) struct OwnCpu {
    begun: Instant,
    time: Duration,
}

impl OwnCpu {
    /// From now on.
    pub(crate) fn measure() -> Self {
        Self { begun: Instant::now(), time: cpu_time(Pid::this().as_raw()) }
    }

    /// The share of one core since then, for a person.
    pub(crate) fn text(&self) -> String {
        let time = cpu_time(Pid::this().as_raw()).saturating_sub(self.time);
        format!("{:.0} %", time.as_secs_f64() / self.begun.elapsed().as_secs_f64() * 100.0)
    }
}

/// Looks again and again, on a thread with nothing else to do; whether it came to hold in this time.
pub(crate) fn wait_until(most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > most {
            return false;
        }
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
    true
}

/// True while there is such a process, ended ones that nobody has waited for excepted.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// True when a signal has stopped the process's main thread.
pub(crate) fn is_stopped(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// The number of the system call that a stopped process's main thread is in; none when it is in none.
pub(crate) fn system_call(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    text.split_whitespace().next()?.parse().ok()
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

/// The words of a process's command line.
pub(crate) fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// Sends a signal to one process, which this program or its server started.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).is_ok()
}

/// Lets this program, and what it starts from now on, have so many descriptors; how many it may have.
pub(crate) fn raise_descriptors(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    // Root may raise the second limit too.
    for most in [wanted.max(hard), hard] {
        if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, most, most).is_ok() {
            return most;
        }
    }
    soft
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(pid: i32) -> Option<i32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// The fields of a process's status, from its state on.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn kilobytes_of(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_in_its_own_tree() {
        let own = Pid::this().as_raw();
        assert!(is_alive(own) && !is_stopped(own));
        assert!(tree(own).contains(&own));
        assert!(rss_bytes(own) > 0 && descriptors(own) > 0);
        assert!(!is_alive(i32::MAX));
    }
}
