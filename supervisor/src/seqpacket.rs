//! One end of a `SOCK_SEQPACKET` pair, as template and replica are spoken to. The other side is hostile: what it
//! sends is bounded, descriptors it sends are never taken, and the kernel says who sent it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
        sendmsg, setsockopt, socketpair, sockopt,
    },
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Our end.
#[derive(Debug)]
pub(crate) struct Seqpacket {
    fd: AsyncFd<OwnedFd>,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Received {
    /// A whole message of this many bytes, and who sent it, in our PID namespace.
    Message { bytes: usize, sender: Pid },
    /// A message longer than the buffer, or with descriptors, which nobody asked for; it is lost.
    Unfit,
    /// Nobody holds the other end.
    End,
}

impl Seqpacket {
    /// Our end, and the one to give away.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&ours, sockopt::PassCred, &true)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { fd: sys::watched(ours)? }, theirs))
    }

    /// Sends one message at once or not at all. A peer that does not read is not waited for.
    pub(crate) fn send(&self, message: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &[IoSlice::new(message)], control, flags, None)?;
        Ok(())
    }

    /// Waits for the next message.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            let mut guard = self.fd.readable().await?;
            if let Ok(result) = guard.try_io(|fd| receive_now(fd.as_raw_fd(), buffer)) {
                return result;
            }
        }
    }

    /// The next message if it is there already.
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> Option<io::Result<Received>> {
        match receive_now(self.fd.as_raw_fd(), buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            received => Some(received),
        }
    }
}

fn receive_now(fd: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    // Room for credentials only: the kernel puts them first and drops descriptors that do not fit behind.
    let mut control = cmsg_space!(libc::ucred);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Ok(Received::Unfit);
    }
    let sender = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(sender) => Some(Pid::from_raw(sender.pid())),
            _ => None,
        })
    });
    // A message of no bytes cannot be told from the end, and is none of the protocol's.
    Ok(match (message.bytes, sender) {
        (0, _) => Received::End,
        (bytes, Some(sender)) => Received::Message { bytes, sender },
        (bytes, None) => Received::Message { bytes, sender: Pid::from_raw(0) },
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::send;

    use super::*;

    #[tokio::test]
    async fn a_message_comes_with_its_sender() {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        send(theirs.as_raw_fd(), b"hello", MsgFlags::empty()).unwrap();
        let mut buffer = [0; 16];
        let Received::Message { bytes, sender } = ours.receive(&mut buffer).await.unwrap() else {
            panic!("no message")
        };
        assert_eq!(&buffer[..bytes], b"hello");
        assert_eq!(sender, nix::unistd::getpid());
    }

    #[tokio::test]
    async fn a_message_with_descriptors_is_lost_with_them() {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        let rights = [theirs.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let part = [IoSlice::new(b"hello")];
        sendmsg::<UnixAddr>(theirs.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        assert!(matches!(ours.receive(&mut [0; 16]).await.unwrap(), Received::Unfit));
        assert_eq!(count(), before);
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_lost_whole_and_the_end_is_told() {
        let (ours, theirs) = Seqpacket::pair().unwrap();
        send(theirs.as_raw_fd(), &[7; 64], MsgFlags::empty()).unwrap();
        drop(theirs);
        let mut buffer = [0; 16];
        assert!(matches!(ours.receive(&mut buffer).await.unwrap(), Received::Unfit));
        assert!(matches!(ours.receive(&mut buffer).await.unwrap(), Received::End));
    }
}
