//! What a plan is told and what it says: its whole interface.

use millgate_contract::{
    ids::{CallId, ReplicaId, SlotIndex},
    supervision::{DeploymentReport, SlotReport},
};

use super::TemplateId;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time passed; something was due.
    Due,
    /// A template has imported the file.
    Imported { template: TemplateId, import: Import },
    /// It has not, and says why; or it could not be started at all.
    ImportFailed { template: TemplateId, reason: String },
    /// Its pidfd says it has ended.
    TemplateDied { template: TemplateId },
    /// A forked child is known and placed; its pid in the starter's namespace.
    Placed { replica: ReplicaId, pid: Option<u32> },
    /// A spare is set up and waits for a slot.
    Warm { replica: ReplicaId },
    /// A replica serves.
    Ready { replica: ReplicaId, example_response: Option<String> },
    /// A replica could not start, or could not be forked or placed.
    Failed { replica: ReplicaId, reason: String },
    /// A replica has closed its listener and is ending.
    Leaving { replica: ReplicaId, reason: String },
    /// A replica's pidfd says it has ended, or nobody holds the channel of a child never placed.
    Died { replica: ReplicaId },
    /// A replica has answered its first call.
    Answered { replica: ReplicaId },
    /// How much memory of its own a replica uses.
    Memory { replica: ReplicaId, bytes: u64 },
    /// How a replica ended, when that becomes known: for people.
    Exited { replica: ReplicaId, status: String },
    /// A gateway's call ran past its deadline.
    Expired { slot: SlotIndex, replica: ReplicaId, call: CallId },
    /// Whether any peer is connected: a gateway that uses the slots, or a control API that claims them.
    Peers { is_any: bool },
    /// Import anew, then replace the replicas one after another.
    Restart,
    /// End everything.
    Stop { grace_ms: u64 },
}

/// An import that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) took_ms: u64,
    /// Python's version.
    pub(crate) python: String,
    /// What was seen of the process that makes forking it unsafe.
    pub(crate) hazard: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell every peer about a slot.
    ReportSlot(SlotReport),
    /// Tell every peer about the deployment.
    ReportDeployment(DeploymentReport),
    /// Start a template.
    StartTemplate(TemplateId),
    /// Kill a template.
    EndTemplate(TemplateId),
    /// Tell a template to fork a replica for a slot.
    Fork { template: TemplateId, slot: SlotIndex, replica: ReplicaId },
    /// Tell a template to fork a replica without a slot.
    ForkSpare { template: TemplateId, replica: ReplicaId },
    /// Start a replica without a slot afresh.
    SpawnSpare { replica: ReplicaId },
    /// Tell a spare to serve in a slot.
    Serve { slot: SlotIndex, replica: ReplicaId },
    /// Start a replica afresh.
    Spawn { slot: SlotIndex, replica: ReplicaId },
    /// Ask a replica to end: it finishes its running call.
    Terminate(ReplicaId),
    /// Kill a replica and all its descendants.
    Kill(ReplicaId),
    /// A replica is dead: kill what it left behind and forget it.
    Bury(ReplicaId),
    /// Write a line for people into the deployment's log.
    Note { replica: Option<ReplicaId>, text: String },
    /// Kill everything, remove everything, end.
    Finish,
}
