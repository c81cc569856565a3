//! Where one request ends and the next begins.

use millgate_contract::limits::BODY_BYTES_MAX;

use super::{
    Fault,
    chunks::Chunks,
    head::{Head, HeadScan, Length},
};

/// Bytes of a chunked body that is not a call's: what is done with them has limits of its own.
const OTHER_BODY_BYTES_MAX: u64 = 1 << 40;

#[derive(Debug)]
enum Phase {
    Head(HeadScan),
    Length(u64),
    Chunked(Chunks),
    /// The request has ended.
    Over,
}

/// The state of one request.
#[derive(Debug)]
pub(crate) struct Framing {
    phase: Phase,
    is_model: bool,
    fault: Option<Fault>,
}

impl Framing {
    /// Before the first byte of a request.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Head(HeadScan::default()), is_model: false, fault: None }
    }

    /// How many of these bytes may pass. They begin with the first that has not passed yet, so that of a head without
    /// an end, of which nothing passes, the same bytes are given again and more. What is behind a fault never passes.
    pub(crate) fn judge(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.fault.is_none() && passed < bytes.len() {
            match self.step(&bytes[passed..]) {
                Ok(0) => break,
                Ok(more) => passed += more,
                Err(fault) => self.fault = Some(fault),
            }
        }
        passed
    }

    /// Why nothing more passes.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The head has not passed.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(self.phase, Phase::Head(_))
    }

    /// Everything has passed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// It is a call of a model.
    pub(crate) fn is_model(&self) -> bool {
        self.is_model
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match &mut self.phase {
            Phase::Head(scan) => match scan.advance(bytes)? {
                Some(head) => {
                    self.enter(head);
                    Ok(head.bytes)
                }
                None => Ok(0),
            },
            Phase::Length(left) => {
                let passed = (*left).min(bytes.len() as u64);
                *left -= passed;
                if *left == 0 {
                    self.phase = Phase::Over;
                }
                Ok(usize::try_from(passed).expect("it is at most what is there"))
            }
            Phase::Chunked(chunks) => {
                let passed = chunks.advance(bytes)?;
                if chunks.is_end() {
                    self.phase = Phase::Over;
                }
                Ok(passed)
            }
            Phase::Over => Ok(0),
        }
    }

    fn enter(&mut self, head: Head) {
        self.is_model = head.is_model;
        let chunked_max = if head.is_model { BODY_BYTES_MAX as u64 } else { OTHER_BODY_BYTES_MAX };
        self.phase = match head.length {
            Length::Unsaid | Length::Bytes(0) => Phase::Over,
            Length::Bytes(bytes) => Phase::Length(bytes),
            Length::Chunked => Phase::Chunked(Chunks::new(chunked_max)),
        };
    }
}
