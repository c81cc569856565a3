//! What an administrator says of the network of builds.

use std::fmt;

/// What builds reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuildNetwork {
    /// Everything but this server, link-local and metadata addresses.
    #[default]
    Internet,
    /// The package index of this host and what is listed.
    Listed,
    /// Nothing: packages come from local wheels.
    None,
}

/// A host, at a port or at any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// None is any.
    pub port: Option<u16>,
}

impl HostPort {
    /// Reads `host`, `host:port`, `[address]` and `[address]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_plain) {
            return None;
        }
        let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or(())).transpose().ok()?;
        Some(Self { host: host.to_owned(), port })
    }

    /// True of a connection to it.
    pub(crate) fn covers(&self, host: &str, port: u16) -> bool {
        self.host.eq_ignore_ascii_case(host) && self.port.is_none_or(|own| own == port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        if host.contains(':') {
            write!(f, "[{host}]")?;
        } else {
            f.write_str(host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for text in ["a", "a.example.org:443", "127.0.0.1", "[2001:db8::1]", "[2001:db8::1]:8080"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", ":1", "a:", "a:0", "a:65536", "a b", "a\r\nb", "[x]:1", "[::1]1", "2001:db8::1", "a/b", "ü"]
        {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }
}
