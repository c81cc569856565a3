//! The record of one tracked prediction, as a gateway's spool keeps it and as it is shipped to the control API.
//!
//! # Layout
//!
//! All integers are little-endian; text is a `u16` length and UTF-8.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–3 | bytes of the payload |
//! | 4–11 | CRC-64/XZ of the four bytes above and the payload |
//! | 12–13 | bytes of the payload's head |
//! | … | head: `start_ms` u64, `end_ms` u64, `uuid`, `model`, `deployment`, `replica`, each a text |
//! | … | the JSON of the metrics, to the end of the payload |
//!
//! A reader ignores what follows the fields of a head it knows, so fields can be appended. Records follow one another
//! without anything between them. What was cut short or changed is no record: of damaged bytes the records before the
//! damage are read, and nothing else.

use bytes::{Buf, BufMut};
use crc::{CRC_64_XZ, Crc, Table};

use crate::limits::TRACKED_METRICS_BYTES_MAX;

/// Bytes before the payload.
const PREFIX_BYTES: usize = 12;
/// Bytes of the fields before the metrics; ids are far shorter than what fits.
const HEAD_BYTES_MAX: usize = 2_048;
/// Bytes of one record.
pub const RECORD_BYTES_MAX: usize = PREFIX_BYTES + 2 + HEAD_BYTES_MAX + TRACKED_METRICS_BYTES_MAX;

const SUM: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);

/// One answered call of a function that collects metrics. The gateway decides UUID and times, a replica only the values.
/// It borrows what it is made of: on its way from a call to the database it is copied as the bytes it is, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackedPrediction<'a> {
    /// The `uuid` in the caller's answer.
    pub uuid: &'a str,
    /// The id of the model whose prediction it is.
    pub model: &'a str,
    /// The id of the deployment that made it.
    pub deployment: &'a str,
    /// The name of the process that made it.
    pub replica: &'a str,
    /// Unix milliseconds when the call was sent to the replica.
    pub start_ms: u64,
    /// Unix milliseconds when its answer had been read.
    pub end_ms: u64,
    /// JSON object of what the function tracked, as the replica wrote it; empty when it tracked nothing.
    pub metrics: &'a [u8],
}

impl<'a> TrackedPrediction<'a> {
    /// Appends the record to `out`; one that is larger than [`RECORD_BYTES_MAX`] is not appended, and false is said.
    #[must_use]
    pub fn encode(&self, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.put_bytes(0, PREFIX_BYTES + 2);
        out.put_u64_le(self.start_ms);
        out.put_u64_le(self.end_ms);
        for text in [self.uuid, self.model, self.deployment, self.replica] {
            out.put_u16_le(u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.put_slice(text.as_bytes());
        }
        let head_bytes = out.len() - begin - PREFIX_BYTES - 2;
        if head_bytes > HEAD_BYTES_MAX || self.metrics.len() > TRACKED_METRICS_BYTES_MAX {
            out.truncate(begin);
            return false;
        }
        out.put_slice(self.metrics);
        let record = &mut out[begin..];
        let payload_bytes = u32::try_from(record.len() - PREFIX_BYTES).expect("records are bounded");
        record[..4].copy_from_slice(&payload_bytes.to_le_bytes());
        record[PREFIX_BYTES..PREFIX_BYTES + 2]
            .copy_from_slice(&u16::try_from(head_bytes).expect("heads are bounded").to_le_bytes());
        let sum = checksum(payload_bytes.to_le_bytes(), &record[PREFIX_BYTES..]);
        record[4..PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
        true
    }

    fn decode(mut payload: &'a [u8]) -> Option<Self> {
        let head_bytes = usize::from(payload.try_get_u16_le().ok()?);
        let (mut head, metrics) = payload.split_at_checked(head_bytes)?;
        let start_ms = head.try_get_u64_le().ok()?;
        let end_ms = head.try_get_u64_le().ok()?;
        let mut text = || {
            let bytes = usize::from(head.try_get_u16_le().ok()?);
            let (text, rest) = head.split_at_checked(bytes)?;
            head = rest;
            std::str::from_utf8(text).ok()
        };
        Some(Self {
            uuid: text()?,
            model: text()?,
            deployment: text()?,
            replica: text()?,
            start_ms,
            end_ms,
            metrics,
        })
    }
}

/// Reads records from the beginning of some bytes, until their end or the first thing that is no record. Checksums are
/// not compared again: whoever reads records from a disk does so, by [`whole_bytes`], and what carries them from there
/// loses nothing.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    read: usize,
}

impl<'a> Records<'a> {
    /// Of these bytes.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, read: 0 }
    }

    /// Bytes of the records that were given.
    pub fn read_bytes(&self) -> usize {
        self.read
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = TrackedPrediction<'a>;

    fn next(&mut self) -> Option<TrackedPrediction<'a>> {
        let Framed { payload, .. } = framed(&self.bytes[self.read..])?;
        let record = TrackedPrediction::decode(payload)?;
        self.read += PREFIX_BYTES + payload.len();
        Some(record)
    }
}

/// Bytes of the whole records at the beginning of `bytes`, at most `bytes_max` of them. Nothing is decoded.
pub fn whole_bytes(bytes: &[u8], bytes_max: usize) -> usize {
    let mut end = 0;
    while let Some(payload_bytes) = whole(&bytes[end..]) {
        let next = end + PREFIX_BYTES + payload_bytes;
        if next > bytes_max {
            break;
        }
        end = next;
    }
    end
}

/// Bytes of the payload, if `bytes` begin with a record that is whole and unchanged.
fn whole(bytes: &[u8]) -> Option<usize> {
    let Framed { length, sum, payload } = framed(bytes)?;
    (checksum(length, payload).to_le_bytes() == sum).then_some(payload.len())
}

/// A record in its bytes, changed or not.
struct Framed<'a> {
    length: [u8; 4],
    sum: [u8; 8],
    payload: &'a [u8],
}

fn framed(bytes: &[u8]) -> Option<Framed<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let payload_bytes = u32::from_le_bytes(*length) as usize;
    if payload_bytes > RECORD_BYTES_MAX - PREFIX_BYTES {
        return None;
    }
    Some(Framed { length: *length, sum: *sum, payload: rest.get(..payload_bytes)? })
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u64 {
    let mut digest = SUM.digest();
    digest.update(&length);
    digest.update(payload);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prediction(n: u64, metrics: &[u8]) -> TrackedPrediction<'static> {
        TrackedPrediction {
            uuid: format!("0b6d2f1e-0000-4000-8000-{n:012x}").leak(),
            model: "m",
            deployment: "d",
            replica: "add-1-1-86b9b58b7b-g6s8r",
            start_ms: 1_746_629_493_901 + n,
            end_ms: 1_746_629_493_936 + n,
            metrics: metrics.to_vec().leak(),
        }
    }

    /// What a reader of a file finds.
    fn found(bytes: &[u8]) -> Vec<TrackedPrediction<'_>> {
        Records::of(&bytes[..whole_bytes(bytes, usize::MAX)]).collect()
    }

    fn encoded(rows: &[TrackedPrediction<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for row in rows {
            assert!(row.encode(&mut out));
        }
        out
    }

    #[test]
    fn a_record_has_its_bytes() {
        let bytes = encoded(&[prediction(1, br#"{"n":1}"#)]);
        let hex = bytes.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        insta::assert_snapshot!(hex);
    }

    #[test]
    fn fields_appended_to_a_head_by_a_newer_version_are_ignored() {
        let row = prediction(1, b"{}");
        let mut newer = encoded(std::slice::from_ref(&row));
        let at = newer.len() - 2;
        newer.splice(at..at, *b"new");
        let payload_bytes = u32::try_from(newer.len() - PREFIX_BYTES).unwrap();
        newer[12] += 3;
        newer[..4].copy_from_slice(&payload_bytes.to_le_bytes());
        let sum = checksum(payload_bytes.to_le_bytes(), &newer[PREFIX_BYTES..]);
        newer[4..PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(found(&newer), [row]);
    }

    #[test]
    fn what_is_over_a_bound_is_not_appended() {
        let mut out = vec![1];
        assert!(!prediction(1, &vec![b' '; TRACKED_METRICS_BYTES_MAX + 1]).encode(&mut out));
        let long = TrackedPrediction { uuid: &"u".repeat(70_000), ..prediction(1, b"") };
        assert!(!long.encode(&mut out));
        assert_eq!(out, [1]);
        assert!(prediction(1, &vec![b' '; TRACKED_METRICS_BYTES_MAX]).encode(&mut out));
        assert!(out.len() - 1 <= RECORD_BYTES_MAX);
    }

    #[test]
    fn whole_records_are_counted_up_to_a_bound() {
        let bytes = encoded(&[prediction(1, b"{}"), prediction(2, b"{}")]);
        let one = bytes.len() / 2;
        assert_eq!(whole_bytes(&bytes, bytes.len()), bytes.len());
        assert_eq!(whole_bytes(&bytes, bytes.len() - 1), one);
        assert_eq!(whole_bytes(&bytes[..bytes.len() - 1], usize::MAX), one);
        assert_eq!(whole_bytes(&[], 100), 0);
    }

    fn rows() -> impl Strategy<Value = Vec<TrackedPrediction<'static>>> {
        proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..60)), 1..6)
            .prop_map(|rows| rows.iter().map(|(n, m)| prediction(n & 0xffff_ffff, m)).collect())
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(rows in rows()) {
            let bytes = encoded(&rows);
            let mut read = Records::of(&bytes);
            let back: Vec<_> = read.by_ref().collect();
            prop_assert_eq!(read.read_bytes(), bytes.len());
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn of_cut_bytes_the_whole_records_are_read(rows in rows(), cut in any::<prop::sample::Index>()) {
            let bytes = encoded(&rows);
            let cut = cut.index(bytes.len());
            let back = found(&bytes[..cut]);
            let whole = (0..=rows.len()).rev().find(|n| encoded(&rows[..*n]).len() <= cut).unwrap();
            prop_assert_eq!(&back[..], &rows[..whole]);
            prop_assert_eq!(whole_bytes(&bytes[..cut], usize::MAX), encoded(&rows[..whole]).len());
        }

        #[test]
        fn a_changed_bit_ends_the_reading_before_its_record(rows in rows(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = encoded(&rows);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let back = found(&bytes);
            let whole = (0..=rows.len()).rev().find(|n| encoded(&rows[..*n]).len() <= at).unwrap();
            prop_assert_eq!(&back[..], &rows[..whole]);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::of(&bytes).count();
            prop_assert_eq!(whole_bytes(&bytes, usize::MAX), 0);
        }
    }
}
