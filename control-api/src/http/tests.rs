//! API v2 through its router, on a real store.

mod access;
mod flow;
mod lists;
mod metrics;
mod old;
mod people;
mod permissions;
mod profiles;
mod recorded;
mod uploads;
