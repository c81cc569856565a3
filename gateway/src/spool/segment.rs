//! One file of the spool: records, one after another. What is behind its end is never left there: a write that fails is
//! taken back.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use millgate_contract::tracked;

use super::{SpoolSync, folder::segment_file};

/// A place in the segments of one folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    pub(super) segment: u64,
    pub(super) bytes: u64,
}

/// A segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    end: Mark,
}

impl Segment {
    /// A new one.
    pub(super) fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let path = segment_file(folder, number);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file, end: Mark { segment: number, bytes: 0 } })
    }

    /// One that was left by a process that has ended: cut after its last whole record. Also says how many bytes were
    /// cut off.
    pub(super) fn resume(folder: &Path, number: u64) -> io::Result<(Self, u64)> {
        let path = segment_file(folder, number);
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = tracked::whole_bytes(&bytes, usize::MAX);
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
        }
        let cut = (bytes.len() - whole) as u64;
        Ok((Self { file, end: Mark { segment: number, bytes: whole as u64 } }, cut))
    }

    pub(super) fn end(&self) -> Mark {
        self.end
    }

    /// Appends whole records. When it fails, nothing of them is left; when not even that can be said, the segment is
    /// given up, and its reader stops before what is not whole.
    pub(super) fn append(&mut self, records: &[u8], sync: SpoolSync) -> Result<(), AppendError> {
        let written = self.file.write_all(records).and_then(|()| match sync {
            SpoolSync::Kernel => Ok(()),
            SpoolSync::Batch => self.file.sync_data(),
        });
        match written {
            Ok(()) => {
                self.end.bytes += records.len() as u64;
                Ok(())
            }
            Err(source) => {
                let is_lost = self.file.set_len(self.end.bytes).is_err();
                Err(AppendError { source, is_lost })
            }
        }
    }
}

/// Nothing was appended.
#[derive(Debug)]
pub(super) struct AppendError {
    pub(super) source: io::Error,
    /// The file may have something behind its end.
    pub(super) is_lost: bool,
}
