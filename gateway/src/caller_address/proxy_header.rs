//! The PROXY protocol's header, versions 1 and 2 (haproxy.org, `proxy-protocol.txt`): whose connection a proxy brings,
//! said before anything else, TLS included.
//!
//! [`parse`] is pure; [`read`] takes exactly the header's bytes and leaves what comes after it in the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use tokio::{io::AsyncReadExt, net::TcpStream};

const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const SIGNATURE_1: &[u8; 6] = b"PROXY ";
/// Bytes of a header of version 1, its line's end included.
const LINE_BYTES_MAX: usize = 107;
/// Bytes of version 2 that are always there: signature, command, family, length.
const FIXED_BYTES: usize = 16;
/// Bytes of version 2 with all its extensions. The field for it would allow for 64 KB.
const HEADER_BYTES_MAX: usize = 4 * 1024;

/// A header that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) bytes: usize,
    /// None where the proxy speaks for itself, or does not know.
    pub(super) source: Option<IpAddr>,
}

/// Not a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub(crate) struct Malformed;

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Reads the header. Whose connection it is, if the proxy knows.
pub(crate) async fn read(tcp: &mut TcpStream) -> Result<Option<IpAddr>, HeaderError> {
    let (mut seen, mut held) = (vec![0; HEADER_BYTES_MAX], 0);
    loop {
        let peeked = tcp.peek(&mut seen[held..]).await?;
        if peeked == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let end = held + peeked;
        let header = parse(&seen[..end])?;
        // All of a header without an end is the header's; of a whole one, what is behind it is not.
        let until = header.map_or(end, |header| header.bytes);
        tcp.read_exact(&mut seen[held..until]).await?;
        held = until;
        if let Some(header) = header {
            return Ok(header.source);
        }
    }
}

/// The header at the beginning of `bytes`; none while its end is missing.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let is_begun_by = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    if is_begun_by(SIGNATURE_2) {
        version_2(bytes)
    } else if is_begun_by(SIGNATURE_1) {
        version_1(bytes)
    } else {
        Err(Malformed)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() == LINE_BYTES_MAX { Err(Malformed) } else { Ok(None) };
    };
    let text = line[..end].strip_suffix(b"\r").and_then(|text| std::str::from_utf8(text).ok());
    let text = text.and_then(|text| text.strip_prefix("PROXY ")).ok_or(Malformed)?;
    let source = match text.split(' ').collect::<Vec<_>>().as_slice() {
        // Whatever follows it means nothing.
        ["UNKNOWN", ..] => None,
        ["TCP4", ends @ ..] => Some(IpAddr::V4(source_of::<Ipv4Addr>(ends)?)),
        ["TCP6", ends @ ..] => Some(IpAddr::V6(source_of::<Ipv6Addr>(ends)?)),
        _ => return Err(Malformed),
    };
    Ok(Some(Header { bytes: end + 1, source }))
}

/// The first of two addresses and two ports.
fn source_of<A: FromStr>(ends: &[&str]) -> Result<A, Malformed> {
    let is_port = |port: &&str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    match ends {
        [source, target, ports @ ..]
            if ports.len() == 2 && ports.iter().all(is_port) && target.parse::<A>().is_ok() =>
        {
            source.parse().map_err(|_| Malformed)
        }
        _ => Err(Malformed),
    }
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    let behind = usize::from(u16::from_be_bytes([high, low]));
    let bytes = FIXED_BYTES + behind;
    if bytes > HEADER_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(addresses) = rest.get(..behind) else { return Ok(None) };
    let source = match (command, family) {
        (0x21, 0x11) => Some(IpAddr::from(*first::<4>(addresses, 12)?)),
        (0x21, 0x21) => Some(IpAddr::from(*first::<16>(addresses, 36)?)),
        // A proxy that asks for itself, or speaks for who has no such address.
        (0x20, _) | (0x21, 0x00 | 0x31) => None,
        _ => return Err(Malformed),
    };
    Ok(Some(Header { bytes, source }))
}

/// The source in an address block that has at least so many bytes.
fn first<const N: usize>(block: &[u8], bytes_min: usize) -> Result<&[u8; N], Malformed> {
    block.first_chunk().filter(|_| block.len() >= bytes_min).ok_or(Malformed)
}
