//! Times as the store keeps them (Unix microseconds, 0 is "not yet") and as API v2 writes them (RFC 3339, microseconds).

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, in Unix microseconds.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Now, in Unix seconds.
pub(crate) fn now_s() -> i64 {
    now_us() / 1_000_000
}

/// `2024-05-08T12:00:00.123456Z`; `None` for 0, which API v2 writes as `null` (an empty text breaks date parsers).
pub(crate) fn rfc3339(time_us: i64) -> Option<String> {
    if time_us == 0 {
        return None;
    }
    let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_us) * 1_000).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.microsecond()
    ))
}

/// Reads RFC 3339, or a bare date, as Unix seconds. A time without its zone is UTC: clients that hold times as objects
/// without one write them so.
pub(crate) fn parse_s(text: &str) -> Option<i64> {
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    read(&full).or_else(|| read(&format!("{full}Z"))).map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exactly_six_decimals() {
        assert_eq!(rfc3339(1_746_629_493_901_000).unwrap(), "2025-05-07T14:51:33.901000Z");
        assert_eq!(rfc3339(0), None);
    }

    #[test]
    fn dates_and_times_are_read() {
        assert_eq!(parse_s("1970-01-02"), Some(86_400));
        assert_eq!(parse_s("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_s("1970-01-01T00:00:07.123456Z"), Some(7));
        assert_eq!(parse_s("1970-01-01T00:00:07.123456"), Some(7));
        assert_eq!(parse_s("1970-01-01T00:00:07"), Some(7));
        assert_eq!(parse_s("soon"), None);
    }
}
