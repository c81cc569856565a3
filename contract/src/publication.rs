//! Gateway ↔ control API: how route snapshots are published and tracked metrics shipped. One Unix stream per gateway,
//! checked by `SO_PEERCRED`.
//!
//! Each message is a JSON line. A [`ToGateway::Snapshot`] line is followed by exactly `bytes` bytes, a sealed
//! [`crate::route::RouteSnapshot`], a [`FromGateway::Metrics`] line by `bytes` bytes of records ([`crate::tracked`]). A
//! gateway acknowledges each generation it routes by, or says why it does not, so that the control API knows which
//! gateways a change has reached.
//!
//! A line of a type that a side does not know is skipped. What is followed by bytes, or needs an answer, is only said to
//! a side whose `Hello` says that it understands it: the other one may be a version older.

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
        /// It has a spool, and understands [`ToGateway::Flush`].
        #[serde(default)]
        ships_metrics: bool,
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
    /// Tracked predictions follow this line, and no other batch until this one is kept.
    Metrics {
        /// Which batch of this connection.
        batch: u64,
        /// How many bytes follow, at most [`crate::limits::METRICS_BATCH_BYTES_MAX`].
        bytes: usize,
    },
    /// All that was on the spool when [`ToGateway::Flush`] came is kept.
    Flushed {
        /// Which.
        flush: u64,
    },
    /// Something a newer version says: skipped.
    #[serde(other)]
    Unknown,
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
        /// It understands [`FromGateway::Metrics`].
        #[serde(default)]
        takes_metrics: bool,
    },
    /// A snapshot follows this line.
    Snapshot {
        /// Its generation.
        generation: u64,
        /// How many bytes follow, at most [`crate::limits::ROUTE_SNAPSHOT_BYTES_MAX`].
        bytes: usize,
    },
    /// A batch of metrics is kept and need not be shipped again.
    Kept {
        /// Which.
        batch: u64,
    },
    /// Somebody reads metrics: ship now what is on the spool.
    Flush {
        /// Its number, for [`FromGateway::Flushed`].
        flush: u64,
    },
    /// Something a newer version says: skipped.
    #[serde(other)]
    Unknown,
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
                ships_metrics: true,
            },
            FromGateway::Acknowledged { generation: 12 },
            FromGateway::Rejected { generation: Some(13), reason: "checksum".into() },
            FromGateway::Connected { deployment: DeploymentId::new("d"), slots: 3 },
            FromGateway::Metrics { batch: 1, bytes: 300 },
            FromGateway::Flushed { flush: 7 },
        ];
        let to = [
            ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, version: "0.1.0".into(), takes_metrics: true },
            ToGateway::Snapshot { generation: 12, bytes: 1_000 },
            ToGateway::Kept { batch: 1 },
            ToGateway::Flush { flush: 7 },
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

    #[test]
    fn a_line_of_the_version_before_is_understood_and_one_of_the_next_is_skipped() {
        let hello = br#"{"type":"hello","protocol":1,"gateway":"gw","version":"0.1.0","generation":3}"#;
        let heard = line::decode::<FromGateway>(hello).unwrap();
        assert!(matches!(heard, FromGateway::Hello { generation: 3, ships_metrics: false, .. }));
        let hello = br#"{"type":"hello","protocol":1,"version":"0.1.0"}"#;
        let heard = line::decode::<ToGateway>(hello).unwrap();
        assert!(matches!(heard, ToGateway::Hello { takes_metrics: false, .. }));
        let newer = br#"{"type":"weather","degrees":[21]}"#;
        assert_eq!(line::decode::<FromGateway>(newer).unwrap(), FromGateway::Unknown);
        assert_eq!(line::decode::<ToGateway>(newer).unwrap(), ToGateway::Unknown);
    }
}
