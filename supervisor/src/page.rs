//! The page on which a replica notes what it does ([`millgate_contract::page`]), as it is made and read here. What it
//! says is bounded by what can be: a replica has not done anything for longer than it has existed.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::NonNull,
    sync::Arc,
    time::Instant,
};

use millgate_contract::{
    ids::{ReplicaId, RequestId},
    mark::MarkKey,
    page::{MARK_KEY_AT, PAGE_BYTES, Page, Reading},
    supervision::ReplicaUsage,
};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        uio::pwrite,
    },
};

use crate::sys::random_u64;

/// A page shared with one replica. Clones read the same.
#[derive(Debug, Clone)]
pub(crate) struct SharedPage(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    at: NonNull<Page>,
    /// Kept apart from the page, on which the replica can write.
    mark_key: MarkKey,
    made: Instant,
}

// SAFETY: all of a page is atomic; it is unmapped by whoever has it last.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl SharedPage {
    /// A page, and the memory to hand to its replica. Its size is sealed: if the replica could make it smaller, our
    /// reading would end us.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let memory = memfd_create(c"page", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        nix::unistd::ftruncate(&memory, PAGE_BYTES.cast_signed() as libc::off_t)?;
        let mark_key = MarkKey(random_u64().max(1));
        pwrite(&memory, &mark_key.0.to_ne_bytes(), MARK_KEY_AT.cast_signed() as libc::off_t)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(memory.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
        // SAFETY: asks for new memory, of a file of this size.
        let at = unsafe {
            let nowhere = std::ptr::null_mut();
            libc::mmap(nowhere, PAGE_BYTES, libc::PROT_READ, libc::MAP_SHARED, memory.as_raw_fd(), 0)
        };
        let at = NonNull::new(at).filter(|at| at.as_ptr() != libc::MAP_FAILED);
        let at = at.ok_or_else(io::Error::last_os_error)?.cast();
        Ok((Self(Arc::new(Mapping { at, mark_key, made: Instant::now() })), memory))
    }

    fn read(&self) -> Option<Reading> {
        // SAFETY: mapped for as long as `self` lives, aligned and large enough; any bits are a value of it, and nobody
        // writes to it but by atomic stores, as far as this process can tell.
        let page = unsafe { self.0.at.as_ref() };
        page.read(now_ns())
    }

    /// What the replica's marks are told from other text by.
    pub(crate) fn mark_key(&self) -> MarkKey {
        self.0.mark_key
    }

    /// The request of the call that runs.
    pub(crate) fn running(&self) -> Option<RequestId> {
        self.read()?.running
    }

    /// What the replica has done so far; none if it has noted nothing.
    pub(crate) fn usage(&self, replica: &ReplicaId) -> Option<ReplicaUsage> {
        let lived_us = self.0.made.elapsed().as_micros() as u64;
        let reading = self.read()?;
        bounded(replica, &reading, lived_us)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, with this size, and nobody reads it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), PAGE_BYTES) };
    }
}

fn bounded(replica: &ReplicaId, reading: &Reading, lived_us: u64) -> Option<ReplicaUsage> {
    if *reading == Reading::default() {
        return None;
    }
    let mut left_us = lived_us;
    let mut take = |ns: u64| {
        let us = (ns / 1_000).min(left_us);
        left_us -= us;
        us
    };
    Some(ReplicaUsage {
        replica: replica.clone(),
        calls: reading.calls,
        busy_us: take(reading.busy_ns),
        interpreter_wait_us: take(reading.interpreter_wait_ns),
        idle_us: take(reading.idle_ns),
    })
}

/// The clock that the replica reads.
fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` has room for the time. The clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use millgate_contract::page::Activity;
    use proptest::prelude::*;

    use super::*;

    /// The replica's side.
    fn map(memory: &OwnedFd) -> &'static Page {
        // SAFETY: a page of this size, never unmapped.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let at =
                libc::mmap(std::ptr::null_mut(), PAGE_BYTES, access, libc::MAP_SHARED, memory.as_raw_fd(), 0);
            assert_ne!(at, libc::MAP_FAILED);
            &*at.cast::<Page>()
        }
    }

    #[test]
    fn what_a_replica_notes_is_read_and_its_page_keeps_its_size() {
        let (shared, memory) = SharedPage::new().unwrap();
        let replica = ReplicaId::new("r");
        assert_eq!(shared.usage(&replica), None);
        let page = map(&memory);
        assert_eq!(page.mark_key(), Some(shared.mark_key()));
        page.enter(Activity::Busy, now_ns());
        page.begin(&RequestId::new("a"));
        assert_eq!(shared.running(), Some(RequestId::new("a")));
        assert_eq!(shared.usage(&replica).unwrap().calls, 1);
        for bytes in [0, 2 * PAGE_BYTES] {
            assert!(nix::unistd::ftruncate(&memory, i64::try_from(bytes).unwrap()).is_err(), "{bytes}");
        }
        drop(memory);
        page.end();
        assert_eq!(shared.running(), None);
    }

    proptest! {
        #[test]
        fn whatever_a_replica_claims_it_has_not_lived_longer_than_it_has(
            busy_ns: u64, interpreter_wait_ns: u64, idle_ns: u64, lived_us: u64,
        ) {
            let reading = Reading { busy_ns, interpreter_wait_ns, idle_ns, calls: 1, running: None };
            let usage = bounded(&ReplicaId::new("r"), &reading, lived_us).unwrap();
            let sum = usage.busy_us.checked_add(usage.interpreter_wait_us).unwrap();
            prop_assert!(sum.checked_add(usage.idle_us).unwrap() <= lived_us);
            if (busy_ns / 1_000).saturating_add(interpreter_wait_ns / 1_000).saturating_add(idle_ns / 1_000) <= lived_us {
                prop_assert_eq!(usage.idle_us, idle_ns / 1_000);
            }
        }
    }
}
