//! A replica, from the fork that was asked for to its burial. The kernel says which process speaks on its channel;
//! what else it says is taken for text.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    limits::MESSAGE_BYTES_MAX,
    line,
    nursery::{FromReplica, GO, PAGE_FD, SPAWN_CHANNEL_FD, SPAWN_LISTENER_FD, ToSpare},
    supervision::ReplicaUsage,
};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::sync::mpsc;

use crate::{
    cgroup::Group,
    conductor::Happening,
    limits::REPLICA_MESSAGES_MAX,
    logs::Output,
    nursery::{Nursery, Start, StartError},
    page::SharedPage,
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
    /// Where it serves; a spare has no slot yet.
    pub(crate) slot: Option<SlotIndex>,
    /// The template that forks it; none for one that was started afresh.
    pub(crate) template: Option<TemplateId>,
    pub(crate) process: Option<Process>,
    pub(crate) group: Option<Group>,
    /// It was told that it is in its place.
    is_placed: bool,
    page: SharedPage,
    channel: Arc<Seqpacket>,
    tasks: Vec<Task>,
}

/// What a fork is given besides the listener.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) channel: OwnedFd,
    pub(crate) output: Output,
    pub(crate) page: OwnedFd,
}

/// Why a process that says it is a replica is not taken for one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// It ended meanwhile.
    #[error("the process is gone: {0}")]
    Gone(io::Error),
    /// It is not the template's child, or not the process that was started.
    #[error("process {0} is not the one that was started")]
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
    /// A replica that a template is about to be told to fork; without a slot, a spare.
    pub(crate) fn to_fork(
        name: &ReplicaId,
        slot: Option<SlotIndex>,
        template: TemplateId,
        nursery: &Nursery<'_>,
    ) -> io::Result<(Self, Ends)> {
        let (channel, channel_end) = Seqpacket::pair()?;
        let (page, memory) = SharedPage::new()?;
        let output = Output::into_log(nursery.log, Some((name, &page)))?;
        let replica = Self::new(name, channel, page, nursery.happenings);
        let ends = Ends { channel: channel_end, output, page: memory };
        Ok((Self { slot, template: Some(template), ..replica }, ends))
    }

    /// Starts a replica afresh, in a group of its own; also returns what of its sandbox it went without. Without a
    /// place, a spare.
    pub(crate) fn spawn(
        name: &ReplicaId,
        group: &str,
        place: Option<(SlotIndex, &OwnedFd)>,
        nursery: &Nursery<'_>,
    ) -> Result<(Self, Vec<String>), StartError> {
        let (channel, channel_end) = Seqpacket::pair()?;
        let (page, memory) = SharedPage::new()?;
        let output = Output::into_log(nursery.log, Some((name, &page)))?;
        let number = place.map(|(slot, _)| slot.to_string());
        let arguments = match &number {
            Some(number) => vec!["spawned", number, name.as_str()],
            None => vec!["spawned-spare", name.as_str()],
        };
        let listener = place.map(|(_, listener)| (listener, SPAWN_LISTENER_FD));
        let always = [(&channel_end, SPAWN_CHANNEL_FD), (&memory, PAGE_FD)];
        let descriptors: Vec<_> = always.into_iter().chain(listener).collect();
        let started = nursery.start(&Start {
            arguments: &arguments,
            group,
            output: &output,
            descriptors: &descriptors,
        })?;
        let mut replica = Self::new(name, channel, page, nursery.happenings);
        replica.slot = place.map(|(slot, _)| slot);
        replica.watch(&started.process, nursery.happenings)?;
        replica.process = Some(started.process);
        replica.group = started.group;
        Ok((replica, started.missing))
    }

    fn new(
        name: &ReplicaId,
        channel: Seqpacket,
        page: SharedPage,
        happenings: &mpsc::Sender<Happening>,
    ) -> Self {
        let channel = Arc::new(channel);
        let hearing = hear(name.clone(), Arc::clone(&channel), happenings.clone());
        Self {
            name: name.clone(),
            slot: None,
            template: None,
            process: None,
            group: None,
            is_placed: false,
            page,
            channel,
            tasks: vec![Task::spawn(hearing)],
        }
    }

    fn watch(&mut self, process: &Process, happenings: &mpsc::Sender<Happening>) -> io::Result<()> {
        let death = process.death()?;
        let (name, happenings) = (self.name.clone(), happenings.clone());
        self.tasks.push(Task::spawn(async move {
            death.await;
            let _ = happenings.send(Happening::ReplicaEnded { replica: name }).await;
        }));
        Ok(())
    }

    /// Lets a replica that was started afresh run, once it is the process itself that has spoken.
    pub(crate) fn admit(&mut self, sender: Pid) -> Result<(), PlaceError> {
        if self.is_placed {
            return Err(PlaceError::Twice);
        }
        if self.process.as_ref().is_none_or(|process| process.pid() != sender) {
            return Err(PlaceError::Stranger(sender));
        }
        self.go()
    }

    fn go(&mut self) -> Result<(), PlaceError> {
        self.is_placed = true;
        self.channel.send(&[GO], &[]).map_err(PlaceError::Channel)
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
        self.watch(&process, happenings).map_err(PlaceError::Gone)?;
        self.process = Some(process);
        let placed = group.as_ref().map_or(Ok(()), |group| group.add(sender));
        self.group = group;
        placed.map_err(PlaceError::Group)?;
        self.go()
    }

    /// Its id as people see it where that can be known, else ours.
    pub(crate) fn shown_pid(&self) -> Option<u32> {
        let process = self.process.as_ref()?;
        process.shown().map(|pid| pid.0).or_else(|| u32::try_from(process.pid().as_raw()).ok())
    }

    /// Memory of its own: of its group where it has one, else its private pages.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        let shown = self.process.as_ref()?.shown();
        self.group.as_ref().map_or_else(|| procfs::private_bytes(shown?), Group::memory_bytes)
    }

    /// What it has done so far, if it says so.
    pub(crate) fn usage(&self) -> Option<ReplicaUsage> {
        self.page.usage(&self.name)
    }

    /// Tells a spare to serve.
    pub(crate) fn serve(&mut self, slot: SlotIndex, listener: &OwnedFd) -> io::Result<()> {
        self.slot = Some(slot);
        self.channel.send(&line::encode(&ToSpare::Serve { slot }), &[listener.as_raw_fd()])
    }

    /// Asks it to finish its call and end.
    pub(crate) fn terminate(&self) {
        if self.slot.is_none() {
            // A signal would end it before it could tear down what it has set up. If it cannot be told, it is killed.
            let _ = self.channel.send(&line::encode(&ToSpare::Leave), &[]);
        } else if let Some(process) = &self.process {
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
