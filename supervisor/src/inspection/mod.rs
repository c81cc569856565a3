//! Whether a template that has imported may be forked: looked at from outside, by `/proc`, as the template itself is
//! not to be believed and need not help.
//!
//! A fork shares open files with its siblings, and takes along one thread of many. So these speak against it:
//! - a connected or listening socket, a pipe, an epoll or io_uring: siblings would read each other's answers;
//! - a file open for writing, or one being read (its offset is shared);
//! - a thread, unless it is known what it does: whatever it held or had to do is held for ever and not done in a child;
//! - an open GPU: its drivers refuse or corrupt a forked child.
//!
//! What cannot be looked at counts as a sign: the price of a start afresh is memory and time, that of a wrong fork is
//! wrong answers.

mod descriptors;
mod sockets;
mod threads;

use std::{collections::BTreeSet, io, time::Duration};

use crate::{
    limits::{INSPECTION_LOOK_MS, INSPECTION_MS_MAX},
    procfs::ShownPid,
};

/// What is found in one look.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing speaks against a fork.
    Clean,
    /// This does, and always will.
    Hazard(String),
    /// This does for now: a thread that has not come to rest.
    Unsettled(String),
}

/// Says what makes forking `pid` unsafe, if anything. The sockets and pipes in `given` are ours.
pub(crate) async fn hazard(pid: Option<ShownPid>, given: BTreeSet<u64>) -> Option<String> {
    let Some(pid) = pid else { return Some("its process cannot be looked at".to_owned()) };
    let mut looks_left = INSPECTION_MS_MAX / INSPECTION_LOOK_MS;
    loop {
        match look(pid, &given) {
            Finding::Clean => return None,
            Finding::Hazard(text) => return Some(text),
            Finding::Unsettled(text) if looks_left == 0 => return Some(text),
            Finding::Unsettled(_) => looks_left -= 1,
        }
        tokio::time::sleep(Duration::from_millis(INSPECTION_LOOK_MS)).await;
    }
}

fn look(pid: ShownPid, given: &BTreeSet<u64>) -> Finding {
    match descriptors::hazard(pid, given) {
        Ok(None) => {}
        Ok(Some(text)) => return Finding::Hazard(text),
        Err(error) => return Finding::Hazard(unseen("open files", &error)),
    }
    threads::look(pid)
}

/// What cannot be looked at, and what could be done about it.
fn unseen(what: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; hint: let the server have CAP_SYS_PTRACE, or insist on start mode `fork`"
        }
        _ => "",
    };
    format!("its {what} cannot be looked at: {error}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_look_is_told_what_it_takes() {
        let denied = unseen("threads", &io::ErrorKind::PermissionDenied.into());
        assert!(
            denied.starts_with("its threads cannot be looked at: ") && denied.contains("CAP_SYS_PTRACE"),
            "{denied}"
        );
        let gone = unseen("open files", &io::ErrorKind::NotFound.into());
        assert!(!gone.contains("hint"), "{gone}");
    }
}
