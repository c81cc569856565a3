//! The event loop: tells the plan what happened and carries out what it says. It decides nothing itself.
//!
//! One thread. Everything that waits is a task that ends in a [`Happening`]; all happenings come by one queue, so that
//! they are dealt with one after another.

mod births;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use millgate_contract::{
    ids::ReplicaId,
    nursery::{FromReplica, FromTemplate},
    spec::DeploymentSpec,
    supervision::{FromSupervisor, Isolation, SUPERVISION_PROTOCOL, ToSupervisor},
};
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::{net::UnixStream, sync::mpsc};

use crate::{
    burial::Graveyard,
    cgroup::Groups,
    limits,
    logs::DeploymentLog,
    names::Names,
    peers::{PeerId, Peers},
    plan::{Action, Event, Import, Plan, Settings, TemplateId},
    process::Task,
    procfs,
    replica::Replica,
    sandbox::{Outside, Sandbox},
    sys,
    template::Template,
};

/// Happenings that wait to be dealt with; their senders wait when there are more.
const HAPPENINGS_MAX: usize = 1_024;

/// What tasks tell the event loop.
#[derive(Debug)]
pub(crate) enum Happening {
    TemplateSaid {
        template: TemplateId,
        message: FromTemplate,
    },
    /// It has imported, and was looked at.
    TemplateInspected {
        template: TemplateId,
        import: Import,
    },
    TemplateEnded {
        template: TemplateId,
    },
    ReplicaSaid {
        replica: ReplicaId,
        message: FromReplica,
        sender: Pid,
    },
    /// Nobody holds the other end of its channel, or it said too much.
    ReplicaSilent {
        replica: ReplicaId,
    },
    ReplicaEnded {
        replica: ReplicaId,
    },
    PeerCame {
        stream: UnixStream,
    },
    PeerSaid {
        peer: PeerId,
        message: ToSupervisor,
    },
    PeerGone {
        peer: PeerId,
    },
    /// A child of ours has ended.
    ChildEnded,
    /// It is time to look how much memory the replicas use.
    MemoryLook,
    /// TERM or INT from outside.
    Stop,
}

/// What the supervisor was given and has made before its event loop begins.
#[derive(Debug)]
pub(crate) struct Establishment {
    pub(crate) spec: DeploymentSpec,
    pub(crate) sandbox: Sandbox,
    pub(crate) outside: Outside,
    pub(crate) groups: Option<Groups>,
    /// One for each slot.
    pub(crate) listeners: Vec<OwnedFd>,
    pub(crate) log: DeploymentLog,
    /// What the host does not allow, as far as it is known.
    pub(crate) missing: Vec<String>,
    /// We are init of a PID namespace: everything else in it is ours to kill.
    pub(crate) is_init: bool,
}

/// The event loop's state.
#[derive(Debug)]
pub(crate) struct Conductor {
    house: Establishment,
    plan: Plan,
    began: Instant,
    templates: BTreeMap<TemplateId, Template>,
    replicas: BTreeMap<ReplicaId, Replica>,
    graveyard: Graveyard,
    /// What holds user code in: a fact since the first template.
    isolation: Isolation,
    peers: Peers,
    /// What the plan knows of them.
    has_peers: bool,
    _memory_looks: Option<Task>,
    /// Has been told to fork just now.
    forking: Option<TemplateId>,
    happenings: mpsc::Receiver<Happening>,
    sender: mpsc::Sender<Happening>,
    groups_made: u64,
}

impl Conductor {
    /// Starts the first template; when this returns, what holds user code in is known.
    pub(crate) fn new(house: Establishment) -> Self {
        let settings = Settings::of(&house.spec);
        let has_memory_limit = settings.memory_bytes_max.is_some();
        let names = Names::new(&house.spec.replica_prefix, sys::random_u64());
        let (plan, actions) = Plan::new(settings, names, 0);
        let (sender, happenings) = mpsc::channel(HAPPENINGS_MAX);
        let mut conductor = Self {
            isolation: Isolation { missing: house.missing.clone(), ..Isolation::default() },
            house,
            plan,
            began: Instant::now(),
            templates: BTreeMap::new(),
            replicas: BTreeMap::new(),
            graveyard: Graveyard::default(),
            peers: Peers::default(),
            has_peers: false,
            forking: None,
            _memory_looks: has_memory_limit.then(|| Task::spawn(look_at_memory(sender.clone()))),
            happenings,
            sender,
            groups_made: 0,
        };
        conductor.carry_out(actions);
        conductor
    }

    /// Where tasks send what happens.
    pub(crate) fn sender(&self) -> mpsc::Sender<Happening> {
        self.sender.clone()
    }

    /// Runs until the plan is finished; then everything is gone but the sockets.
    pub(crate) async fn run(mut self) {
        let mut is_finished = false;
        while !is_finished {
            let due = self.next_due();
            let event = tokio::select! {
                biased;
                happening = self.happenings.recv() => {
                    let happening = happening.expect("the conductor holds a sender itself");
                    self.take_in(happening)
                }
                () = sleep_until(due) => Some(Event::Due),
            };
            self.graveyard.sweep();
            if let Some(event) = event {
                let actions = self.plan.handle(self.now_ms(), event);
                is_finished |= self.carry_out(actions);
            }
            if self.has_peers == self.peers.is_empty() {
                self.has_peers = !self.has_peers;
                let actions = self.plan.handle(self.now_ms(), Event::Peers { is_any: self.has_peers });
                is_finished |= self.carry_out(actions);
            }
            if let Some(template) = self.forking.take() {
                // What peers are told is written first.
                tokio::task::yield_now().await;
                self.rouse_groups(template);
            }
        }
        self.finish().await;
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn next_due(&self) -> Option<Instant> {
        let plan = self.plan.deadline_ms().map(|at_ms| self.began + Duration::from_millis(at_ms));
        plan.into_iter().chain(self.graveyard.next_sweep()).min()
    }

    // In: what happened, as the plan understands it.

    fn take_in(&mut self, happening: Happening) -> Option<Event> {
        match happening {
            Happening::TemplateSaid { template, message } => self.template_said(template, message),
            Happening::TemplateInspected { template, import } => Some(Event::Imported { template, import }),
            Happening::TemplateEnded { template } => {
                self.forget_template(template);
                Some(Event::TemplateDied { template })
            }
            Happening::ReplicaSaid { replica, message, sender } => {
                self.replica_said(replica, message, sender)
            }
            // After it is placed, only the pidfd tells its death.
            Happening::ReplicaSilent { replica } => {
                self.replicas.get(&replica).is_some_and(|one| one.process.is_none()).then(|| Event::Failed {
                    replica,
                    reason: "the forked process ended before it said who it was".to_owned(),
                })
            }
            Happening::ReplicaEnded { replica } => Some(Event::Died { replica }),
            Happening::PeerCame { stream } => {
                let first = self.first_words();
                self.peers.add(stream, first.into_iter(), &self.sender);
                None
            }
            Happening::PeerGone { peer } => {
                self.peers.remove(peer);
                None
            }
            Happening::PeerSaid { peer, message } => match message {
                ToSupervisor::Expired { slot, replica, call } => {
                    self.note_an_answer(&replica);
                    Some(Event::Expired { slot, replica, call })
                }
                ToSupervisor::Measure => {
                    let replicas = self.replicas.values().filter_map(Replica::usage).collect();
                    self.peers.tell_one(peer, &FromSupervisor::Usage { replicas });
                    None
                }
                ToSupervisor::Restart => Some(Event::Restart),
                ToSupervisor::Stop { grace_ms } => Some(Event::Stop { grace_ms }),
                ToSupervisor::Hello { .. } => None,
            },
            Happening::ChildEnded => {
                self.reap();
                None
            }
            Happening::MemoryLook => {
                self.look_at_memory();
                None
            }
            Happening::Stop => Some(Event::Stop { grace_ms: limits::SIGNAL_GRACE_MS }),
        }
    }

    fn template_said(&mut self, template: TemplateId, message: FromTemplate) -> Option<Event> {
        match message {
            FromTemplate::Imported { import_ms, python } => {
                self.inspect(template, import_ms, printable(&python));
                None
            }
            FromTemplate::ImportFailed(failure) => Some(Event::ImportFailed {
                template,
                reason: format!("{}: {}", failure.step, printable(&failure.message)),
            }),
            FromTemplate::ForkFailed { replica, error } => {
                let is_its = self.replicas.get(&replica).is_some_and(|one| one.template == Some(template));
                let reason = format!("fork: {}", printable(&error));
                is_its.then_some(Event::Failed { replica, reason })
            }
            FromTemplate::Forked { .. } => None,
            FromTemplate::Exited { pid, status } => self.exited(Pid::from_raw(pid), &printable(&status)),
        }
    }

    fn replica_said(&mut self, replica: ReplicaId, message: FromReplica, sender: Pid) -> Option<Event> {
        match message {
            FromReplica::Here => self.place(replica, sender),
            FromReplica::Ready { example_response } => Some(Event::Ready { replica, example_response }),
            FromReplica::Failed(failure) => Some(Event::Failed {
                replica,
                reason: format!("{}: {}", failure.step, printable(&failure.message)),
            }),
            // What the example came to is said again when it serves.
            FromReplica::Warm { .. } => Some(Event::Warm { replica }),
            FromReplica::Answered => Some(Event::Answered { replica }),
            FromReplica::Leaving { reason } => Some(Event::Leaving { replica, reason: printable(&reason) }),
        }
    }

    /// A replica that has begun a second call has answered the first one. Its own word of that comes by another way than
    /// a gateway's of the second, and may come after it.
    fn note_an_answer(&mut self, replica: &ReplicaId) {
        let usage = self.replicas.get(replica).and_then(Replica::usage);
        if usage.is_some_and(|usage| usage.calls > 1) {
            let actions = self.plan.handle(self.now_ms(), Event::Answered { replica: replica.clone() });
            self.carry_out(actions);
        }
    }

    /// While the template forks, the kernel makes itself ready for the child's change to a group of its own.
    fn rouse_groups(&self, template: TemplateId) {
        if let Some(template) = self.templates.get(&template)
            && let Some(group) = &template.group
        {
            group.rouse(template.process.pid());
        }
    }

    fn look_at_memory(&mut self) {
        let used: Vec<(ReplicaId, u64)> = self
            .replicas
            .values()
            .filter_map(|replica| Some((replica.name.clone(), replica.memory_bytes()?)))
            .collect();
        for (replica, bytes) in used {
            let actions = self.plan.handle(self.now_ms(), Event::Memory { replica, bytes });
            self.carry_out(actions);
        }
    }

    fn exited(&mut self, pid: Pid, status: &str) -> Option<Event> {
        let is_its = |one: &&Replica| one.process.as_ref().is_some_and(|process| process.pid() == pid);
        let replica = self
            .replicas
            .values()
            .find(is_its)
            .map(|one| one.name.clone())
            .or_else(|| self.graveyard.name_of(pid))?;
        Some(Event::Exited { replica, status: status.to_owned() })
    }

    /// As init, or as the one to whom orphans fall, we bury every child.
    fn reap(&mut self) {
        loop {
            let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit status {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    (pid, format!("killed by signal {}", signal as i32))
                }
                _ => return,
            };
            if let Some(event) = self.exited(pid, &status) {
                let actions = self.plan.handle(self.now_ms(), event);
                self.carry_out(actions);
            } else if let Some(id) =
                self.templates.iter().find(|(_, one)| one.process.pid() == pid).map(|(id, _)| *id)
            {
                self.house.log.note(None, &format!("template {}: {status}", id.0));
            }
        }
    }

    // Out: what the plan says.

    /// True when the plan is finished.
    fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        let mut queue = std::collections::VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            let failed = match action {
                Action::Finish => return true,
                Action::StartTemplate(id) => self.start_template(id),
                Action::Spawn { slot, replica } => Some(self.spawn(Some(slot), replica)),
                Action::SpawnSpare { replica } => Some(self.spawn(None, replica)),
                Action::Fork { template, slot, replica } => self.fork(template, Some(slot), replica),
                Action::ForkSpare { template, replica } => self.fork(template, None, replica),
                Action::Serve { slot, replica } => self.serve(slot, replica),
                other => {
                    self.carry_out_simple(other);
                    None
                }
            };
            if let Some(event) = failed {
                let more = self.plan.handle(self.now_ms(), event);
                queue.extend(more);
            }
        }
        false
    }

    fn carry_out_simple(&mut self, action: Action) {
        match action {
            Action::ReportSlot(report) => self.peers.tell(&FromSupervisor::Slot(report)),
            Action::ReportDeployment(report) => self.peers.tell(&FromSupervisor::Deployment(report)),
            Action::Note { replica, text } => self.house.log.note(replica.as_ref(), &text),
            Action::EndTemplate(id) => {
                if let Some(template) = self.templates.get(&id) {
                    // Only itself: its children are replicas that serve.
                    template.process.signal(nix::sys::signal::Signal::SIGKILL);
                }
            }
            Action::Terminate(name) => self.replicas.get(&name).into_iter().for_each(Replica::terminate),
            Action::Kill(name) => self.replicas.get(&name).into_iter().for_each(Replica::kill),
            Action::Bury(name) => {
                if let Some(replica) = self.replicas.remove(&name) {
                    self.graveyard.bury_replica(replica);
                }
                self.kill_orphans();
            }
            Action::StartTemplate(_)
            | Action::Fork { .. }
            | Action::ForkSpare { .. }
            | Action::Serve { .. }
            | Action::Spawn { .. }
            | Action::SpawnSpare { .. }
            | Action::Finish => {
                unreachable!("carried out by the caller")
            }
        }
    }

    fn forget_template(&mut self, id: TemplateId) {
        if let Some(template) = self.templates.remove(&id) {
            self.graveyard.bury_template(template);
        }
    }

    /// Without groups, what a dead process leaves behind falls to us: everything of ours that is nobody we know.
    fn kill_orphans(&self) {
        let Some(own) = procfs::own_pid().filter(|_| self.house.groups.is_none()) else { return };
        let known: Vec<i32> = self
            .templates
            .values()
            .map(|one| &one.process)
            .chain(self.replicas.values().filter_map(|one| one.process.as_ref()))
            .map(|process| process.pid().as_raw())
            .collect();
        for child in procfs::children(own) {
            if procfs::status(child).is_some_and(|status| !known.contains(&status.own)) {
                crate::burial::kill_tree_of(child);
            }
        }
    }

    fn first_words(&self) -> Vec<FromSupervisor> {
        let pid = procfs::own_pid().map_or_else(std::process::id, |pid| pid.0);
        let hello = FromSupervisor::Hello {
            protocol: SUPERVISION_PROTOCOL,
            deployment: self.house.spec.deployment.clone(),
            build: self.house.spec.build.clone(),
            slots: self.house.spec.slots,
            pid,
            isolation: self.isolation.clone(),
        };
        let deployment = FromSupervisor::Deployment(self.plan.deployment_report().clone());
        std::iter::once(hello)
            .chain(self.plan.slot_reports().map(FromSupervisor::Slot))
            .chain([deployment])
            .collect()
    }

    /// Kills what is left, waits for it, removes the groups, lets the peers hear the last words.
    async fn finish(mut self) {
        for (_, replica) in std::mem::take(&mut self.replicas) {
            replica.kill();
            self.graveyard.bury_replica(replica);
        }
        for (_, template) in std::mem::take(&mut self.templates) {
            template.process.kill_tree(template.group.as_ref());
            self.graveyard.bury_template(template);
        }
        if self.house.is_init {
            let _ = nix::sys::signal::kill(Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL);
        }
        self.kill_orphans();
        let _ =
            tokio::time::timeout(Duration::from_millis(limits::KILL_AGAIN_MS), self.graveyard.empty()).await;
        if let Some(groups) = &self.house.groups {
            groups.remove();
        }
        self.house.log.note(None, "the deployment has ended");
        let _ = tokio::time::timeout(Duration::from_millis(limits::KILL_AGAIN_MS), self.peers.finish()).await;
    }
}

async fn look_at_memory(happenings: mpsc::Sender<Happening>) {
    loop {
        tokio::time::sleep(Duration::from_millis(limits::MEMORY_LOOK_MS)).await;
        if happenings.send(Happening::MemoryLook).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What an untrusted process says, fit for a log and a terminal: bounded, one line, no control characters.
fn printable(text: &str) -> String {
    const CHARACTERS_MAX: usize = 2_048;
    text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
