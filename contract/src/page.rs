//! Supervisor ↔ replica: a page of memory on which a replica notes what it does and for how long, so that it can be
//! asked without being interrupted, and answers when it hangs.
//!
//! The supervisor makes the page, of a size that nobody can change, and hands it to each replica at its birth
//! ([`crate::nursery::PAGE_FD`]); a runtime need not use it. The replica's main thread alone writes, with plain stores
//! and no system call. Everything on it is hostile: figures and a name, of which the reader believes none to be true
//! and all to be harmless.
//!
//! # Ordering
//!
//! A sequence lock. The writer makes `sequence` odd, writes, makes it even; a reader that has seen the same even number
//! before and after has read what belongs together. The fence behind the odd store keeps what is written from being
//! seen before it, the release of the even store keeps it from being seen after; the reader's acquire and fence are
//! their counterparts. Each word is atomic, so a race is a wrong figure that is thrown away and never undefined. A writer
//! that stays odd costs a reader [`READS_MAX`] looks.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::{
    ids::{RequestId, is_request_id},
    limits::REQUEST_ID_BYTES_MAX,
    mark::MarkKey,
};

/// Bytes of the memory that holds a [`Page`].
pub const PAGE_BYTES: usize = 4_096;
/// Looks at a page that changes meanwhile, after which it counts as unreadable.
const READS_MAX: usize = 64;
const ID_WORDS: usize = REQUEST_ID_BYTES_MAX / 8;

/// What a replica's main thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Activity {
    /// It waits for a frame. What tasks of an event loop do meanwhile is not told apart.
    Idle = 1,
    /// A frame has come, and another thread holds the interpreter.
    InterpreterWait = 2,
    /// It deals with what has come: decodes, runs the function, encodes, answers.
    Busy = 3,
}

/// What lies at the beginning of the memory. All zeros is a page on which nothing was written.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Page {
    sequence: AtomicU64,
    /// An [`Activity`], or 0.
    activity: AtomicU64,
    /// Since when, by `CLOCK_MONOTONIC`.
    since_ns: AtomicU64,
    /// How long each was done before.
    idle_ns: AtomicU64,
    interpreter_wait_ns: AtomicU64,
    busy_ns: AtomicU64,
    /// Calls begun.
    calls: AtomicU64,
    /// Bytes of the request id of the call that runs; 0 while none does.
    id_bytes: AtomicU64,
    id: [AtomicU64; ID_WORDS],
    /// Of the replica's marks ([`crate::mark`]), from its supervisor; 0 where it knows none.
    mark_key: AtomicU64,
}

/// Where on a page its supervisor writes the key of marks, in the machine's order of bytes.
pub const MARK_KEY_AT: usize = std::mem::offset_of!(Page, mark_key);

/// What a page said at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds of each activity, the one that lasts included.
    pub idle_ns: u64,
    /// See [`Activity::InterpreterWait`].
    pub interpreter_wait_ns: u64,
    /// See [`Activity::Busy`].
    pub busy_ns: u64,
    /// Calls begun.
    pub calls: u64,
    /// The request of the call that runs.
    pub running: Option<RequestId>,
}

const _: () = assert!(size_of::<Page>() <= PAGE_BYTES);

/// The writer's side: one thread of the replica.
impl Page {
    /// Another activity begins.
    pub fn enter(&self, activity: Activity, now_ns: u64) {
        self.write(|page| {
            let took_ns = now_ns.saturating_sub(page.since_ns.load(Ordering::Relaxed));
            if let Some(total) = page.total_of(page.activity.load(Ordering::Relaxed)) {
                total.store(total.load(Ordering::Relaxed).saturating_add(took_ns), Ordering::Relaxed);
            }
            page.activity.store(activity as u64, Ordering::Relaxed);
            page.since_ns.store(now_ns, Ordering::Relaxed);
        });
    }

    /// A call begins.
    pub fn begin(&self, request_id: &RequestId) {
        let bytes = request_id.as_str().as_bytes();
        if bytes.len() > REQUEST_ID_BYTES_MAX {
            return;
        }
        self.write(|page| {
            for (word, chunk) in page.id.iter().zip(bytes.chunks(8)) {
                let mut raw = [0; 8];
                raw[..chunk.len()].copy_from_slice(chunk);
                word.store(u64::from_le_bytes(raw), Ordering::Relaxed);
            }
            page.id_bytes.store(bytes.len() as u64, Ordering::Relaxed);
            page.calls.store(page.calls.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        });
    }

    /// It is over.
    pub fn end(&self) {
        self.write(|page| page.id_bytes.store(0, Ordering::Relaxed));
    }

    /// What the replica's marks are told from other text by.
    pub fn mark_key(&self) -> Option<MarkKey> {
        Some(self.mark_key.load(Ordering::Relaxed)).filter(|key| *key != 0).map(MarkKey)
    }

    fn write(&self, change: impl FnOnce(&Self)) {
        let odd = self.sequence.load(Ordering::Relaxed) | 1;
        self.sequence.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
        change(self);
        self.sequence.store(odd.wrapping_add(1), Ordering::Release);
    }
}

/// The reader's side.
impl Page {
    /// What it says now; none if it does not hold still.
    pub fn read(&self, now_ns: u64) -> Option<Reading> {
        for _ in 0..READS_MAX {
            let before = self.sequence.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let reading = self.read_once(now_ns);
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return Some(reading);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    fn read_once(&self, now_ns: u64) -> Reading {
        let activity = self.activity.load(Ordering::Relaxed);
        let lasts_ns = now_ns.saturating_sub(self.since_ns.load(Ordering::Relaxed));
        let total = |total: &AtomicU64, of: Activity| {
            let more_ns = if activity == of as u64 { lasts_ns } else { 0 };
            total.load(Ordering::Relaxed).saturating_add(more_ns)
        };
        Reading {
            idle_ns: total(&self.idle_ns, Activity::Idle),
            interpreter_wait_ns: total(&self.interpreter_wait_ns, Activity::InterpreterWait),
            busy_ns: total(&self.busy_ns, Activity::Busy),
            calls: self.calls.load(Ordering::Relaxed),
            running: self.running(),
        }
    }

    fn running(&self) -> Option<RequestId> {
        let length = usize::try_from(self.id_bytes.load(Ordering::Relaxed)).ok()?;
        let raw: Vec<u8> =
            self.id.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let text = std::str::from_utf8(raw.get(..length)?).ok()?;
        is_request_id(text).then(|| RequestId::new(text))
    }

    fn total_of(&self, activity: u64) -> Option<&AtomicU64> {
        [Activity::Idle, Activity::InterpreterWait, Activity::Busy]
            .into_iter()
            .zip([&self.idle_ns, &self.interpreter_wait_ns, &self.busy_ns])
            .find(|(each, _)| *each as u64 == activity)
            .map(|(_, total)| total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_activity_is_counted_apart_and_the_one_that_lasts_goes_on() {
        let page = Page::default();
        assert_eq!(page.read(99), Some(Reading::default()));
        page.enter(Activity::Busy, 100);
        page.enter(Activity::Idle, 107);
        page.enter(Activity::InterpreterWait, 120);
        page.enter(Activity::Busy, 121);
        let reading = page.read(200).unwrap();
        assert_eq!((reading.busy_ns, reading.idle_ns, reading.interpreter_wait_ns), (7 + 79, 13, 1));
        page.enter(Activity::Idle, 300);
        let later = page.read(300).unwrap();
        assert_eq!((later.busy_ns, later.idle_ns, later.interpreter_wait_ns), (7 + 179, 13, 1));
        // A reader's clock may be read before the writer's.
        assert_eq!(page.read(0), Some(later));
    }

    #[test]
    fn the_request_that_runs_has_a_name_and_none_does_between_calls() {
        let page = Page::default();
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        for id in ["r", "01234567", "012345678", &longest] {
            page.begin(&RequestId::new(id));
            assert_eq!(page.read(0).unwrap().running, Some(RequestId::new(id)));
            page.end();
            assert_eq!(page.read(0).unwrap().running, None);
        }
        assert_eq!(page.read(0).unwrap().calls, 4);
        page.begin(&RequestId::new("x".repeat(REQUEST_ID_BYTES_MAX + 1)));
        assert_eq!(page.read(0).unwrap().calls, 4);
    }

    #[test]
    fn a_page_that_stays_in_the_middle_of_a_change_is_given_up() {
        let page = Page::default();
        page.sequence.store(7, Ordering::Relaxed);
        assert_eq!(page.read(0), None);
    }

    #[test]
    fn what_is_read_while_another_thread_writes_belongs_together() {
        let page = Page::default();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000_u64 {
                    let id = if n % 2 == 0 { "a".repeat(100) } else { "b".repeat(60) };
                    page.begin(&RequestId::new(id));
                    page.end();
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                let Some(Reading { running: Some(id), calls, .. }) = page.read(0) else { continue };
                let expected = if calls % 2 == 1 { "a".repeat(100) } else { "b".repeat(60) };
                assert_eq!(id.as_str(), expected);
            }
        });
    }

    proptest! {
        /// The writer is user code as far as the reader knows.
        #[test]
        fn whatever_is_written_is_figures_and_a_well_formed_name(words in proptest::collection::vec(any::<u64>(), 8 + ID_WORDS), length in 0_u64..200) {
            let page = Page::default();
            page.sequence.store(words[0] & !1, Ordering::Relaxed);
            for (word, value) in [&page.activity, &page.since_ns, &page.idle_ns, &page.busy_ns, &page.calls].into_iter().zip(&words[1..]) {
                word.store(*value, Ordering::Relaxed);
            }
            page.id_bytes.store(length, Ordering::Relaxed);
            for (word, value) in page.id.iter().zip(&words[8..]) {
                word.store(*value, Ordering::Relaxed);
            }
            let reading = page.read(words[7]).unwrap();
            prop_assert!(reading.running.is_none_or(|id| is_request_id(id.as_str())));
        }
    }
}
