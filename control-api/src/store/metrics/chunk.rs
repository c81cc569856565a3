//! Many predictions in one row of the database: those of one deployment whose calls began in one second, ascending by
//! start and UUID. A row of its own for each, with three indexes, cost more than the call that made it. Here a
//! prediction is one line:
//!
//! ```text
//! <uuid> <start, after that of the chunk's first> <end - start> <index of its replica> <metrics>
//! ```
//!
//! Times are milliseconds. Invariant: a UUID says the start of its row, so that whoever knows one knows in which chunks
//! it may be; predictions of which that is not true are kept one by one. A chunk is never changed.

use millgate_contract::{prediction_id, tracked::TrackedPrediction};

use super::window::MetricRow;

/// Milliseconds in which all rows of a chunk begin; the first of them is a multiple of it.
const SPAN_MS: i64 = 1_000;
/// Rows of one chunk: one is read whole for each row that is looked for by its UUID.
const ROWS_MAX: usize = 512;
/// Bytes of metrics from which on a chunk takes no further row.
const METRICS_BYTES_MAX: usize = 64 * 1024;

/// The least start that a chunk may have which holds a row that begins then.
pub(super) fn start_ms_min(start_ms: i64) -> i64 {
    start_ms.div_euclid(SPAN_MS) * SPAN_MS
}

/// A prediction on its way into a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) id: &'a str,
    pub(super) start_ms: i64,
    end_ms: i64,
    replica: &'a str,
    metrics: &'a str,
}

impl<'a> Entry<'a> {
    /// Nothing for one whose UUID does not say when it began.
    pub(super) fn of(row: &TrackedPrediction<'a>, metrics: &'a str) -> Option<Self> {
        if prediction_id::start_ms(row.uuid) != Some(row.start_ms) {
            return None;
        }
        let start_ms = i64::try_from(row.start_ms).ok()?;
        let end_ms = i64::try_from(row.end_ms).ok().filter(|end_ms| *end_ms >= start_ms)?;
        // Names are ours; one with a line's end in it would be two.
        let is_named = !row.replica.contains('\n');
        is_named.then_some(Self { id: row.uuid, start_ms, end_ms, replica: row.replica, metrics })
    }
}

/// Puts entries in their order, each once.
pub(super) fn sort(entries: &mut Vec<Entry<'_>>) {
    entries.sort_unstable_by_key(|entry| (entry.start_ms, entry.id));
    entries.dedup_by_key(|entry| entry.id);
}

/// Sorted entries, those of one second together.
pub(super) fn seconds<'e, 'a>(entries: &'e [Entry<'a>]) -> impl Iterator<Item = &'e [Entry<'a>]> {
    entries.chunk_by(|a, b| start_ms_min(a.start_ms) == start_ms_min(b.start_ms))
}

/// How many of these, which begin in one second, are the next chunk.
pub(super) fn next_len(entries: &[Entry<'_>]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry<'_>| {
        let begins_within = bytes < METRICS_BYTES_MAX;
        bytes += entry.metrics.len();
        begins_within
    };
    entries.iter().take(ROWS_MAX).take_while(fits).count()
}

/// What is kept of a chunk beside its numbers.
pub(super) struct Texts {
    /// A name in each line.
    pub(super) replicas: String,
    pub(super) records: String,
}

/// Writes some entries, at least one.
pub(super) fn write(entries: &[Entry<'_>]) -> Texts {
    let first_ms = entries.first().map_or(0, |entry| entry.start_ms);
    let mut replicas: Vec<&str> = Vec::new();
    let bytes: usize = entries.iter().map(|entry| entry.id.len() + entry.metrics.len() + 16).sum();
    let mut records = String::with_capacity(bytes);
    for entry in entries {
        let replica = replicas.iter().position(|name| *name == entry.replica).unwrap_or_else(|| {
            replicas.push(entry.replica);
            replicas.len() - 1
        });
        records.push_str(entry.id);
        for number in [entry.start_ms - first_ms, entry.end_ms - entry.start_ms] {
            put(&mut records, number.unsigned_abs());
        }
        put(&mut records, replica as u64);
        records.push(' ');
        put_metrics(&mut records, entry.metrics);
        records.push('\n');
    }
    Texts { replicas: replicas.join("\n"), records }
}

/// A blank and a number; `write!` takes three times as long.
fn put(text: &mut String, mut number: u64) {
    let mut digits = [b' '; 21];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend(digits[at - 1..].iter().map(|digit| char::from(*digit)));
}

/// A line's end in JSON is a blank between two words: texts have it escaped.
fn put_metrics(text: &mut String, metrics: &str) {
    if metrics.contains('\n') {
        text.extend(metrics.chars().map(|c| if c == '\n' { ' ' } else { c }));
    } else {
        text.push_str(metrics);
    }
}

/// UUIDs of a chunk.
pub(super) fn ids(records: &str) -> impl Iterator<Item = &str> {
    records.split_terminator('\n').filter_map(|line| line.split_once(' ')).map(|(id, _)| id)
}

/// Rows of a chunk.
pub(super) fn rows(deployment_number: i64, first_ms: i64, records: &str) -> impl Iterator<Item = MetricRow> {
    records.split_terminator('\n').filter_map(move |line| {
        let mut words = line.splitn(5, ' ');
        let id = words.next()?.to_owned();
        let mut number = || words.next()?.parse::<i64>().ok();
        let (after_ms, took_ms, _replica) = (number()?, number()?, number()?);
        let start_ms = first_ms + after_ms;
        Some(MetricRow {
            id,
            is_aggregate: false,
            deployment_number,
            start_ms,
            end_ms: start_ms + took_ms,
            metrics: words.next()?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(start_ms: i64, n: u8) -> String {
        prediction_id::new(start_ms.unsigned_abs(), [n; prediction_id::RANDOM_BYTES])
    }

    fn tracked(id: &str, start_ms: u64, end_ms: u64) -> TrackedPrediction<'_> {
        TrackedPrediction {
            uuid: id,
            model: "m",
            deployment: "d",
            replica: "r",
            start_ms,
            end_ms,
            metrics: b"",
        }
    }

    #[test]
    fn a_row_whose_uuid_says_another_start_or_whose_times_are_no_times_is_no_entry() {
        let id = id(5_000, 1);
        assert!(Entry::of(&tracked(&id, 5_000, 5_000), "{}").is_some());
        assert!(Entry::of(&tracked(&id, 5_001, 5_002), "{}").is_none());
        assert!(Entry::of(&tracked(&id, 5_000, 4_999), "{}").is_none());
        assert!(Entry::of(&tracked("0b6d2f1e-0000-4000-8000-000000000001", 5_000, 5_001), "{}").is_none());
        assert!(
            Entry::of(&TrackedPrediction { replica: "a\nb", ..tracked(&id, 5_000, 5_001) }, "{}").is_none()
        );
    }

    #[test]
    fn a_chunk_is_closed_by_rows_by_bytes_and_by_the_second() {
        let ids: Vec<String> = (0..600_u16).map(|n| id(7_000 + i64::from(n), n.to_le_bytes()[0])).collect();
        let entry = |n: usize, metrics| {
            let start_ms = 7_000 + n as u64;
            Entry::of(&tracked(&ids[n], start_ms, start_ms), metrics).unwrap()
        };
        let entries: Vec<_> = (0..600).map(|n| entry(n, "{}")).collect();
        assert_eq!((next_len(&entries), next_len(&entries[..3])), (ROWS_MAX, 3));
        let large = "7".repeat(METRICS_BYTES_MAX / 2);
        let entries: Vec<_> = (0..4).map(|n| entry(n, &large)).collect();
        assert_eq!(next_len(&entries), 2);
        let late = id(8_000, 1);
        let next = Entry::of(&tracked(&late, 8_000, 8_000), "{}").unwrap();
        let lengths: Vec<usize> = seconds(&[entry(0, "{}"), entry(1, "{}"), next]).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 1]);
    }

    proptest! {
        #[test]
        fn rows_come_back_in_their_order_each_once(
            rows in proptest::collection::vec((0_i64..1_000, 0_i64..100_000, any::<u8>(), "[a-c]", "\\{\"[a-z \u{e9}]{0,9}\":\n?[0-9]{1,4}\\}"), 1..40),
        ) {
            let base = 1_746_629_493_000;
            let ids: Vec<String> = rows.iter().map(|row| id(base + row.0, row.2)).collect();
            let mut entries: Vec<_> = rows.iter().zip(&ids).map(|((after, took, _, replica, metrics), id)| {
                let start_ms = base + after;
                Entry { id, start_ms, end_ms: start_ms + took, replica, metrics }
            }).collect();
            sort(&mut entries);
            let texts = write(&entries);
            let back: Vec<MetricRow> = super::rows(9, entries[0].start_ms, &texts.records).collect();
            prop_assert_eq!(back.len(), entries.len());
            prop_assert!(ids_ascend(&back));
            for (row, entry) in back.iter().zip(&entries) {
                prop_assert_eq!((&row.id[..], row.start_ms, row.end_ms), (entry.id, entry.start_ms, entry.end_ms));
                prop_assert_eq!(&row.metrics, &entry.metrics.replace('\n', " "));
            }
            prop_assert!(super::ids(&texts.records).eq(entries.iter().map(|entry| entry.id)));
        }
    }

    fn ids_ascend(rows: &[MetricRow]) -> bool {
        rows.windows(2).all(|pair| (pair[0].start_ms, &pair[0].id) < (pair[1].start_ms, &pair[1].id))
    }
}
