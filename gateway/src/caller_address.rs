//! The address a request comes from: the socket's, or the one that a trusted proxy in front of it names.

use std::net::IpAddr;

use hyper::http::Extensions;

/// An extension of every request of a caller's, put there by whoever accepted its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallerAddress(pub(crate) IpAddr);

impl CallerAddress {
    /// Where this request comes from; the unspecified address when nobody has said.
    pub(crate) fn of(extensions: &Extensions) -> IpAddr {
        extensions.get().map_or(IpAddr::from([0, 0, 0, 0]), |Self(address)| *address)
    }
}
