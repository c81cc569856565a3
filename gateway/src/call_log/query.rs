//! Questions about calls, answered from the files: the newest files first, and no more of them than it takes.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs,
    io::{self, Read},
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    event::text_of,
    files::{self, Kept},
};

/// Calls of one answer, whatever is asked for.
const CALLS_MAX: usize = 10_000;
/// Calls of one answer where nothing is asked for.
const CALLS_DEFAULT: usize = 100;
/// Bytes read of one file, whatever its size.
const FILE_BYTES_READ_MAX: u64 = 1 << 30;

/// Which calls are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFilter {
    /// A model's id or name.
    pub model: Option<String>,
    /// How they ended: `ok`, or the code of a refusal.
    pub code: Option<String>,
    /// When they ended, at the earliest.
    pub since: Option<SystemTime>,
    /// How many, the newest.
    pub limit: usize,
}

/// A question that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFilterError {
    /// `since`.
    #[error(
        "`since` is `{0}`: give a time as in `2027-01-31T12:00:00Z`, or how long ago as in `90s`, `15m`, `2h`, `7d`"
    )]
    Since(String),
    /// `limit`.
    #[error("`limit` is `{0}`: give a number from 1 to {CALLS_MAX}")]
    Limit(String),
    /// Something else.
    #[error("`{0}` is nothing that calls are asked by: give `model`, `code`, `since`, `limit`")]
    Unknown(String),
}

impl Default for CallFilter {
    fn default() -> Self {
        Self { model: None, code: None, since: None, limit: CALLS_DEFAULT }
    }
}

impl CallFilter {
    /// Takes one parameter of a query.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), CallFilterError> {
        match name {
            "model" => self.model = Some(value.to_owned()),
            "code" => self.code = Some(value.to_owned()),
            "since" => {
                let since = time_of(value).ok_or_else(|| CallFilterError::Since(value.to_owned()))?;
                self.since = Some(since);
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=CALLS_MAX).contains(limit));
                self.limit = limit.ok_or_else(|| CallFilterError::Limit(value.to_owned()))?;
            }
            other => return Err(CallFilterError::Unknown(other.to_owned())),
        }
        Ok(())
    }

    fn lets_pass(&self, line: &Line<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &[Option<&str>]| {
            wanted.as_deref().is_none_or(|wanted| found.contains(&Some(wanted)))
        };
        is(&self.model, &[line.model, line.model_name.as_deref()]) && is(&self.code, &[Some(line.code)])
    }
}

/// A time, or how long ago.
fn time_of(text: &str) -> Option<SystemTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time.into());
    }
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    SystemTime::now().checked_sub(Duration::from_secs(count.checked_mul(seconds)?))
}

/// What of a line is asked for. Names may hold escapes; the rest is ours and never does.
#[derive(Deserialize)]
struct Line<'a> {
    time: &'a str,
    code: &'a str,
    #[serde(default)]
    model: Option<&'a str>,
    #[serde(default, borrow)]
    model_name: Option<std::borrow::Cow<'a, str>>,
}

/// Lines by their time, the oldest on top, so many and no more.
struct Newest {
    lines: BinaryHeap<Reverse<(String, u64, String)>>,
    limit: usize,
    taken: u64,
}

impl Newest {
    fn take(&mut self, time: &str, line: &str) {
        if self.is_full() && self.oldest().is_some_and(|oldest| time < oldest) {
            return;
        }
        self.taken += 1;
        self.lines.push(Reverse((time.to_owned(), self.taken, line.to_owned())));
        if self.lines.len() > self.limit {
            self.lines.pop();
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= self.limit
    }

    fn oldest(&self) -> Option<&str> {
        self.lines.peek().map(|Reverse((time, ..))| time.as_str())
    }

    /// True when nothing written until then can be among them.
    fn is_past(&self, written: SystemTime) -> bool {
        let oldest = self.oldest().and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        self.is_full() && oldest.is_some_and(|oldest| SystemTime::from(oldest) > written)
    }

    fn into_lines(self) -> Vec<String> {
        // A heap of the reverse: its sorted form begins with the newest.
        self.lines.into_sorted_vec().into_iter().rev().map(|Reverse((_, _, line))| line).collect()
    }
}

/// The lines of the calls that `filter` lets pass, the newest last. Lines that are not whole are passed over.
pub fn read_calls(folder: &Path, filter: &CallFilter) -> io::Result<Vec<String>> {
    let mut newest = Newest { lines: BinaryHeap::new(), limit: filter.limit.min(CALLS_MAX), taken: 0 };
    let mut kept = files::list(folder)?;
    // Files of several processes overlap in time; when each was last written to says what it can hold.
    kept.sort_by_key(|file| Reverse(file.written));
    for file in kept {
        let is_too_old = filter.since.is_some_and(|since| file.written < since);
        if is_too_old || newest.is_past(file.written) {
            break;
        }
        read_file(&file, filter, &mut newest)?;
    }
    Ok(newest.into_lines())
}

fn read_file(file: &Kept, filter: &CallFilter, newest: &mut Newest) -> io::Result<()> {
    let mut bytes = Vec::new();
    match fs::File::open(&file.path) {
        // The oldest make room at any time.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        open => open?.take(FILE_BYTES_READ_MAX).read_to_end(&mut bytes)?,
    };
    // Times of one form: their texts are in their order.
    let since = filter.since.map(text_of).unwrap_or_default();
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let Ok(text) = std::str::from_utf8(line) else { continue };
        let Ok(read) = serde_json::from_str::<Line<'_>>(text) else { continue };
        if read.time >= since.as_str() && filter.lets_pass(&read) {
            newest.take(read.time, text);
        }
    }
    Ok(())
}
