//! A function that counts how often each call was run, in an array that is read from outside: what callers are told
//! is checked against what was done.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
};

use crate::{
    figures::Figures,
    load::{NUMBER_BASE, Outcome, numbers_given},
};

/// Numbers that one scenario may use.
const NUMBERS_MAX: u64 = 64 << 20;
/// In the function's private `/tmp`, which all forks of one template share.
const FILE: &str = "tmp/runs";

/// The function's file. It sleeps for so many seconds where that is more than 0.
pub(super) fn python(sleep_s: f64) -> String {
    format!(
        "\
import mmap, os, time
runs = None
def setup():
    global runs
    fd = os.open('/{FILE}', os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, {NUMBERS_MAX})
    runs = mmap.mmap(fd, {NUMBERS_MAX})
    os.close(fd)
def predict(args):
    n = args['n']
    runs[n - {NUMBER_BASE}] += 1
    if {sleep_s}:
        time.sleep({sleep_s})
    return n
"
    )
}

/// The counts of one deployment.
pub(super) struct Runs(File);

impl Runs {
    /// Through one of its replicas. They outlive it.
    pub(super) fn open(replica: i32) -> io::Result<Self> {
        File::open(format!("/proc/{replica}/root/{FILE}")).map(Self)
    }

    /// Judges what callers were told by what was run.
    pub(super) fn judge(self, figures: &mut Figures, outcome: &Outcome) {
        Self::judge_all(vec![self], figures, outcome);
    }

    /// The same, of calls that ran in any of these deployments, whose counts may have been opened more than once.
    pub(super) fn judge_all(all: Vec<Self>, figures: &mut Figures, outcome: &Outcome) {
        Self::judge_first(numbers_given(), all, figures, outcome);
    }

    fn judge_first(numbers: u64, all: Vec<Self>, figures: &mut Figures, outcome: &Outcome) {
        let mut counts = vec![0_u16; usize::try_from(numbers).expect("they are in memory")];
        let mut part = vec![0; counts.len()];
        let mut seen = HashSet::new();
        for Self(mut file) in all {
            let file_is = file.metadata().expect("an open file can be asked");
            if !seen.insert((file_is.dev(), file_is.ino())) {
                continue;
            }
            let read = read_whole(&mut file, &mut part).expect("a file in memory can be read");
            for (sum, count) in counts.iter_mut().zip(&part[..read]) {
                *sum = sum.saturating_add((*count).into());
            }
        }
        let once = counts.iter().filter(|count| **count == 1).count() as u64;
        let more = counts.iter().filter(|count| **count > 1).count() as u64;
        figures.show("runs of the function", once + more);
        figures.must_be("run more than once (doubled)", more, 0);
        figures.must_be("answered and never run", outcome.good().saturating_sub(once + more), 0);
        figures.must_be("another call's answer (crossed)", outcome.crossed, 0);
        figures.must_be("answers nobody asked for", outcome.surplus, 0);
    }
}

/// Fills `part` as far as there is something to read.
fn read_whole(file: &mut File, part: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < part.len() {
        match file.read(&mut part[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    /// Whether the counts of so many calls, all answered, are judged as good.
    fn holds(counts: &[u8], answered: u64) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(counts).unwrap();
        file.rewind().unwrap();
        let mut outcome = Outcome::default();
        outcome.by_status.insert(200, answered);
        let mut figures = Figures::default();
        Runs::judge_first(16, vec![Runs(file)], &mut figures, &outcome);
        figures.holds()
    }

    #[test]
    fn a_call_that_ran_twice_or_not_at_all_is_seen() {
        assert!(holds(&[1, 0, 1, 1], 3));
        // One that ran and was not answered is for its status to tell.
        assert!(holds(&[1, 1, 1, 1], 3));
        assert!(!holds(&[1, 2, 1], 3));
        assert!(!holds(&[1, 0, 1], 3));
    }
}
