//! A replica, from the fork that was asked for to its burial. The kernel says which process speaks on its channel;
//! what else it says is taken for text.

use std::{io, os::fd::OwnedFd, sync::Arc};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    limits::MESSAGE_BYTES_MAX,
    line,
    nursery::{FromReplica, GO},
};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::sync::mpsc;

use crate::{
    cgroup::Group,
    conductor::Happening,
    limits::REPLICA_MESSAGES_MAX,
    logs::{DeploymentLog, LogPipe},
    plan::TemplateId,
    process::{Process, Task},
    procfs,
    seqpacket::{Received, Seqpacket},
    sys,
};

/// One replica. Before it is placed there may be no process yet.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) name: ReplicaId,
    pub(crate) slot: SlotIndex,
    pub(crate) template: TemplateId,
    pub(crate) process: Option<Process>,
    pub(crate) group: Option<Group>,
    channel: Arc<Seqpacket>,
    tasks: Vec<Task>,
}

/// What a fork is given besides the listener.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) channel: OwnedFd,
    pub(crate) log: OwnedFd,
}

/// Why a process that says it is a replica is not taken for one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// It ended meanwhile.
    #[error("the process is gone: {0}")]
    Gone(io::Error),
    /// It is not the template's child.
    #[error("process {0} is not a child of the template")]
    Stranger(Pid),
    /// Its group does not take it.
    #[error("cgroup: {0}")]
    Group(io::Error),
    /// Its channel is closed.
    #[error("the channel is closed: {0}")]
    Channel(io::Error),
    /// It was placed before.
    #[error("it said `here` twice")]
    Twice,
}

impl Replica {
    /// A replica that a template is about to be told to fork.
    pub(crate) fn new(
        name: ReplicaId,
        slot: SlotIndex,
        template: TemplateId,
        log: &DeploymentLog,
        happenings: &mpsc::Sender<Happening>,
    ) -> io::Result<(Self, Ends)> {
        let (channel, channel_end) = Seqpacket::pair()?;
        let (log_pipe, log_end) = LogPipe::pair()?;
        let channel = Arc::new(channel);
        // The log is read to its end even when the replica is forgotten: its last words matter most.
        tokio::spawn(log.clone().follow(log_pipe, Some(name.clone())));
        let tasks = vec![Task::spawn(hear(name.clone(), Arc::clone(&channel), happenings.clone()))];
        let replica = Self { name, slot, template, process: None, group: None, channel, tasks };
        Ok((replica, Ends { channel: channel_end, log: log_end }))
    }

    /// Takes the process `sender` for this replica, once it is seen to be a child of `parent`: puts it into its group
    /// and lets it run.
    pub(crate) fn place(
        &mut self,
        sender: Pid,
        parent: &Process,
        group: Option<Group>,
        happenings: &mpsc::Sender<Happening>,
    ) -> Result<(), PlaceError> {
        if self.process.is_some() {
            return Err(PlaceError::Twice);
        }
        let pidfd = sys::pidfd_open(sender).map_err(PlaceError::Gone)?;
        let process = Process::new(sender, pidfd);
        // After the pidfd is open: the id can no longer be another process's.
        let status = process.shown().and_then(procfs::status);
        let is_child = status.is_some_and(|status| Some(status.parent) == parent.shown().map(|pid| pid.0));
        if sender == parent.pid() || !is_child {
            return Err(PlaceError::Stranger(sender));
        }
        let death = process.death().map_err(PlaceError::Gone)?;
        let (name, happenings) = (self.name.clone(), happenings.clone());
        self.tasks.push(Task::spawn(async move {
            death.await;
            let _ = happenings.send(Happening::ReplicaEnded { replica: name }).await;
        }));
        self.process = Some(process);
        let placed = group.as_ref().map_or(Ok(()), |group| group.add(sender));
        self.group = group;
        placed.map_err(PlaceError::Group)?;
        self.channel.send(&[GO], &[]).map_err(PlaceError::Channel)
    }

    /// Asks it to finish its call and end.
    pub(crate) fn terminate(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::SIGTERM);
        }
    }

    /// Kills it and its descendants.
    pub(crate) fn kill(&self) {
        if let Some(process) = &self.process {
            process.kill_tree(self.group.as_ref());
        }
    }
}

async fn hear(name: ReplicaId, channel: Arc<Seqpacket>, happenings: mpsc::Sender<Happening>) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    for _ in 0..REPLICA_MESSAGES_MAX {
        match channel.receive(&mut buffer).await {
            Ok(Received::Message { bytes, sender }) => match line::decode::<FromReplica>(&buffer[..bytes]) {
                Ok(message) => {
                    let said = Happening::ReplicaSaid { replica: name.clone(), message, sender };
                    let _ = happenings.send(said).await;
                }
                Err(error) => tracing::warn!(replica = %name, %error, "a replica said something else"),
            },
            Ok(Received::Unfit) => tracing::warn!(replica = %name, "a replica said too much at once"),
            Ok(Received::End) | Err(_) => {
                let _ = happenings.send(Happening::ReplicaSilent { replica: name }).await;
                return;
            }
        }
    }
    tracing::warn!(replica = %name, "a replica said too much; it is heard no more");
}
