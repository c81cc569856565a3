//! Lines off a stream, bounded: a peer that never ends its line is refused, not buffered.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    #[error("nothing more can be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
}

/// A reader of lines.
pub(crate) struct Lines<R> {
    reader: R,
    received: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader, received: BytesMut::new(), bytes_max }
    }

    /// The next line without its end; `None` at the end of the stream. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LinesError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.received[searched..].iter().position(|b| *b == b'\n') {
                let line = self.received.split_to(searched + at).freeze();
                self.received.advance(1);
                return Ok(Some(line));
            }
            searched = self.received.len();
            if searched > self.bytes_max {
                return Err(LinesError::TooLong(self.bytes_max));
            }
            if self.reader.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Exactly `bytes` bytes that follow the last line. The memory grows with what arrives.
    pub(crate) async fn bytes(&mut self, bytes: usize) -> Result<Option<Bytes>, LinesError> {
        while self.received.len() < bytes {
            if self.reader.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.received.split_to(bytes).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_and_the_bytes_behind_them_are_told_apart() {
        let mut lines = Lines::new(&b"one\ntwo\nabcde\nrest"[..], 10);
        assert_eq!(lines.next().await.unwrap().unwrap(), "one");
        assert_eq!(lines.next().await.unwrap().unwrap(), "two");
        assert_eq!(lines.bytes(5).await.unwrap().unwrap(), "abcde");
        assert_eq!(lines.next().await.unwrap().unwrap(), "");
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_at_its_bound() {
        let endless = tokio::io::repeat(b'x');
        assert!(matches!(Lines::new(endless, 1_000).next().await, Err(LinesError::TooLong(1_000))));
    }
}
