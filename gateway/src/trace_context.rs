//! W3C trace context, level 1: a caller's `traceparent` is passed on as it came if it has its form, and left out if not.

use hyper::{HeaderMap, header::HeaderName};
use millgate_contract::limits::TRACEPARENT_BYTES_MAX;

use crate::hex;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `00-<trace id>-<parent id>-<flags>`, the form of version 00 and the beginning of any later one.
const FORM_BYTES: usize = 55;

/// A `traceparent` of the right form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext<'a>(&'a str);

impl<'a> TraceContext<'a> {
    /// The caller's, if it sent one.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        match (given.next().and_then(|value| value.to_str().ok()), given.next()) {
            (Some(one), None) if is_traceparent(one) => Some(Self(one)),
            _ => None,
        }
    }

    /// As it came.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }

    /// The caller records this trace.
    pub(crate) fn is_sampled(self) -> bool {
        u8::from_str_radix(&self.0[53..FORM_BYTES], 16).is_ok_and(|flags| flags & 1 == 1)
    }

    /// The trace's id.
    pub(crate) fn trace(self) -> Option<[u8; 16]> {
        hex::decode(&self.0[3..35])
    }

    /// The id of the caller's span.
    pub(crate) fn parent(self) -> Option<[u8; 8]> {
        hex::decode(&self.0[36..52])
    }
}

/// The id of the trace that a `traceparent` of the right form belongs to.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.get(3..35)
}

fn is_traceparent(text: &str) -> bool {
    let is_id = |id: &str| is_lower_hex(id) && id.bytes().any(|b| b != b'0');
    let Some((form, more)) = text.split_at_checked(FORM_BYTES) else { return false };
    let fields: Vec<&str> = form.split('-').collect();
    let [version, trace, parent, flags] = fields[..] else { return false };
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
    // Later versions may have more fields behind these; version 00 has none, and there is no version ff.
    let is_ended = more.is_empty() || (version != "00" && more.starts_with('-'));
    lengths == [2, 32, 16, 2]
        && is_lower_hex(version)
        && version != "ff"
        && is_id(trace)
        && is_id(parent)
        && is_lower_hex(flags)
        && is_ended
        && text.len() <= TRACEPARENT_BYTES_MAX
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_has_its_form_or_is_left_out() {
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        for good in [GOOD, &later] {
            assert!(is_traceparent(good), "{good}");
        }
        let refused = [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("ff{}", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf9", "-bf9"),
            format!("cc{}x", &GOOD[2..]),
            format!("cc{}-{}", &GOOD[2..], "a".repeat(TRACEPARENT_BYTES_MAX)),
            format!("{}é", &GOOD[..54]),
        ];
        for refused in refused {
            assert!(!is_traceparent(&refused), "{refused}");
        }
    }

    #[test]
    fn two_trace_contexts_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        let context = TraceContext::of(&headers).unwrap();
        assert_eq!((context.as_str(), context.is_sampled()), (GOOD, true));
        assert_eq!(context.trace().map(u128::from_be_bytes), Some(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(context.parent().map(u64::from_be_bytes), Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(trace_id(GOOD), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), None);
    }
}
