//! The head of an HTTP/1 request, judged line by line as its bytes arrive.
//!
//! Stricter than the parser behind it: what passes here has one reading only. The verdict depends on the bytes alone,
//! never on how they were split into reads. Nothing is changed and nothing is kept but a few facts.

use std::ops::Range;

use millgate_contract::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

use super::{Fault, target::Target};

/// Bytes of a method; the longest registered one has 17.
const METHOD_BYTES_MAX: usize = 32;
/// Bytes of a request line: method, target, version, and what is between them.
const LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + TARGET_BYTES_MAX + " HTTP/1.1\r\n".len() + 1;

/// What says how long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// Nothing: there is no body.
    Unsaid,
    Bytes(u64),
    Chunked,
}

/// A head that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of it, the empty line included.
    pub(crate) bytes: usize,
    pub(crate) length: Length,
    /// The path is a model's.
    pub(crate) is_model: bool,
}

/// A head whose end has perhaps not arrived.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// Where the next line begins.
    at: usize,
    /// Up to where there is no line's end.
    searched: usize,
    headers: usize,
    /// None before the request line.
    request: Option<RequestLine>,
    length: Option<u64>,
    is_chunked: bool,
    host: Option<Range<usize>>,
}

#[derive(Debug)]
struct RequestLine {
    target: Target,
    is_http10: bool,
    /// A method whose request has a body.
    brings_body: bool,
}

impl HeadScan {
    /// Judges what has arrived. `bytes` is the message from its beginning, each time longer.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<Head>, Fault> {
        while let Some(end) = memchr::memchr(b'\n', &bytes[self.searched..]).map(|n| self.searched + n) {
            let line = self.at..end;
            (self.at, self.searched) = (end + 1, end + 1);
            self.check_size(line.start, self.at)?;
            let Some(text) = bytes[line.clone()].strip_suffix(b"\r") else {
                return Err(Fault::Malformed("a line of the head ends without a carriage return"));
            };
            if self.request.is_none() {
                self.request = Some(request_line(text)?);
            } else if text.is_empty() {
                return self.conclude(bytes).map(Some);
            } else {
                self.header(text, line.start, bytes)?;
            }
        }
        self.searched = bytes.len();
        // What has no end yet may already be too long to get one.
        self.check_size(self.at, bytes.len())?;
        Ok(None)
    }

    /// A line from `start` to `end`, of which the end may be missing.
    fn check_size(&self, start: usize, end: usize) -> Result<(), Fault> {
        if self.request.is_none() && end - start > LINE_BYTES_MAX {
            return Err(Fault::TargetTooLong);
        }
        if end > HEAD_BYTES_MAX { Err(Fault::HeadTooLarge) } else { Ok(()) }
    }

    fn header(&mut self, text: &[u8], start: usize, bytes: &[u8]) -> Result<(), Fault> {
        self.headers += 1;
        if self.headers > HEADERS_MAX {
            return Err(Fault::HeadTooLarge);
        }
        if matches!(text[0], b' ' | b'\t') {
            return Err(Fault::Malformed("a header is folded over two lines"));
        }
        let Some(colon) = memchr::memchr(b':', text) else {
            return Err(Fault::Malformed("a header has no colon"));
        };
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return Err(Fault::Malformed("a header's name holds what a name may not"));
        }
        if !is_value(value) {
            return Err(Fault::Malformed("a header's value holds a control character"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(text, colon, start, bytes),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, text: &[u8], colon: usize, start: usize, bytes: &[u8]) -> Result<(), Fault> {
        if self.host.is_some() {
            return Err(Fault::Malformed("`Host` is there twice"));
        }
        let value = text[colon + 1..].trim_ascii();
        if value.is_empty() || !value.iter().all(|b| is_host(*b)) {
            return Err(Fault::Malformed("`Host` is not a host"));
        }
        let before = text[colon + 1..].len() - text[colon + 1..].trim_ascii_start().len();
        let at = start + colon + 1 + before;
        debug_assert_eq!(&bytes[at..at + value.len()], value);
        self.host = Some(at..at + value.len());
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.length.is_some() {
            return Err(Fault::Malformed("`Content-Length` is there twice"));
        }
        if self.is_chunked {
            return Err(Fault::Malformed("`Content-Length` and `Transfer-Encoding` exclude each other"));
        }
        let digits = value.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::Malformed("`Content-Length` is not a number"));
        }
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        // The largest numbers have a meaning of their own in parsers.
        self.length = number.filter(|n| *n < u64::MAX / 2);
        if self.length.is_some() { Ok(()) } else { Err(Fault::TooLarge) }
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.is_chunked {
            return Err(Fault::Malformed("`Transfer-Encoding` is there twice"));
        }
        if self.length.is_some() {
            return Err(Fault::Malformed("`Content-Length` and `Transfer-Encoding` exclude each other"));
        }
        let is_http10 = self.request.as_ref().is_some_and(|line| line.is_http10);
        if is_http10 {
            return Err(Fault::Malformed("HTTP/1.0 has no `Transfer-Encoding`"));
        }
        if value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            self.is_chunked = true;
            return Ok(());
        }
        Err(of_codings(value))
    }

    fn conclude(&self, bytes: &[u8]) -> Result<Head, Fault> {
        let line = self.request.as_ref().expect("the request line comes first");
        let host = self.host.clone().map(|range| &bytes[range]);
        if host.is_none() && !line.is_http10 {
            return Err(Fault::Malformed("`Host` is missing"));
        }
        if !line.target.is_on(host) {
            return Err(Fault::Malformed("`Host` is not the host of the target"));
        }
        let length = match (self.is_chunked, self.length) {
            (true, _) => Length::Chunked,
            (false, Some(bytes)) => Length::Bytes(bytes),
            (false, None) => Length::Unsaid,
        };
        if length == Length::Unsaid && line.target.is_model && line.brings_body {
            return Err(Fault::LengthRequired);
        }
        Ok(Head { bytes: self.at, length, is_model: line.target.is_model })
    }
}

/// What is wrong with a list of codings that is not `chunked` alone: one that ends in a single `chunked` is only not
/// supported, any other leaves the length of the body unknown.
fn of_codings(value: &[u8]) -> Fault {
    let codings = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    let (mut count, mut chunked_at) = (0, None);
    for coding in codings {
        count += 1;
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if coding.is_empty() || (is_chunked && chunked_at.is_some()) {
            return Fault::Malformed("`Transfer-Encoding` is not a list of codings");
        }
        if is_chunked {
            chunked_at = Some(count);
        }
    }
    if chunked_at == Some(count) {
        Fault::CodingUnsupported
    } else {
        Fault::Malformed("`Transfer-Encoding` does not end in `chunked`")
    }
}

fn request_line(text: &[u8]) -> Result<RequestLine, Fault> {
    let malformed = Fault::Malformed("the request line is not `METHOD target HTTP/1.1`");
    let mut parts = text.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.iter().all(|b| is_token(*b)) {
        return Err(Fault::Malformed("the method is not a word"));
    }
    let is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Fault::VersionUnsupported);
        }
        _ => return Err(malformed),
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Fault::TargetTooLong);
    }
    let target = Target::parse(method, target)?;
    let brings_body = matches!(method, b"POST" | b"PUT" | b"PATCH");
    Ok(RequestLine { target, is_http10, brings_body })
}

/// A byte of a token (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// No control character but the tab.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "branches would keep it from being done for many bytes at once"
)]
pub(super) fn is_value(value: &[u8]) -> bool {
    value.iter().fold(true, |good, b| good & ((*b >= 0x20) & (*b != 0x7f) | (*b == b'\t')))
}

/// A byte of a host and its port, an IPv6 address included.
pub(super) fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
}
