//! Lines from a stream, bounded, and safe to stop waiting for: what was read stays for the next call.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// What to do with a line over the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlong {
    /// It is an error: the peer does not speak our language.
    Refuse,
    /// Its rest is dropped: a person reads it.
    Cut,
}

/// Reads lines.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
    overlong: Overlong,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, bytes_max: usize, overlong: Overlong) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), bytes_max, overlong }
    }

    /// Exactly `bytes` bytes that follow the last line. Not to be dropped before it resolves.
    pub(crate) async fn bytes(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        (&mut self.reader).take(bytes as u64).read_to_end(&mut read).await?;
        if read.len() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }

    /// The next line without its end; `None` when the stream has ended. A last line without an end counts.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let end = available.iter().position(|b| *b == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let room = self.bytes_max.saturating_sub(self.line.len());
            if part.len() > room && self.overlong == Overlong::Refuse {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "line over the limit"));
            }
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(available.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_behind_a_line_are_given_as_they_are() {
        let mut lines = Lines::new(&b"line\nab\ncd\nrest"[..], 10, Overlong::Refuse);
        assert_eq!(lines.next().await.unwrap().unwrap(), b"line");
        assert_eq!(lines.bytes(5).await.unwrap(), b"ab\ncd");
        assert_eq!(lines.next().await.unwrap().unwrap(), b"");
        assert!(lines.bytes(5).await.is_err());
    }

    #[tokio::test]
    async fn lines_are_cut_or_refused_at_the_bound() {
        let text: &[u8] = b"ab\nabcdef\n\nlast";
        let mut cut = Lines::new(text, 3, Overlong::Cut);
        let mut seen = Vec::new();
        while let Some(line) = cut.next().await.unwrap() {
            seen.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(seen, ["ab", "abc", "", "las"]);
        let mut refuse = Lines::new(text, 3, Overlong::Refuse);
        assert_eq!(refuse.next().await.unwrap().unwrap(), b"ab");
        assert!(refuse.next().await.is_err());
    }
}
