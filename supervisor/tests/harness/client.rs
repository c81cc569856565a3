//! The control API as a supervisor sees it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    line,
    spec::CONTROL_SOCKET,
    supervision::{
        DeploymentReport, FromSupervisor, Isolation, Peer, Phase, ReplicaUsage, SUPERVISION_PROTOCOL,
        SlotReport, SlotState, ToSupervisor,
    },
};

use super::{PATIENCE, is_alive, until};

pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    pub(crate) pid: u32,
    pub(crate) slot_count: u16,
    pub(crate) isolation: Isolation,
    /// The last word on each slot and on the deployment.
    pub(crate) slots: BTreeMap<SlotIndex, SlotReport>,
    pub(crate) deployment: Option<DeploymentReport>,
    /// Everything said of slots since the connection, in order.
    pub(crate) history: Vec<SlotReport>,
}

impl Client {
    pub(crate) fn connect(run_dir: &Path) -> Self {
        Self::try_connect(run_dir).expect("the supervisor answers")
    }

    pub(crate) fn try_connect(run_dir: &Path) -> Option<Self> {
        let stream = UnixStream::connect(run_dir.join(CONTROL_SOCKET)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self {
            stream: BufReader::new(stream),
            pid: 0,
            slot_count: 0,
            isolation: Isolation::default(),
            slots: BTreeMap::new(),
            deployment: None,
            history: Vec::new(),
        };
        client.say(&ToSupervisor::Hello {
            protocol: SUPERVISION_PROTOCOL,
            peer: Peer::Control,
            name: "test".into(),
        });
        client.next()?;
        Some(client)
    }

    pub(crate) fn say(&mut self, message: &ToSupervisor) {
        self.stream.get_mut().write_all(&line::encode(message)).unwrap();
    }

    pub(crate) fn expired(&mut self, slot: u16, replica: &ReplicaId) {
        self.say(&ToSupervisor::Expired { slot: SlotIndex(slot), replica: replica.clone(), call: CallId(1) });
    }

    /// The next message; none when the supervisor has hung up.
    pub(crate) fn next(&mut self) -> Option<FromSupervisor> {
        let mut text = String::new();
        let count = self.stream.read_line(&mut text).expect("the supervisor says something in time");
        if count == 0 {
            return None;
        }
        let message: FromSupervisor = line::decode(text.as_bytes()).unwrap();
        match &message {
            FromSupervisor::Hello { pid, slots, isolation, .. } => {
                self.pid = *pid;
                self.slot_count = *slots;
                self.isolation = isolation.clone();
            }
            FromSupervisor::Slot(report) => {
                self.slots.insert(report.slot, report.clone());
                self.history.push(report.clone());
            }
            FromSupervisor::Deployment(report) => self.deployment = Some(report.clone()),
            FromSupervisor::Usage { .. } => {}
        }
        Some(message)
    }

    /// What a replica has done so far.
    pub(crate) fn usage(&mut self, replica: &ReplicaId) -> Option<ReplicaUsage> {
        self.say(&ToSupervisor::Measure);
        loop {
            if let FromSupervisor::Usage { replicas } = self.next().expect("the supervisor is there") {
                return replicas.into_iter().find(|one| one.replica == *replica);
            }
        }
    }

    /// Listens until something is so.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            assert!(self.next().is_some(), "the supervisor hung up before: {what}\n{:?}", self.history);
        }
    }

    pub(crate) fn until_all_ready(&mut self) {
        self.until("every slot is ready", |client| {
            let ready = client.slots.values().filter(|slot| slot.state == SlotState::Ready).count();
            assert!(!client.is_failed(), "{:?}", client.deployment);
            // Slots are told first: whoever connects late has heard of all of them and of no deployment yet.
            ready == usize::from(client.slot_count) && client.deployment.is_some()
        });
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.deployment.as_ref().is_some_and(|report| report.phase == Phase::Failed)
    }

    pub(crate) fn replica(&self, slot: u16) -> ReplicaId {
        self.slots[&SlotIndex(slot)].replica.clone().expect("a replica is in the slot")
    }

    pub(crate) fn pid_in(&self, slot: u16) -> u32 {
        self.slots[&SlotIndex(slot)].pid.expect("a process is in the slot")
    }

    /// Listens until a slot is served by another replica than `old`.
    pub(crate) fn until_replaced(&mut self, slot: u16, old: &ReplicaId) {
        self.until("the slot has another replica", |client| {
            let report = &client.slots[&SlotIndex(slot)];
            report.state == SlotState::Ready && report.replica.as_ref() != Some(old)
        });
    }

    /// Listens until the death of `replica` is told.
    pub(crate) fn until_dead(&mut self, replica: &ReplicaId) {
        self.until("a death is told", |client| {
            let is_it = |report: &SlotReport| {
                report.state == SlotState::Dead && report.replica.as_ref() == Some(replica)
            };
            client.history.iter().any(is_it)
        });
    }

    pub(crate) fn stop_and_wait(mut self, grace_ms: u64) {
        let _ = self.stream.get_mut().write_all(&line::encode(&ToSupervisor::Stop { grace_ms }));
        while self.next().is_some() {}
        let pid = self.pid;
        until("the supervisor has ended", || !is_alive(pid));
    }
}
