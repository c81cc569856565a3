//! The decisions, by properties over random histories; and the reconciler with a real store, a launcher in memory and a
//! gateway on a real socket.

pub(crate) mod driver;
mod histories;
mod room;
mod space;
