//! Where a build may connect. Pure decisions over names and addresses; [`Rules::connect`] resolves a name once and
//! connects to an address that was judged, so that a name cannot mean one thing to the judge and another to the socket.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use millgate_contract::spec::Outlet;
use nix::ifaddrs::getifaddrs;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    PORT, installer,
    upstream::{self, Upstreams},
};
use crate::config::{BuildNetwork, ControlConfig, HostPort};

/// A host that does not answer is given up after this.
const CONNECT_WAIT: Duration = Duration::from_secs(15);

/// Why a connection is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It may not be.
    #[error("{host}: {reason}")]
    Forbidden { host: String, reason: &'static str },
    /// It cannot be.
    #[error("{host} cannot be reached: {source}")]
    Unreachable { host: String, source: io::Error },
}

/// Where builds of this server may connect.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) network: BuildNetwork,
    /// Reached whatever their addresses are.
    pub(crate) allowed: Vec<HostPort>,
    /// What callers of this server use.
    pub(crate) own_name: String,
    pub(crate) upstreams: Upstreams,
}

/// The two kinds of requests that proxies know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Passed on request by request.
    Plain,
    /// `CONNECT`.
    Tunnel,
}

/// A connection, and what is at its other end.
pub(super) enum Way {
    Direct(TcpStream),
    /// A proxy that takes this request itself; with the header that it asks of us.
    Proxy(TcpStream, Option<String>),
}

impl Rules {
    /// As this server is configured.
    pub(crate) fn of(config: &ControlConfig) -> Self {
        let own_name = config.domain.rsplit_once(':').map_or(config.domain.as_str(), |(host, _)| host);
        let mut allowed = installer::index_hosts(&config.build_environment);
        allowed.extend(config.build_hosts.iter().cloned());
        Self {
            network: config.build_network,
            allowed,
            own_name: own_name.to_owned(),
            upstreams: Upstreams::of(&config.build_environment),
        }
    }

    /// The way out of a step's network, if it is to have one; its variables take the place of proxies that only this
    /// server reaches.
    pub(crate) fn outlet(&self) -> Option<Outlet> {
        if self.network == BuildNetwork::None {
            return None;
        }
        let proxy = format!("http://127.0.0.1:{PORT}");
        let names =
            ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "PIP_PROXY"];
        let mut environment: BTreeMap<String, String> =
            names.into_iter().map(|name| (name.to_owned(), proxy.clone())).collect();
        // A loopback is the script's own, but for an index on this host's.
        let own = ["localhost", "127.0.0.1", "::1"].into_iter().filter(|host| !self.names(host));
        let own = own.collect::<Vec<_>>().join(",");
        for name in ["no_proxy", "NO_PROXY"] {
            environment.insert(name.to_owned(), own.clone());
        }
        Some(Outlet { port: PORT, environment })
    }

    /// True of a host that is reached whatever its address is.
    fn names(&self, host: &str) -> bool {
        self.allowed.iter().any(|one| one.host.eq_ignore_ascii_case(host))
    }

    /// Connects to `host`, or to the proxy that leads there.
    pub(super) async fn connect(&self, host: &str, port: u16, scheme: Scheme) -> Result<Way, Refusal> {
        let is_named = self.allowed.iter().any(|one| one.covers(host, port));
        let forbidden = |reason| Refusal::Forbidden { host: format!("{host}:{port}"), reason };
        if self.network == BuildNetwork::Listed && !is_named {
            return Err(forbidden("not among `allowed_hosts` nor the package index of this server"));
        }
        let unreachable = |source| Refusal::Unreachable { host: format!("{host}:{port}"), source };
        let resolved = timeout(CONNECT_WAIT, lookup_host((host, port)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map(Iterator::collect::<Vec<_>>);
        if !is_named {
            if host.eq_ignore_ascii_case(&self.own_name) {
                return Err(forbidden("this server"));
            }
            let own = own_addresses();
            for address in resolved.iter().flatten() {
                judge(address.ip(), &own).map_err(forbidden)?;
            }
        }
        if let Some(upstream) = self.upstreams.to(host, scheme) {
            // Names may be known only there.
            let stream = upstream::reach(upstream, host, port, scheme).await.map_err(unreachable)?;
            return Ok(match scheme {
                Scheme::Tunnel => Way::Direct(stream),
                Scheme::Plain => Way::Proxy(stream, upstream.authorization.clone()),
            });
        }
        first_that_answers(&resolved.map_err(unreachable)?).await.map(Way::Direct).map_err(unreachable)
    }
}

async fn first_that_answers(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The addresses of this host's interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
        })
        .collect()
}

/// Why this address is out of reach.
fn judge(address: IpAddr, own: &[IpAddr]) -> Result<(), &'static str> {
    let address = embedded(address);
    if own.contains(&address) {
        return Err("an address of this server");
    }
    let is_metadata = match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::new(100, 100, 100, 200) || v4 == Ipv4Addr::new(168, 63, 129, 16),
        IpAddr::V6(v6) => v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    };
    if is_metadata {
        return Err("a metadata service");
    }
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_nowhere = match address {
        // 0.0.0.0/8 is this host to some kernels.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    match address {
        _ if address.is_loopback() => Err("a loopback address"),
        _ if is_local => Err("a link-local address"),
        _ if is_nowhere || address.is_multicast() => Err("not the address of one host"),
        _ => Ok(()),
    }
}

/// The IPv4 address in an IPv6 one: mapped, compatible, behind NAT64 or 6to4.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let part = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::from([a, b, c, d])
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => part(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => part(high, low),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_of_the_inside_is_let_through_in_any_disguise() {
        let own = ["192.0.2.2".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        for (address, reason) in [
            ("127.0.0.1", "loopback"),
            ("127.8.9.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("0.0.0.0", "not the address"),
            ("0.1.2.3", "not the address"),
            ("::", "not the address"),
            ("255.255.255.255", "not the address"),
            ("224.0.0.1", "not the address"),
            ("ff02::1", "not the address"),
            ("169.254.169.254", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("100.100.100.200", "metadata"),
            ("168.63.129.16", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("192.0.2.2", "this server"),
            ("::ffff:192.0.2.2", "this server"),
            ("2001:db8::7", "this server"),
        ] {
            let refused = judge(address.parse().unwrap(), &own).unwrap_err();
            assert!(refused.contains(reason), "{address}: {refused}");
        }
        for address in ["203.0.113.80", "10.1.2.3", "2001:db8::8", "192.0.2.3"] {
            judge(address.parse().unwrap(), &own).unwrap();
        }
    }

    fn rules(network: BuildNetwork, allowed: &[&str]) -> Rules {
        Rules {
            network,
            allowed: allowed.iter().map(|one| HostPort::parse(one).unwrap()).collect(),
            own_name: "models.example.org".into(),
            upstreams: Upstreams::default(),
        }
    }

    #[tokio::test]
    async fn names_of_this_server_are_refused_and_listed_ones_are_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = rules(BuildNetwork::Internet, &[]);
        for host in ["localhost", "127.0.0.1", "models.example.org", "MODELS.example.org"] {
            let refused = open.connect(host, port, Scheme::Tunnel).await.err().unwrap();
            assert!(matches!(refused, Refusal::Forbidden { .. }), "{host}: {refused}");
        }
        let named = rules(BuildNetwork::Internet, &[&format!("127.0.0.1:{port}")]);
        assert!(named.connect("127.0.0.1", port, Scheme::Plain).await.is_ok());
        assert!(named.connect("localhost", port, Scheme::Plain).await.is_err());
        assert!(named.connect("127.0.0.1", port ^ 1, Scheme::Plain).await.is_err());
        let listed = rules(BuildNetwork::Listed, &["127.0.0.1"]);
        assert!(listed.connect("127.0.0.1", port, Scheme::Plain).await.is_ok());
        let refused = listed.connect("203.0.113.80", 443, Scheme::Tunnel).await.err().unwrap().to_string();
        assert!(refused.contains("allowed_hosts"), "{refused}");
    }
}
