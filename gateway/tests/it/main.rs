//! The gateway against real sockets: callers over TCP on one side, replicas and a supervisor over Unix sockets on the
//! other. The replicas here speak the contract's frames and misbehave on command; real ones are tested from `cli`.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod act;
mod admission;
mod ahead;
mod answers;
mod callers;
mod deployed;
mod descriptors;
mod dice;
mod double;
mod endings;
mod faults;
mod fleet;
mod framing;
mod gate;
mod hang_ups;
mod house;
mod http;
mod http2;
mod observed;
mod openid;
mod proof;
mod proxies;
mod publication;
mod routes;
mod simulation;
mod spans;
mod tls;
mod tracked;
mod turns;
