//! What a process has open that forked siblings must not share.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::sockets::{SocketState, Sockets};
use crate::procfs::{self, ShownPid};

/// Devices without a state.
const HARMLESS: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// What the devices of graphics processors begin with.
const GPU: [&str; 4] = ["/dev/nvidia", "/dev/dri/", "/dev/kfd", "/dev/accel"];

/// One open descriptor.
#[derive(Debug)]
struct Open {
    /// What `/proc/<pid>/fd` says it is.
    target: String,
    is_writable: bool,
    /// Where in the file it is.
    position: u64,
}

/// The first thing found that speaks against a fork.
pub(super) fn hazard(pid: ShownPid, given: &BTreeSet<u64>) -> io::Result<Option<String>> {
    let mut sockets = None;
    for entry in fs::read_dir(format!("/proc/{}/fd", pid.0))? {
        let entry = entry?;
        // A thread may have closed it meanwhile.
        let Some(open) = read(pid, &entry.path()) else { continue };
        let found = match inode(&open.target, "socket:[") {
            Some(inode) if given.contains(&inode) => None,
            Some(inode) => {
                let state = sockets.get_or_insert_with(|| Sockets::of(pid)).state(inode);
                describe_socket(state)
            }
            None => describe(&open, given),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn read(pid: ShownPid, link: &Path) -> Option<Open> {
    let target = fs::read_link(link).ok()?.to_string_lossy().into_owned();
    let number = link.file_name()?.to_str()?;
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", pid.0)).ok()?;
    let flags = i32::from_str_radix(procfs::field(&info, "flags:")?, 8).ok()?;
    let position = procfs::field(&info, "pos:")?.parse().ok()?;
    Some(Open { target, is_writable: flags & libc::O_ACCMODE != libc::O_RDONLY, position })
}

fn inode(target: &str, kind: &str) -> Option<u64> {
    target.strip_prefix(kind)?.strip_suffix(']')?.parse().ok()
}

fn describe_socket(state: SocketState) -> Option<String> {
    match state {
        SocketState::Connected(what) => Some(format!("a connection is open after import ({what})")),
        SocketState::Listening(what) => Some(format!("a socket listens after import ({what})")),
        SocketState::Unconnected => None,
    }
}

fn describe(open: &Open, given: &BTreeSet<u64>) -> Option<String> {
    let target = open.target.as_str();
    if let Some(pipe) = inode(target, "pipe:[") {
        return (!given.contains(&pipe)).then(|| "a pipe is open after import".to_owned());
    }
    if let Some(kind) = target.strip_prefix("anon_inode:") {
        let kind = kind.trim_matches(['[', ']']);
        // A pidfd only names a process.
        return (kind != "pidfd").then(|| format!("an {kind} is open after import"));
    }
    if GPU.iter().any(|device| target.starts_with(device)) {
        return Some(format!("a GPU is in use after import (`{target}`)"));
    }
    if HARMLESS.contains(&target) {
        return None;
    }
    if open.is_writable {
        return Some(format!("`{target}` is open for writing after import"));
    }
    // Opened and not read yet, or read by mapping: nothing that siblings could move for each other.
    (open.position > 0).then(|| format!("`{target}` is being read after import"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream, UdpSocket},
        os::{
            fd::{AsRawFd, FromRawFd, OwnedFd},
            unix::net::UnixStream,
        },
    };

    use super::*;

    /// What is said of one descriptor of this process.
    fn of(fd: &impl AsRawFd) -> Option<String> {
        let pid = procfs::own_pid().unwrap();
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let open = read(pid, Path::new(&link)).unwrap();
        match inode(&open.target, "socket:[") {
            Some(inode) => describe_socket(Sockets::of(pid).state(inode)),
            None => describe(&open, &BTreeSet::new()),
        }
    }

    #[test]
    fn sockets_that_siblings_would_share_are_found_and_others_pass() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(of(&listener).unwrap().contains("a socket listens"), "{:?}", of(&listener));
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let text = of(&stream).unwrap();
        assert!(text.contains(&format!("tcp 127.0.0.1:{}", listener.local_addr().unwrap().port())), "{text}");
        let (one, _two) = UnixStream::pair().unwrap();
        assert!(of(&one).unwrap().contains("a connection is open"));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(of(&datagrams), None);
        datagrams.connect("127.0.0.1:9").unwrap();
        assert!(of(&datagrams).unwrap().contains("udp 127.0.0.1:9"));
    }

    #[test]
    fn files_that_siblings_would_share_are_found_and_others_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut written = fs::File::create(&path).unwrap();
        written.write_all(b"text").unwrap();
        assert!(of(&written).unwrap().ends_with("is open for writing after import"));
        let mut file = fs::File::open(&path).unwrap();
        assert_eq!(of(&file), None);
        file.read_exact(&mut [0]).unwrap();
        assert!(of(&file).unwrap().ends_with("is being read after import"));
        assert_eq!(of(&fs::File::options().write(true).open("/dev/null").unwrap()), None);
        let (_reader, writer) = io::pipe().unwrap();
        assert_eq!(of(&writer).as_deref(), Some("a pipe is open after import"));
        // SAFETY: makes a new descriptor.
        let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        assert_eq!(of(&epoll).as_deref(), Some("an eventpoll is open after import"));
    }

    #[test]
    fn a_graphics_processor_is_told_by_its_device() {
        let open = Open { target: "/dev/nvidia0".into(), is_writable: true, position: 0 };
        assert_eq!(
            describe(&open, &BTreeSet::new()).as_deref(),
            Some("a GPU is in use after import (`/dev/nvidia0`)")
        );
    }
}
