//! Proxies of this host's own surroundings: what reaches the outside only through one, builds reach through it as well,
//! and its password stays here.

use std::{collections::BTreeMap, io};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rules::Scheme;
use crate::config::HostPort;

/// Bytes of a proxy's answer to `CONNECT`.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({}:{})", self.host, self.port)
    }
}

/// Which hosts are reached through which proxy.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    plain: Option<Upstream>,
    tunnel: Option<Upstream>,
    except: Vec<String>,
}

impl Upstreams {
    /// From the usual variables, in either case.
    pub(crate) fn of(variables: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| {
            let found = variables.get(name).or_else(|| variables.get(&name.to_uppercase()));
            found.map(String::as_str).filter(|text| !text.is_empty())
        };
        let any = value("all_proxy");
        let proxy = |name| value(name).or(any).and_then(parse);
        let except = value("no_proxy").unwrap_or_default();
        Self {
            plain: proxy("http_proxy"),
            tunnel: proxy("https_proxy").or_else(|| variables.get("PIP_PROXY").and_then(|text| parse(text))),
            except: except
                .split(',')
                .map(|one| one.trim().to_lowercase())
                .filter(|one| !one.is_empty())
                .collect(),
        }
    }

    pub(super) fn to(&self, host: &str, scheme: Scheme) -> Option<&Upstream> {
        let host = host.to_lowercase();
        let is_except = self.except.iter().any(|one| {
            let suffix = one.trim_start_matches("*.").trim_start_matches('.');
            one == "*" || host == suffix || host.ends_with(&format!(".{suffix}"))
        });
        let upstream = if scheme == Scheme::Plain { &self.plain } else { &self.tunnel };
        upstream.as_ref().filter(|_| !is_except)
    }
}

/// `[http://][user:password@]host[:port]`. Proxies that are spoken to over TLS, and SOCKS, are not known.
fn parse(url: &str) -> Option<Upstream> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => {
            tracing::warn!("builds use no proxy that is not of the form `http://host:port`");
            return None;
        }
        None => url,
    };
    let rest = rest.split('/').next().unwrap_or_default();
    let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
    let HostPort { host, port } = HostPort::parse(place)?;
    let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(decoded(login))));
    Some(Upstream { host, port: port.unwrap_or(80), authorization })
}

/// Undoes `%40` and its like.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let byte = (*first == b'%')
            .then(|| {
                more.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())
            })
            .flatten();
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    bytes
}

/// Connects to the proxy and, for a tunnel, has it connect further.
pub(super) async fn reach(to: &Upstream, host: &str, port: u16, scheme: Scheme) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
    if scheme == Scheme::Plain {
        return Ok(stream);
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authorization = to.authorization.iter().map(|value| format!("Proxy-Authorization: {value}\r\n"));
    let request = format!(
        "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{}\r\n",
        authorization.collect::<String>()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head is not ours.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        return Ok(stream);
    }
    Err(io::Error::other(format!("the proxy answers {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(variables: &[(&str, &str)]) -> Upstreams {
        Upstreams::of(&variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn proxies_are_those_of_the_usual_variables_and_their_passwords_stay_unsaid() {
        let found = upstreams(&[
            ("HTTPS_PROXY", "http://me:p%40ss@proxy.example.org:3129/"),
            ("http_proxy", "proxy.example.org"),
            ("no_proxy", "localhost, .corp.example.org"),
        ]);
        let tunnel = found.to("pypi.org", Scheme::Tunnel).unwrap();
        assert_eq!((tunnel.host.as_str(), tunnel.port), ("proxy.example.org", 3129));
        assert_eq!(tunnel.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(found.to("pypi.org", Scheme::Plain).unwrap().port, 80);
        assert!(!format!("{found:?}").contains("bWU6"));
        for host in ["localhost", "index.corp.example.org", "corp.example.org"] {
            assert_eq!(found.to(host, Scheme::Tunnel), None, "{host}");
        }
        assert!(upstreams(&[("https_proxy", "socks5://x:1")]).to("a", Scheme::Tunnel).is_none());
    }
}
