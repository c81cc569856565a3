//! Gateway ↔ control API: how route snapshots are published. One Unix stream per gateway, checked by `SO_PEERCRED`.
//!
//! Each message is a JSON line; a [`ToGateway::Snapshot`] line is followed by exactly `bytes` bytes, a sealed
//! [`crate::route::RouteSnapshot`]. A gateway acknowledges each generation it routes by, or says why it does not, so
//! that the control API knows which gateways a change has reached.

use serde::{Deserialize, Serialize};

/// The version of these messages.
pub const PUBLICATION_PROTOCOL: u16 = 1;
/// The control API's socket for gateways, in its data directory.
pub const PUBLICATION_SOCKET: &str = "gateways.sock";

/// Gateway to control API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGateway {
    /// First: who speaks.
    Hello {
        /// [`PUBLICATION_PROTOCOL`].
        protocol: u16,
        /// The gateway's own name for itself.
        gateway: String,
        /// The program's version.
        version: String,
        /// The generation it routes by, 0 without one.
        generation: u64,
    },
    /// This generation is routed by from now on.
    Acknowledged {
        /// Which.
        generation: u64,
    },
    /// This one is not; the old one stays.
    Rejected {
        /// Which, where it could be read.
        generation: Option<u64>,
        /// Why.
        reason: String,
    },
    /// A slot of this deployment is connected and served a `Hello`: a call would be served now.
    Connected {
        /// Which deployment.
        deployment: crate::ids::DeploymentId,
        /// How many of its slots.
        slots: u16,
    },
}

/// Control API to gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    /// First: who answers.
    Hello {
        /// [`PUBLICATION_PROTOCOL`].
        protocol: u16,
        /// The program's version.
        version: String,
    },
    /// A snapshot follows this line.
    Snapshot {
        /// Its generation.
        generation: u64,
        /// How many bytes follow, at most [`crate::limits::ROUTE_SNAPSHOT_BYTES_MAX`].
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::DeploymentId, line};

    #[test]
    fn each_message_has_its_line() {
        let from = [
            FromGateway::Hello {
                protocol: PUBLICATION_PROTOCOL,
                gateway: "gw".into(),
                version: "0.1.0".into(),
                generation: 0,
            },
            FromGateway::Acknowledged { generation: 12 },
            FromGateway::Rejected { generation: Some(13), reason: "checksum".into() },
            FromGateway::Connected { deployment: DeploymentId::new("d"), slots: 3 },
        ];
        let to = [
            ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, version: "0.1.0".into() },
            ToGateway::Snapshot { generation: 12, bytes: 1_000 },
        ];
        let mut lines = String::new();
        for message in &from {
            let bytes = line::encode(message);
            assert_eq!(&line::decode::<FromGateway>(&bytes).unwrap(), message);
            lines.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        for message in &to {
            let bytes = line::encode(message);
            assert_eq!(&line::decode::<ToGateway>(&bytes).unwrap(), message);
            lines.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        insta::assert_snapshot!(lines);
    }
}
