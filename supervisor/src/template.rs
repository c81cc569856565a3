//! The template: the process that imports the function and forks replicas when told. Untrusted; it is asked, and what
//! it says is checked or taken for text.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    limits::MESSAGE_BYTES_MAX,
    line,
    nursery::{FromTemplate, TEMPLATE_FD, ToTemplate},
};
use nix::sys::stat::fstat;
use tokio::sync::mpsc;

use crate::{
    cgroup::Group,
    conductor::Happening,
    logs::Output,
    nursery::{Nursery, Start, StartError, Started},
    plan::TemplateId,
    process::{Process, Task},
    replica::Ends,
    seqpacket::{Received, Seqpacket},
};

/// A template that runs.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) process: Process,
    /// What of its sandbox it went without.
    pub(crate) missing: Vec<String>,
    pub(crate) group: Option<Group>,
    /// The inodes of the sockets and pipes that we gave it.
    pub(crate) given: BTreeSet<u64>,
    /// Looks at it after its import.
    pub(crate) inspection: Option<Task>,
    socket: Arc<Seqpacket>,
    _hearing: Task,
}

impl Template {
    /// Starts a template; from here on it says how it fares by happenings.
    pub(crate) fn start(id: TemplateId, nursery: &Nursery<'_>) -> Result<Self, StartError> {
        let (socket, theirs) = Seqpacket::pair()?;
        let output = Output::into_log(nursery.log, None)?;
        let given = [&theirs, &output.stdout, &output.stderr]
            .into_iter()
            .map(|fd| Ok(fstat(fd)?.st_ino))
            .collect::<io::Result<_>>()?;
        let Started { process, group, missing } = nursery.start(&Start {
            arguments: &["template"],
            group: &format!("template-{}", id.0),
            output: &output,
            descriptors: &[(&theirs, TEMPLATE_FD)],
        })?;
        let socket = Arc::new(socket);
        // One task hears both, so that what a template said last is known before its death is.
        let hearing = hear(id, Arc::clone(&socket), process.death()?, nursery.happenings.clone());
        Ok(Self { process, missing, group, given, inspection: None, socket, _hearing: Task::spawn(hearing) })
    }

    /// Tells it to fork. With a replica for a slot goes the slot's listener.
    pub(crate) fn fork(
        &self,
        replica: &ReplicaId,
        place: Option<(SlotIndex, &OwnedFd)>,
        ends: &Ends,
    ) -> io::Result<()> {
        let replica = replica.clone();
        let message = match place {
            Some((slot, _)) => ToTemplate::Fork { slot, replica },
            None => ToTemplate::ForkSpare { replica },
        };
        let descriptors: Vec<RawFd> = place
            .map(|(_, listener)| listener)
            .into_iter()
            .chain([&ends.channel, &ends.output.stdout, &ends.output.stderr, &ends.page])
            .map(AsRawFd::as_raw_fd)
            .collect();
        self.socket.send(&line::encode(&message), &descriptors)
    }
}

async fn hear(
    id: TemplateId,
    socket: Arc<Seqpacket>,
    death: impl Future<Output = ()>,
    happenings: mpsc::Sender<Happening>,
) {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut death = std::pin::pin!(death);
    loop {
        // Its end of the socket may be held by a child of its; the pidfd alone tells its death. A full queue is waited
        // for outside of the choice, or a death would throw away what was heard before it.
        let received = tokio::select! {
            biased;
            received = socket.receive(&mut buffer) => received,
            () = &mut death => break,
        };
        if !pass_on(id, received, &buffer, &happenings).await {
            death.await;
            break;
        }
    }
    // All that it had said lies in the socket by now.
    while let Some(received) = socket.receive_now(&mut buffer) {
        if !pass_on(id, received, &buffer, &happenings).await {
            break;
        }
    }
    let _ = happenings.send(Happening::TemplateEnded { template: id }).await;
}

/// False when there will be no more.
async fn pass_on(
    id: TemplateId,
    received: io::Result<Received>,
    buffer: &[u8],
    happenings: &mpsc::Sender<Happening>,
) -> bool {
    match received {
        Ok(Received::Message { bytes, .. }) => match line::decode::<FromTemplate>(&buffer[..bytes]) {
            Ok(message) => {
                let _ = happenings.send(Happening::TemplateSaid { template: id, message }).await;
            }
            Err(error) => tracing::warn!(%error, "a template said something else"),
        },
        Ok(Received::Unfit) => tracing::warn!("a template said too much at once"),
        Ok(Received::End) => return false,
        Err(error) => {
            tracing::warn!(%error, "a template cannot be heard");
            return false;
        }
    }
    true
}
