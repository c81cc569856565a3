//! From an accepted socket to a connection that HTTP is spoken on: what a proxy says of it, a place for its address, the
//! handshake of TLS, the first bytes. All of it within the time for a first byte, and whatever fails is counted.

use std::{io, net::IpAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    addresses::{Addresses, Place},
    socket::Socket,
    wire::{Protocol, Stream, Wire},
};
use crate::{
    caller_address::{
        Proxies,
        proxy_header::{self, HeaderError},
    },
    metrics::{ConnectionRefused, Edges},
    tls::Tls,
};

/// What connections of a listener must pass.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) proxies: Proxies,
    pub(super) tls: Option<Tls>,
    pub(super) addresses: Addresses,
    pub(super) first_byte_max: Duration,
    pub(super) write_idle_max: Duration,
}

/// A connection whose caller has begun to speak.
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) protocol: Protocol,
    /// Whose it is.
    pub(super) address: IpAddr,
    /// None where one address brings many callers.
    pub(super) place: Option<Place>,
}

impl Door {
    /// Opens a connection from `peer`. None when it is not to be served.
    pub(super) async fn open(&self, mut tcp: TcpStream, peer: IpAddr, figures: &Edges) -> Option<Opened> {
        // Answers are written whole; waiting for more would only delay them.
        let _ = tcp.set_nodelay(true);
        let until = Instant::now() + self.first_byte_max;
        let address = self.address(&mut tcp, peer, until, figures).await?;
        let place = if self.proxies.is_http_proxy(address) {
            None
        } else {
            let place = self.addresses.enter(address);
            if place.is_none() {
                // One that has too many already learns it by the end of this one.
                figures.count_refused(ConnectionRefused::AddressFull);
                return None;
            }
            place
        };
        let socket = Socket::new(tcp, self.write_idle_max);
        let stream = match &self.tls {
            None => Stream::Plain(socket),
            Some(tls) => handshake(tls, socket, until, figures).await?,
        };
        let (wire, protocol) = timeout_at(until, Wire::open(stream)).await.ok()?.ok()?;
        Some(Opened { wire, protocol, address, place })
    }

    /// Whose connection it is.
    async fn address(
        &self,
        tcp: &mut TcpStream,
        peer: IpAddr,
        until: Instant,
        figures: &Edges,
    ) -> Option<IpAddr> {
        if !self.proxies.sends_proxy_header(peer) {
            return Some(peer);
        }
        let refused = match timeout_at(until, proxy_header::read(tcp)).await {
            Ok(Ok(source)) => return Some(source.unwrap_or(peer)),
            // It came and went: a check whether somebody listens.
            Ok(Err(HeaderError::Socket(_))) => return None,
            Ok(Err(malformed)) => malformed.to_string(),
            Err(_) => "it did not come in time".to_owned(),
        };
        figures.count_refused(ConnectionRefused::ProxyHeader);
        tracing::debug!(%peer, refused, "connection closed for want of a PROXY protocol header");
        None
    }
}

async fn handshake(tls: &Tls, socket: Socket, until: Instant, figures: &Edges) -> Option<Stream> {
    let refused = match timeout_at(until, tls.acceptor().accept(socket)).await {
        Ok(Ok(stream)) => return Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            match error.kind() {
                io::ErrorKind::InvalidData => ConnectionRefused::Tls,
                _ => ConnectionRefused::TlsGone,
            }
        }
        Err(_) => ConnectionRefused::TlsSlow,
    };
    figures.count_refused(refused);
    None
}
