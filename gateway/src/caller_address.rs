//! The address a request comes from: the socket's, or the one that a proxy in front of it names.
//!
//! | module | job |
//! | --- | --- |
//! | `network` | whose word is taken: addresses by prefix |
//! | `proxy_header` | what a proxy says of a connection before its first byte (PROXY protocol); pure |
//! | `forwarded` | what proxies say of a request in its head; pure |
//!
//! Only configured networks are believed, and of a list that proxies have added to, only what was added by them.

mod forwarded;
mod network;
pub(crate) mod proxy_header;

use std::net::IpAddr;

use hyper::{HeaderMap, http::Extensions};

pub use forwarded::ForwardedHeader;
pub use network::{Network, NetworkError};

/// An extension of every request of a caller's that is not a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerAddress(pub IpAddr);

impl CallerAddress {
    /// Where this request comes from; the unspecified address when nobody has said.
    pub fn of(extensions: &Extensions) -> IpAddr {
        extensions.get().map_or(IpAddr::from([0, 0, 0, 0]), |Self(address)| *address)
    }
}

/// Whose word is taken for where a caller is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies {
    /// Whoever connects from there must begin with a PROXY protocol header, version 1 or 2, and nobody else may.
    pub proxy_protocol_networks: Vec<Network>,
    /// HTTP proxies: what they say in [`Proxies::header`] is where a request comes from. Their connections are many
    /// callers', so that the places one address may take do not bound them.
    pub http_networks: Vec<Network>,
    /// Where HTTP proxies say it.
    pub header: ForwardedHeader,
}

impl Proxies {
    pub(crate) fn sends_proxy_header(&self, peer: IpAddr) -> bool {
        contains(&self.proxy_protocol_networks, peer)
    }

    pub(crate) fn is_http_proxy(&self, address: IpAddr) -> bool {
        contains(&self.http_networks, address)
    }

    /// Where a request comes from that `address` brings.
    pub(crate) fn caller(&self, address: IpAddr, headers: &HeaderMap) -> CallerAddress {
        let mut caller = address;
        let mut hops = self.header.hops(headers);
        while self.is_http_proxy(caller) {
            match hops.pop() {
                Some(Some(before)) => caller = before,
                // Nothing more is said, or nothing that is an address: the last who is known is as far as it goes.
                Some(None) | None => break,
            }
        }
        CallerAddress(caller)
    }
}

fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests;
