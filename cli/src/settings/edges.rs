//! How callers reach a gateway: TLS, and the proxies in between. The sections `[tls]` and `[proxies]`.

use std::path::PathBuf;

use millgate_gateway::{ForwardedHeader, GatewayConfig, Network, Proxies, Tls, TlsFiles};
use serde::Deserialize;

use crate::failure::Failure;

/// What the file says of TLS.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsFile {
    certificate_file: PathBuf,
    key_file: PathBuf,
}

/// What the file says of proxies.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProxiesFile {
    #[serde(default)]
    proxy_protocol_networks: Vec<String>,
    #[serde(default)]
    http_networks: Vec<String>,
    header: Option<HeaderName>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HeaderName {
    XForwardedFor,
    Forwarded,
}

/// What gateways run by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edges {
    tls: Option<Tls>,
    proxies: Proxies,
}

impl Edges {
    /// Checks everything that can be wrong, certificate and key included.
    pub(super) fn check(tls: Option<TlsFile>, proxies: ProxiesFile) -> Result<Self, Failure> {
        let load = |file: TlsFile| {
            let TlsFile { certificate_file, key_file } = file;
            Tls::load(TlsFiles { certificate_file, key_file }).map_err(|error| {
                Failure::usage(format!("`[tls]`: {error}"))
                    .hint("give a certificate, those it leads to, and its key, all in PEM")
            })
        };
        Ok(Self {
            tls: tls.map(load).transpose()?,
            proxies: Proxies {
                proxy_protocol_networks: networks(
                    "proxy_protocol_networks",
                    &proxies.proxy_protocol_networks,
                )?,
                http_networks: networks("http_networks", &proxies.http_networks)?,
                header: match proxies.header {
                    None | Some(HeaderName::XForwardedFor) => ForwardedHeader::XForwardedFor,
                    Some(HeaderName::Forwarded) => ForwardedHeader::Forwarded,
                },
            },
        })
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A gateway's configuration with these.
    pub(crate) fn apply(&self, config: GatewayConfig) -> GatewayConfig {
        GatewayConfig { tls: self.tls.clone(), proxies: self.proxies.clone(), ..config }
    }
}

fn networks(name: &str, texts: &[String]) -> Result<Vec<Network>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error| {
            Failure::usage(format!("`{name}`: {error}"))
                .hint("list the networks of your own proxies, as in `[\"10.0.0.0/8\"]`")
        })
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(text: &str) -> Result<Edges, Failure> {
        Edges::check(None, toml::from_str(text).unwrap())
    }

    #[test]
    fn networks_are_read_and_what_is_none_is_named() {
        let edges = proxies("http_networks = ['10.0.0.0/8', '::1']\nheader = 'forwarded'\n").unwrap();
        assert_eq!(edges.proxies.http_networks.len(), 2);
        assert_eq!(edges.proxies.header, ForwardedHeader::Forwarded);
        let said = proxies("proxy_protocol_networks = ['10.1.0.0/8']").unwrap_err().to_string();
        assert!(said.contains("`proxy_protocol_networks`: `10.1.0.0/8`") && said.contains("hint:"), "{said}");
    }

    #[test]
    fn a_certificate_that_is_not_there_is_named() {
        let tls =
            TlsFile { certificate_file: "/nowhere/tls.crt".into(), key_file: "/nowhere/tls.key".into() };
        let said = Edges::check(Some(tls), ProxiesFile::default()).unwrap_err().to_string();
        assert!(
            said.contains("`[tls]`: `/nowhere/tls.crt` cannot be read") && said.contains("hint:"),
            "{said}"
        );
    }
}
