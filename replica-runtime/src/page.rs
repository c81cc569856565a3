//! What the replica notes for its supervisor: what it does and for how long, and whose the bytes are that it prints
//! (`contract`'s `page` and `mark`). One per process, as its output is.
//!
//! A call costs some stores and readings of the clock, and no system call. One that prints costs a `write` before its
//! first bytes on a stream and another behind its last, each with an `fstat`: user code may have put a file in the
//! stream's place, and a mark has no business there.
//!
//! # Whose a line is
//!
//! Python's own standard streams mark what they print, exactly: the mark is in the pipe before the call's bytes, and its
//! end is in the pipe before the call is answered. So is what C code and child processes print in such a call, after
//! Python has printed. What nothing has marked the supervisor attributes to the call that it finds running when it reads it:
//! right but for a last line that is read after the call, which then is nobody's, or the next call's. A shake of hands
//! for those would cost each call a system call, also the many that print nothing.
//! A line that one call leaves in Python's buffer without its end is the call's that completes it.
//!
//! Everything here is done by threads that hold the interpreter, but for the watcher's last words, which end the process.

use std::{
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering},
};

use millgate_contract::{
    ids::RequestId,
    mark,
    page::{Activity, PAGE_BYTES, Page},
};
use nix::sys::stat::fstat;

static PAGE: AtomicPtr<Page> = AtomicPtr::new(std::ptr::null_mut());
/// The process that the page is of: a child that user code forks has it too.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// The number of the call that runs; 0 while none does.
static CALL: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
static STREAMS: [Stream; 2] = [Stream::new(libc::STDOUT_FILENO), Stream::new(libc::STDERR_FILENO)];

/// A standard stream.
struct Stream {
    fd: RawFd,
    /// The inode of the supervisor's pipe.
    pipe: AtomicU64,
    /// The call whose mark stands in the pipe without an end.
    marked: AtomicU64,
}

/// Takes the page that the supervisor has handed over. Without one, or with something else, nothing is noted.
pub(crate) fn install(memory: &OwnedFd) {
    if fstat(memory).is_ok_and(|stat| usize::try_from(stat.st_size) == Ok(PAGE_BYTES)) {
        // SAFETY: asks for new memory, of a file of this size.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), PAGE_BYTES, access, libc::MAP_SHARED, memory.as_raw_fd(), 0)
        };
        if at != libc::MAP_FAILED {
            for stream in &STREAMS {
                stream.pipe.store(stream.inode(), Ordering::Relaxed);
            }
            OWNER.store(nix::unistd::getpid().as_raw(), Ordering::Relaxed);
            PAGE.store(at.cast(), Ordering::Release);
        }
    }
}

fn page() -> Option<&'static Page> {
    // SAFETY: null, or memory of a page's size, aligned, never unmapped; all of it is atomic, and any bits are a value.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// Another activity begins.
pub(crate) fn enter(activity: Activity) {
    if let Some(page) = page() {
        page.enter(activity, now_ns());
    }
}

/// A call begins.
pub(crate) fn begin(request_id: &RequestId) {
    if let Some(page) = page() {
        page.begin(request_id);
        CALL.store(CALLS.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// The call is over; to be called before it is answered.
pub(crate) fn end() {
    let call = CALL.swap(0, Ordering::Relaxed);
    let Some(page) = page().filter(|_| call != 0) else { return };
    for stream in &STREAMS {
        if stream.marked.swap(0, Ordering::Relaxed) == call {
            stream.put(None);
        }
    }
    page.end();
}

/// Something is about to be printed to `fd`.
pub(crate) fn mark(fd: RawFd) {
    let call = CALL.load(Ordering::Relaxed);
    let Some(stream) = STREAMS.iter().find(|stream| stream.fd == fd && call != 0) else { return };
    if stream.marked.load(Ordering::Relaxed) == call {
        return;
    }
    let running = page().and_then(|page| page.read(now_ns())).and_then(|reading| reading.running);
    if running.is_some_and(|request_id| stream.put(Some(&request_id))) {
        stream.marked.store(call, Ordering::Relaxed);
    }
}

impl Stream {
    const fn new(fd: RawFd) -> Self {
        Self { fd, pipe: AtomicU64::new(0), marked: AtomicU64::new(0) }
    }

    /// 0 if nothing is open there.
    fn inode(&self) -> u64 {
        // SAFETY: all zeros is a value, and it has room for what is asked; a number that is not open is refused.
        let (result, stat) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(self.fd, &raw mut stat), stat)
        };
        if result == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO { stat.st_ino } else { 0 }
    }

    /// Writes a mark; false where that may not be, or does not go.
    fn put(&self, request_id: Option<&RequestId>) -> bool {
        let pipe = self.pipe.load(Ordering::Relaxed);
        let is_ours = OWNER.load(Ordering::Relaxed) == nix::unistd::getpid().as_raw();
        if pipe == 0 || !is_ours || self.inode() != pipe {
            return false;
        }
        let Some(key) = page().and_then(Page::mark_key) else { return false };
        let bytes = mark::encode(key, request_id);
        loop {
            // SAFETY: `bytes` can be read for its length. So few go into a pipe whole or not at all.
            let count = unsafe { libc::write(self.fd, bytes.as_ptr().cast(), bytes.len()) };
            if count > 0 || nix::Error::last() != nix::Error::EINTR {
                return count > 0;
            }
        }
    }
}

fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` has room for the time. The clock is there on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
