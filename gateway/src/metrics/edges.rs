//! Figures of the gateway's edges: connections that are refused, certificates, an issuer's keys.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Why a connection is closed before anything is asked on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionRefused {
    /// Its address has too many already.
    AddressFull,
    /// Its proxy did not say whose it is.
    ProxyHeader,
    /// Its caller does not speak TLS, or not with what we have.
    Tls,
    /// Its caller left in the handshake.
    TlsGone,
    TlsSlow,
}

impl ConnectionRefused {
    const ALL: [Self; 5] = [Self::AddressFull, Self::ProxyHeader, Self::Tls, Self::TlsGone, Self::TlsSlow];

    fn reason(self) -> &'static str {
        match self {
            Self::AddressFull => "address_full",
            Self::ProxyHeader => "proxy_header",
            Self::Tls => "tls",
            Self::TlsGone => "tls_gone",
            Self::TlsSlow => "tls_slow",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The figures.
#[derive(Default)]
pub(crate) struct Edges {
    pub(crate) connections_accepted: Counter,
    pub(crate) accept_failures: Counter,
    connections_refused: Family<ReasonLabels, Counter>,
    pub(crate) certificates_loaded: Counter,
    pub(crate) certificates_rejected: Counter,
    pub(crate) openid_keys_rejected: Counter,
}

impl Edges {
    pub(super) fn register(&self, registry: &mut Registry) {
        // A series that begins with its first event hides that event from every rate.
        for why in ConnectionRefused::ALL {
            let _ = self.connections_refused.get_or_create(&ReasonLabels { reason: why.reason() });
        }
        let accepted = "Connections of callers that were accepted";
        registry.register("connections_accepted", accepted, self.connections_accepted.clone());
        let failed = "Times no connection could be accepted, for want of descriptors or memory";
        registry.register("accept_failures", failed, self.accept_failures.clone());
        let refused = "Connections closed before anything was asked on them, by reason";
        registry.register("connections_refused", refused, self.connections_refused.clone());
        let loaded = "Times a changed TLS certificate was read";
        registry.register("certificates_loaded", loaded, self.certificates_loaded.clone());
        let unfit = "Times a changed TLS certificate was refused";
        registry.register("certificates_rejected", unfit, self.certificates_rejected.clone());
        let away = "Times the OpenID issuer's keys could not be had";
        registry.register("openid_keys_rejected", away, self.openid_keys_rejected.clone());
    }

    pub(crate) fn count_refused(&self, why: ConnectionRefused) {
        self.connections_refused.get_or_create(&ReasonLabels { reason: why.reason() }).inc();
    }
}
