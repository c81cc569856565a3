//! Births: templates and replicas are started, looked at and put in their places.

use std::io;

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    spec::{Confinement, Network},
    supervision::Isolation,
};
use nix::unistd::Pid;

use super::{Conductor, Happening, printable};
use crate::{
    cgroup::Group,
    inspection,
    nursery::Nursery,
    plan::{Event, Import, TemplateId},
    process::{Process, Task},
    replica::{PlaceError, Replica},
    sandbox,
    template::Template,
};

impl Conductor {
    fn nursery(&self) -> Nursery<'_> {
        Nursery {
            spec: &self.house.spec,
            sandbox: &self.house.sandbox,
            groups: self.house.groups.as_ref(),
            log: &self.house.log,
            happenings: &self.sender,
        }
    }

    pub(super) fn start_template(&mut self, id: TemplateId) -> Option<Event> {
        match Template::start(id, &self.nursery()) {
            Ok(template) => {
                self.isolation = self.prove(&template.process, template.group.as_ref(), &template.missing);
                self.templates.insert(id, template);
                self.refusal().map(|reason| Event::ImportFailed { template: id, reason })
            }
            Err(error) => Some(Event::ImportFailed { template: id, reason: error.to_string() }),
        }
    }

    fn prove(&self, process: &Process, group: Option<&Group>, missing: &[String]) -> Isolation {
        let missing = self.house.missing.iter().chain(missing).cloned().collect();
        let mut isolation = sandbox::prove(process.shown(), &self.house.outside, missing);
        let is_held = group.is_some_and(|group| group.holds(process.pid()));
        if let (true, Some(groups)) = (is_held, &self.house.groups) {
            isolation.cgroup_version = groups.version();
        } else if !isolation.missing.iter().any(|one| one.starts_with("cgroup")) {
            isolation.missing.push("cgroup: the process is not in its group".to_owned());
        }
        isolation
    }

    /// Why what was started may not go on. What the host does not allow is told before anything is started; this is
    /// for what it said it had done, and has not.
    fn refusal(&self) -> Option<String> {
        let Confinement::Available { network, is_required, .. } = self.house.spec.confinement else {
            return None;
        };
        let reaches_out = network == Network::None && !self.isolation.network_namespace;
        let refusal = sandbox::refusal(&self.isolation.missing).filter(|_| is_required);
        refusal.or_else(|| reaches_out.then(|| "the model is to have no network, and has one".to_owned()))
    }

    pub(super) fn fork(
        &mut self,
        template: TemplateId,
        slot: Option<SlotIndex>,
        name: ReplicaId,
    ) -> Option<Event> {
        let forked = Replica::to_fork(&name, slot, template, &self.nursery()).and_then(|(replica, ends)| {
            self.replicas.insert(name.clone(), replica);
            let parent = self.templates.get(&template).ok_or(io::ErrorKind::NotFound)?;
            let place = slot.map(|slot| (slot, &self.house.listeners[usize::from(slot.0)]));
            parent.fork(&name, place, &ends)
        });
        self.forking = forked.is_ok().then_some(template);
        forked.err().map(|error| Event::Failed { replica: name, reason: format!("fork: {error}") })
    }

    pub(super) fn serve(&mut self, slot: SlotIndex, name: ReplicaId) -> Option<Event> {
        let listener = &self.house.listeners[usize::from(slot.0)];
        let told = match self.replicas.get_mut(&name) {
            Some(replica) => replica.serve(slot, listener),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        told.err().map(|error| Event::Failed { replica: name, reason: format!("take over a slot: {error}") })
    }

    pub(super) fn spawn(&mut self, slot: Option<SlotIndex>, name: ReplicaId) -> Event {
        let group = self.group_name(slot);
        let place = slot.map(|slot| (slot, &self.house.listeners[usize::from(slot.0)]));
        match Replica::spawn(&name, &group, place, &self.nursery()) {
            Ok((replica, missing)) => {
                if let Some(process) = &replica.process {
                    self.isolation = self.prove(process, replica.group.as_ref(), &missing);
                }
                let pid = replica.shown_pid();
                self.replicas.insert(name.clone(), replica);
                match self.refusal() {
                    None => Event::Placed { replica: name, pid },
                    Some(reason) => Event::Failed { replica: name, reason },
                }
            }
            Err(error) => Event::Failed { replica: name, reason: error.to_string() },
        }
    }

    /// Looks whether a template that has imported can be forked; its threads may need a moment to come to rest.
    pub(super) fn inspect(&mut self, id: TemplateId, import_ms: u64, python: String) {
        let Some(template) = self.templates.get_mut(&id) else { return };
        let (shown, given, sender) = (template.process.shown(), template.given.clone(), self.sender.clone());
        template.inspection = Some(Task::spawn(async move {
            let hazard = inspection::hazard(shown, given).await.map(|text| printable(&text));
            let import = Import { took_ms: import_ms, python, hazard };
            let _ = sender.send(Happening::TemplateInspected { template: id, import }).await;
        }));
    }

    pub(super) fn place(&mut self, name: ReplicaId, sender: Pid) -> Option<Event> {
        let is_anothers = self
            .replicas
            .values()
            .any(|one| one.name != name && one.process.as_ref().is_some_and(|p| p.pid() == sender));
        if is_anothers {
            tracing::warn!(replica = %name, pid = %sender, "a replica speaks for another");
            return None;
        }
        let group = self.group_name(self.replicas.get(&name)?.slot);
        let replica = self.replicas.get_mut(&name)?;
        let placed = match replica.template {
            // It was placed when it was started.
            None => match replica.admit(sender) {
                Ok(()) => return None,
                refused => refused,
            },
            Some(template) => {
                let parent = &self.templates.get(&template)?.process;
                match self.house.groups.as_ref().map(|groups| groups.group(&group)).transpose() {
                    Ok(group) => replica.place(sender, parent, group, &self.sender),
                    Err(error) => Err(PlaceError::Group(error)),
                }
            }
        };
        Some(match placed {
            Ok(()) => Event::Placed { pid: replica.shown_pid(), replica: name },
            Err(error) => {
                replica.kill();
                Event::Failed { replica: name, reason: error.to_string() }
            }
        })
    }

    fn group_name(&mut self, slot: Option<SlotIndex>) -> String {
        self.groups_made += 1;
        match slot {
            Some(slot) => format!("s{slot}-{}", self.groups_made),
            None => format!("spare-{}", self.groups_made),
        }
    }
}
