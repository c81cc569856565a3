//! The plan against a small world of processes: whatever happens in whatever order, its invariants hold.

mod anything;
mod renewal;
mod replicas;
mod spares;
mod start_mode;
mod templates;
mod world;
