//! What a build step says while its script runs, and the way out of its network that it asks for.

use std::{convert::Infallible, fmt::Write, future::pending, pin::Pin, sync::Arc};

use millgate_contract::{spec::FromBuildStep, supervision::Isolation};

use super::channel::{Channel, Said};
use crate::egress::{self, rules::Rules};

/// Hears what the step says, and is its way out. Runs until dropped.
pub(super) async fn attend(rules: Rules, tell: &(impl Fn(&str) + Sync), mut channel: Channel) -> Infallible {
    let rules = Arc::new(rules);
    let mut outlet: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(pending());
    loop {
        let heard = tokio::select! {
            heard = channel.next() => heard,
            () = &mut outlet => {
                outlet = Box::pin(pending());
                continue;
            }
        };
        match heard {
            Ok(Some(Said { listener: Some(listener), .. })) => {
                let rules = rules.clone();
                outlet = Box::pin(async move {
                    let tell = |line: &str| tell(&format!("network: {line}"));
                    if let Err(error) = egress::serve(listener, rules, tell).await {
                        tracing::error!(%error, "the way out of a build's network");
                    }
                });
            }
            Ok(Some(Said { message: FromBuildStep::Held(isolation), .. })) => tell(&words_of(&isolation)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                outlet.await;
                return pending().await;
            }
        }
    }
}

/// What holds the script in, in one line.
fn words_of(isolation: &Isolation) -> String {
    let so = |facts: &[(bool, &'static str)]| -> Vec<&'static str> {
        facts.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect()
    };
    let own = so(&[
        (isolation.pid_namespace, "processes"),
        (isolation.mount_namespace, "files"),
        (isolation.ipc_namespace, "memory"),
        (isolation.network_namespace, "network"),
    ]);
    let held = so(&[
        (isolation.cgroup_version > 0, "limited by cgroup"),
        (isolation.landlock, "Landlock"),
        (isolation.seccomp, "seccomp"),
        (isolation.no_new_privileges, "no new privileges"),
    ]);
    let mut words = match &own[..] {
        [] => "the script runs".to_owned(),
        own => format!("the script has its own {}", own.join(", ")),
    };
    if let Some(uid) = isolation.uid {
        let _ = write!(words, "; uid {uid}");
    }
    for what in held {
        let _ = write!(words, ", {what}");
    }
    if !isolation.missing.is_empty() {
        let _ = write!(words, "; this host does not allow: {}", isolation.missing.join("; "));
    }
    words
}
