//! The sockets of a process's network namespace, by the tables in `/proc/<pid>/net`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::procfs::ShownPid;

/// `TCP_LISTEN` and `TCP_CLOSE` of the kernel, and what `/proc/net/unix` calls connected.
const LISTEN: &str = "0A";
const CLOSE: &str = "07";
const UNIX_CONNECTED: &str = "03";
/// `__SO_ACCEPTCON`, in the flags of `/proc/net/unix`.
const UNIX_LISTENS: u32 = 0x1_0000;

/// What a socket is doing, with its peer's or its own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SocketState {
    Connected(String),
    Listening(String),
    Unconnected,
}

/// Every socket in the tables, by inode.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    states: BTreeMap<u64, SocketState>,
}

impl Sockets {
    pub(super) fn of(pid: ShownPid) -> Self {
        let mut all = Self::default();
        let table =
            |name: &str| fs::read_to_string(format!("/proc/{}/net/{name}", pid.0)).unwrap_or_default();
        for name in ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"] {
            all.add_internet(name, &table(name));
        }
        all.add_unix(&table("unix"));
        all
    }

    /// The kernel lists a socket when it is bound or connected; one that is not listed is neither.
    pub(super) fn state(&self, inode: u64) -> SocketState {
        self.states.get(&inode).cloned().unwrap_or(SocketState::Unconnected)
    }

    /// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
    fn add_internet(&mut self, kind: &str, table: &str) {
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, remote, state, _, _, _, _, _, inode, ..] = fields[..] else { continue };
            let Ok(inode) = inode.parse() else { continue };
            let named = |address| {
                let text = address_of(address).map_or_else(|| address.to_owned(), |a| a.to_string());
                format!("{kind} {text}")
            };
            let state = match state {
                LISTEN => SocketState::Listening(named(local)),
                CLOSE => SocketState::Unconnected,
                _ => SocketState::Connected(named(remote)),
            };
            self.states.insert(inode, state);
        }
    }

    /// `Num RefCount Protocol Flags Type St Inode Path`
    fn add_unix(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, flags, _, state, inode, ref path @ ..] = fields[..] else { continue };
            let Ok(inode) = inode.parse() else { continue };
            let named = format!("unix {}", path.first().unwrap_or(&"pair"));
            let listens = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UNIX_LISTENS != 0);
            let state = if listens {
                SocketState::Listening(named)
            } else if state == UNIX_CONNECTED {
                SocketState::Connected(named)
            } else {
                SocketState::Unconnected
            };
            self.states.insert(inode, state);
        }
    }
}

/// `0100007F:1F90`: words of four bytes as they lie in memory, then the port.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for k in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(k..k + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let mut sockets = Sockets::default();
        sockets.add_internet(
            "tcp",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1149 1 0 100 0 0 10 0\n\
             1: 0100007F:C001 0100007F:1538 01 00000000:00000000 00:00000000 00000000 0 0 1150 1 0 100 0 0 10 0\n",
        );
        sockets.add_unix(
            "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000055f2afa0: 00000003 00000000 00000000 0001 03 485460\n\
             0000000055f2afa1: 00000002 00000000 00010000 0001 01 485461 /run/x.sock\n",
        );
        assert_eq!(sockets.state(1149), SocketState::Listening("tcp 0.0.0.0:2024".into()));
        assert_eq!(sockets.state(1150), SocketState::Connected("tcp 127.0.0.1:5432".into()));
        assert_eq!(sockets.state(485_460), SocketState::Connected("unix pair".into()));
        assert_eq!(sockets.state(485_461), SocketState::Listening("unix /run/x.sock".into()));
        assert_eq!(sockets.state(7), SocketState::Unconnected);
    }
}
