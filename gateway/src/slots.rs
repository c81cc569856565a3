//! Slots: the deployments a gateway routes to, the connections it keeps to their replicas, and what their supervisors
//! say of them.

pub(crate) mod ahead;
pub(crate) mod deaths;
pub(crate) mod deployment;
mod keeper;
pub(crate) mod link;
pub(crate) mod usage;
mod watch;
