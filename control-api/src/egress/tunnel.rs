//! One connection of a build: its first request decides where it goes; what follows is carried both ways untouched.
//! A plain request is passed on in the form that its server knows, with `Connection: close`, so that one connection is
//! one server's.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
    sync::mpsc::Sender,
    time::timeout,
};

use super::{
    Told,
    rules::{Refusal, Rules, Scheme, Way},
};
use crate::config::HostPort;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEAD_WAIT: Duration = Duration::from_secs(30);

/// A request's head, as proxies get it.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    scheme: Scheme,
    host: String,
    port: u16,
    method: String,
    /// The whole URL, and what of it its server is told.
    url: String,
    path: String,
    /// Without those that are between the client and a proxy.
    headers: Vec<String>,
}

/// Carries it to its end.
pub(super) async fn carry(mut client: TcpStream, rules: &Rules, telling: &Sender<Told>) {
    let Ok(Ok(Some((head, rest)))) = timeout(HEAD_WAIT, read_head(&mut client)).await else {
        let _ = answer(&mut client, "400 Bad Request", "not a request to a proxy").await;
        return;
    };
    let place = format!("{}:{}", head.host, head.port);
    match rules.connect(&head.host, head.port, head.scheme).await {
        Ok(way) => {
            let _ = telling.send(Told::Reached(place)).await;
            // Either side may break off: that is theirs to tell each other.
            let _ = pass_on(client, way, &head, &rest).await;
        }
        Err(refusal) => {
            let status = match refusal {
                Refusal::Forbidden { .. } => "403 Forbidden",
                Refusal::Unreachable { .. } => "502 Bad Gateway",
            };
            let _ = telling.send(Told::Refused(refusal.to_string())).await;
            let _ = answer(&mut client, status, &format!("the network of builds: {refusal}")).await;
        }
    }
}

async fn pass_on(mut client: TcpStream, way: Way, head: &Head, rest: &[u8]) -> io::Result<()> {
    let (mut server, request) = match (way, head.scheme) {
        (Way::Direct(server) | Way::Proxy(server, _), Scheme::Tunnel) => {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            (server, String::new())
        }
        (Way::Direct(server), Scheme::Plain) => (server, head.written(&head.path, None)),
        (Way::Proxy(server, authorization), Scheme::Plain) => {
            (server, head.written(&head.url, authorization.as_deref()))
        }
    };
    server.write_all(request.as_bytes()).await?;
    server.write_all(rest).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn answer(client: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let body = format!("{text}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}

/// The head, and what came behind it.
async fn read_head(client: &mut TcpStream) -> io::Result<Option<(Head, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(std::str::from_utf8(&bytes).ok().and_then(Head::parse).map(|head| (head, rest)));
        }
        if bytes.len() > HEAD_BYTES_MAX || client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

impl Head {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, url, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") || words.next().is_some() {
            return None;
        }
        let (scheme, place, path) = if method == "CONNECT" {
            (Scheme::Tunnel, url, String::new())
        } else {
            let rest = url.strip_prefix("http://")?;
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let path = if rest[end..].starts_with('/') {
                rest[end..].to_owned()
            } else {
                format!("/{}", &rest[end..])
            };
            (Scheme::Plain, &rest[..end], path)
        };
        let HostPort { host, port } = HostPort::parse(place)?;
        let of_proxies = ["connection", "proxy-connection", "proxy-authorization", "keep-alive"];
        let headers = lines
            .filter(|line| !line.is_empty())
            .filter(|line| {
                let name = line.split(':').next().unwrap_or_default().trim().to_lowercase();
                !of_proxies.contains(&name.as_str())
            })
            .map(str::to_owned)
            .collect();
        let port = port.unwrap_or(if scheme == Scheme::Tunnel { 443 } else { 80 });
        let (method, url) = (method.to_owned(), url.to_owned());
        Some(Self { scheme, host, port, method, url, path, headers })
    }

    fn written(&self, target: &str, authorization: Option<&str>) -> String {
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}"));
        for header in self.headers.iter().chain(&authorization) {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text + "Connection: close\r\n\r\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_to_a_proxy_becomes_one_to_its_server() {
        let text = "GET http://index.example.org:81?x=1 HTTP/1.1\r\nHost: index.example.org:81\r\n\
                    Proxy-Authorization: Basic eA==\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n";
        let head = Head::parse(text).unwrap();
        assert_eq!((head.host.as_str(), head.port, head.scheme), ("index.example.org", 81, Scheme::Plain));
        assert_eq!(
            head.written(&head.path, None),
            "GET /?x=1 HTTP/1.1\r\nHost: index.example.org:81\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let tunnel = Head::parse("CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!((tunnel.host.as_str(), tunnel.port), ("2001:db8::1", 443));
    }

    #[test]
    fn what_is_no_request_to_a_proxy_is_none() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET ftp://x/ HTTP/1.1\r\n\r\n",
            "CONNECT HTTP/1.1\r\n\r\n",
            "CONNECT a:b HTTP/1.1\r\n\r\n",
            "GET http://a b HTTP/1.1\r\n\r\n",
            "GET http:// HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(Head::parse(text), None, "{text:?}");
        }
    }
}
