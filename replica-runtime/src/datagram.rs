//! JSON datagrams on a `SOCK_SEQPACKET` socket, with descriptors beside them.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use millgate_contract::{limits, line, nursery::FORK_DESCRIPTORS};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use serde::Serialize;

/// Sends one message.
pub(crate) fn send_message(socket: &OwnedFd, message: &impl Serialize) -> io::Result<()> {
    let bytes = line::encode(message);
    loop {
        match send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(nix::Error::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// One datagram and what came with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Waits for one datagram; `None` at the end of the peer.
pub(crate) fn receive(socket: &OwnedFd) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; limits::MESSAGE_BYTES_MAX];
    let mut control = nix::cmsg_space!([RawFd; FORK_DESCRIPTORS]);
    let (length, raw) = loop {
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(message) => {
                let mut raw = Vec::new();
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(fds) = part {
                        raw.extend(fds);
                    }
                }
                break (message.bytes, raw);
            }
        }
    };
    // SAFETY: the kernel has just installed them for this process, and nobody else knows of them.
    let descriptors = raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();
    bytes.truncate(length);
    Ok((length > 0).then_some(Received { bytes, descriptors }))
}
