//! What a call costs: its stages one by one, with what they need made beforehand.
//!
//! `benches/stages.rs` times them, `benches/counts.rs` counts their instructions and allocations. Both call the
//! program's own code; nothing is imitated here but a replica that answers at once ([`replicas`]).
#![forbid(unsafe_code)]

pub mod issuer;
pub mod replicas;
pub mod stages;
