//! Steps on the way of an operation, by name: each is a moment at which this process may be killed, with something done
//! that the next step is not done for yet. A build with debug assertions dies at one when it is asked to
//! (`die_at`), so that what is left behind can be tried for each of them; any other build only names them in its trace.

macro_rules! milestones {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)?) => {
        /// See the module.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Milestone { $($(#[$doc])* $variant),* }

        impl Milestone {
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            #[cfg(debug_assertions)]
            const ALL: &[Self] = &[$(Self::$variant),*];
        }
    };
}

milestones! {
    /// An operation that was asked for is about to begin.
    Admitted = "admitted",
    /// It is done, and not recorded.
    Done = "done",
    /// It is recorded, and not answered.
    Recorded = "recorded",
    /// A build's turn has come.
    Building = "building",
    /// Its source is copied.
    Snapshot = "snapshot",
    /// Its environment is made, its script has run.
    Environment = "environment",
    /// It is sealed, and not yet tried.
    Sealed = "sealed",
    /// It was imported and called; processes that were only for that are gone.
    Trial = "trial",
    /// It is over.
    BuildOver = "build-over",
    /// A build is collected, its files are there.
    Collected = "collected",
    /// Its files are gone, and that is not known.
    FilesRemoved = "files-removed",
    /// A deployment may begin.
    Deploying = "deploying",
    /// Its supervisor is about to be started.
    LaunchBegun = "launch-begun",
    /// Its run directory is there.
    SpecWritten = "spec-written",
    /// The process is there that makes its supervisor.
    SupervisorSpawned = "supervisor-spawned",
    /// Its supervisor runs, and nobody is connected to it.
    SupervisorStarted = "supervisor-started",
    /// It is known to run.
    Launched = "launched",
    /// The store sends calls there, no gateway does.
    RoutedInStore = "routed-in-store",
    /// Gateways are told.
    Routed = "routed",
    /// It serves.
    Deployed = "deployed",
    /// The store sends calls nowhere, gateways do.
    UnroutedInStore = "unrouted-in-store",
    /// Nobody sends calls there.
    Stopping = "stopping",
    /// Its supervisor is told to end.
    StopTold = "stop-told",
    /// It is over.
    Over = "over",
    /// A supervisor is told to import anew.
    RestartTold = "restart-told",
    /// The logs of a model on its way out are gone.
    LogsRemoved = "logs-removed",
    /// Its builds are gone.
    BuildsRemoved = "builds-removed",
    /// It is forgotten.
    Purged = "purged",
}

/// This step is reached.
pub(crate) fn reached(milestone: Milestone) {
    tracing::trace!(milestone = milestone.as_str(), "reached");
    #[cfg(debug_assertions)]
    dying::reached(milestone);
}

#[cfg(debug_assertions)]
pub use dying::{NoSuchMilestone, die_at};

#[cfg(debug_assertions)]
mod dying {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::Milestone;

    static ASKED: OnceLock<Asked> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);

    struct Asked {
        /// None is any.
        milestone: Option<Milestone>,
        /// From 1.
        nth: u32,
    }

    /// There is no such milestone.
    #[derive(Debug, thiserror::Error)]
    #[error("`{0}` is no milestone: give a name and which time, as in `routed:1`, or `any:7`; names are {1}")]
    pub struct NoSuchMilestone(String, String);

    /// Has this process kill itself where `text` says: `routed:2` is the second time, `any:7` the seventh of all.
    pub fn die_at(text: &str) -> Result<(), NoSuchMilestone> {
        let wrong = || {
            let names: Vec<&str> = Milestone::ALL.iter().map(|milestone| milestone.as_str()).collect();
            NoSuchMilestone(text.to_owned(), names.join(", "))
        };
        let (name, nth) = text.split_once(':').ok_or_else(wrong)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?;
        let milestone = match name {
            "any" => None,
            _ => Some(*Milestone::ALL.iter().find(|known| known.as_str() == name).ok_or_else(wrong)?),
        };
        // One process is asked once.
        let _ = ASKED.set(Asked { milestone, nth });
        Ok(())
    }

    pub(super) fn reached(milestone: Milestone) {
        let Some(asked) = ASKED.get() else { return };
        if asked.milestone.is_some_and(|wanted| wanted != milestone) {
            return;
        }
        if REACHED.fetch_add(1, Ordering::Relaxed) + 1 == asked.nth {
            eprintln!("dies at {}", milestone.as_str());
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_no_milestone_is_told_with_those_there_are() {
            for text in ["routed", "routed:0", "nowhere:1", "any:x", ""] {
                let said = die_at(text).unwrap_err().to_string();
                assert!(said.contains("routed-in-store"), "{said}");
            }
        }
    }
}
