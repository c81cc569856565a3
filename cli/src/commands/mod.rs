//! One file per command. Each takes the parsed arguments and a client, prints, and returns success or a failure;
//! none of them knows how another works.

pub(crate) mod access_key;
pub(crate) mod backup;
pub(crate) mod builds;
pub(crate) mod call;
pub(crate) mod delete;
pub(crate) mod deploy;
pub(crate) mod environment;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod lookup;
pub(crate) mod profiles;
pub(crate) mod restart;
pub(crate) mod rollback;
mod rollout;
pub(crate) mod run;
pub(crate) mod runtimes;
pub(crate) mod scale;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod team;
pub(crate) mod user;

use std::time::Duration;

/// Pauses between looks at something the API has no stream for: short at first, for what is done in a moment.
pub(crate) struct Pauses(Duration);

impl Pauses {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    #[expect(clippy::disallowed_methods, reason = "a command has one thread and nothing else to do")]
    pub(crate) fn wait(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 5 / 4).min(Self::LONGEST);
    }
}
