//! Embeds CPython: the template that imports a function file and forks replicas, and the replica that runs its calls.
//!
//! The processes are described in `ARCHITECTURE.md`, their messages in [`millgate_contract::nursery`] (supervisor) and
//! [`millgate_contract::frame`] (gateways). Both are untrusted: whatever they send is hostile input to their peers, and
//! nothing secret comes here.
//!
//! | module | job |
//! | --- | --- |
//! | [`birth`] | what a process is given: specification, descriptors, command line |
//! | [`template`] | import, then fork when told |
//! | [`replica`] | from `Here` to exit |
//! | `serve`, `call` | the main thread: frames in, function, frames out |
//! | [`info`] | which Python this program was built for |
//! | `page` | what the supervisor is shown: times, and whose the lines are that are printed |
//! | `busy_poll` | how long to look for the next call before sleeping |
//! | `memory` | what is freed is kept for the next call |
//! | `policy` | how many calls a process is used for |
//! | `turns` | whose turn it is, where several gateways share a replica |
//! | `watcher`, `desk` | the thread without Python, and what both threads share |
//! | [`json`] | Python objects and JSON |
//! | `program`, `interpreter`, `bootstrap.py` | Python: start, file, function, event loop, tracked metrics |
#![allow(unsafe_code)]

#[doc(hidden)]
pub mod bench;
pub mod birth;
mod busy_poll;
mod call;
mod connection;
mod datagram;
mod desk;
mod fds;
pub mod info;
mod interpreter;
pub mod json;
mod log;
mod memory;
mod page;
mod policy;
mod program;
mod python_code;
pub mod replica;
mod running;
mod serve;
mod signals;
pub mod template;
mod turns;
mod watcher;
