//! What a build step says to us, by the Unix socket that is its standard input.

use std::{io, mem::MaybeUninit, net::TcpListener, os::fd::OwnedFd};

use millgate_contract::{line, spec::FromBuildStep};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{io::Interest, net::UnixStream};

/// Bytes of all that a step may say: its two messages are far below.
const BYTES_MAX: usize = 64 * 1024;

/// Our end.
pub(super) struct Channel {
    stream: UnixStream,
    text: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// One message, with what came along.
pub(super) struct Said {
    pub(super) message: FromBuildStep,
    pub(super) listener: Option<TcpListener>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, text: Vec::new(), descriptors: Vec::new() }
    }

    /// The next message; none when the step has closed its end, as it does by ending. Safe to stop waiting for.
    pub(super) async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let words: Vec<u8> = self.text.drain(..=end).collect();
                let message = line::decode(&words).map_err(io::Error::other)?;
                let has_listener = message == FromBuildStep::Outlet && !self.descriptors.is_empty();
                let listener = has_listener.then(|| TcpListener::from(self.descriptors.remove(0)));
                return Ok(Some(Said { message, listener }));
            }
            let (bytes, descriptors) = self.receive().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.text.extend(bytes);
            self.descriptors.extend(descriptors);
            if self.text.len() > BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    async fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.stream
            .async_io(Interest::READABLE, || {
                let mut buffer = [0; 4096];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [io::IoSliceMut::new(&mut buffer)];
                let bytes = recvmsg(&self.stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
                let descriptors = control
                    .drain()
                    .filter_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.collect::<Vec<_>>()),
                        _ => None,
                    })
                    .flatten()
                    .collect();
                Ok((buffer[..bytes].to_vec(), descriptors))
            })
            .await
    }
}
