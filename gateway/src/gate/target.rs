//! The target of a request: which of the four forms it has, whether it is a model's, and on which host it is.

use super::{Fault, head::is_host};
use crate::http::MODEL_PATHS;

/// What a target says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Of a target in absolute form: its authority in lower case, without the port that its scheme implies.
    authority: Option<Authority>,
    pub(super) is_model: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Authority {
    text: Vec<u8>,
    implied_port: &'static [u8],
}

impl Target {
    pub(super) fn parse(method: &[u8], target: &[u8]) -> Result<Self, Fault> {
        // What a parser of addresses takes is more; nothing that is meant well is.
        if !target
            .iter()
            .all(|b| (0x21..0x7f).contains(b) && !matches!(b, b'#' | b'<' | b'>' | b'"' | b'\\' | b'`'))
        {
            return Err(Fault::Malformed("the target holds what an address may not"));
        }
        if method == b"CONNECT" {
            return Err(Fault::MethodNotAllowed);
        }
        if target.first() == Some(&b'/') {
            return Ok(Self { authority: None, is_model: is_model(target) });
        }
        if target == b"*" && method == b"OPTIONS" {
            return Ok(Self { authority: None, is_model: false });
        }
        Self::absolute(target).ok_or(Fault::Malformed("the target is neither a path nor an address"))
    }

    fn absolute(target: &[u8]) -> Option<Self> {
        let colon = target.iter().position(|b| *b == b':')?;
        let (scheme, rest) = (&target[..colon], target[colon..].strip_prefix(b"://")?);
        let implied_port: &[u8] = match scheme {
            s if s.eq_ignore_ascii_case(b"http") => b":80",
            s if s.eq_ignore_ascii_case(b"https") => b":443",
            _ => return None,
        };
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || !authority.iter().all(|b| is_host(*b)) {
            return None;
        }
        let text = normal(authority, implied_port);
        Some(Self { authority: Some(Authority { text, implied_port }), is_model: is_model(path) })
    }

    /// True when this target may be asked for on that host.
    pub(super) fn is_on(&self, host: Option<&[u8]>) -> bool {
        match (&self.authority, host) {
            (Some(authority), Some(host)) => normal(host, authority.implied_port) == authority.text,
            _ => true,
        }
    }
}

fn normal(authority: &[u8], implied_port: &[u8]) -> Vec<u8> {
    authority.strip_suffix(implied_port).unwrap_or(authority).to_ascii_lowercase()
}

fn is_model(target: &[u8]) -> bool {
    let path = target.split(|b| *b == b'?').next().unwrap_or(target);
    MODEL_PATHS.iter().any(|model| model.as_bytes() == path)
}
