//! Descriptors out of user code's way: numbered high, so that a function which writes to descriptor 3 and up by mistake
//! does not write into a frame, and closed on exec, so that its children do not hold a gateway's connection.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};

/// From here on, where the limit of open files allows it, else from [`LOW_MIN`].
const HIGH_MIN: i32 = 900;
const LOW_MIN: i32 = 100;
/// Exit status of a process that has lost the descriptors it waits by.
const DESCRIPTORS_LOST: i32 = 70;

/// The same open file under a high number, closed on exec; the low number is free again.
pub(crate) fn out_of_the_way(fd: OwnedFd) -> nix::Result<OwnedFd> {
    duplicate_high(fd.as_fd())
}

fn duplicate_high(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let raw = match fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(HIGH_MIN)) {
        Err(Errno::EINVAL | Errno::EMFILE) => fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(LOW_MIN))?,
        other => other?,
    };
    // SAFETY: `fcntl` has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// An event counter, non-blocking.
pub(crate) fn event() -> nix::Result<OwnedFd> {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    out_of_the_way(event.into())
}

/// Makes an event readable.
pub(crate) fn raise(event: &OwnedFd) {
    // A full counter is readable already; there is no other failure.
    let _ = nix::unistd::write(event, &1_u64.to_ne_bytes());
}

/// Makes an event unreadable until it is raised again.
pub(crate) fn clear(event: &OwnedFd) {
    let _ = nix::unistd::read(event, &mut [0; 8]);
}

/// A timer that is not set, non-blocking.
pub(crate) fn timer() -> nix::Result<OwnedFd> {
    // SAFETY: asks for a new descriptor only.
    let raw = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
    // SAFETY: `timerfd_create` has just made it.
    out_of_the_way(unsafe { OwnedFd::from_raw_fd(Errno::result(raw)?) })
}

/// Makes a timer readable once, so many milliseconds from now, whatever it was set to and whether it was over.
pub(crate) fn set_timer(timer: &OwnedFd, after_ms: u64) {
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (seconds, milliseconds) = (after_ms / 1_000, after_ms % 1_000);
    let after = libc::timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: i64::try_from(milliseconds * 1_000_000).expect("it is less than a second"),
    };
    let spec = libc::itimerspec { it_interval: never, it_value: after };
    // SAFETY: `spec` lives through the call, and the old setting is not asked for. A valid setting is not refused.
    unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) };
}

/// Makes a timer unreadable; false if it had not gone off.
pub(crate) fn take_timer(timer: &OwnedFd) -> bool {
    nix::unistd::read(timer, &mut [0; 8]).is_ok()
}

/// What epoll has to tell of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its number.
    pub(crate) token: u64,
    /// The peer is gone, in both directions; otherwise there is something to read.
    pub(crate) is_ended: bool,
}

/// An epoll of level-triggered registrations, each with a number of the caller's.
#[derive(Debug)]
pub(crate) struct Poll(OwnedFd);

impl Poll {
    pub(crate) fn new() -> nix::Result<Self> {
        use nix::sys::epoll::{Epoll, EpollCreateFlags};
        out_of_the_way(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0).map(Self)
    }

    pub(crate) fn add(&self, fd: &OwnedFd, token: u64, events: i32) -> nix::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, events)
    }

    /// Does nothing to a registration that is gone.
    pub(crate) fn change(&self, fd: &OwnedFd, token: u64, events: i32) {
        let _ = self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, events);
    }

    /// Must come before a close: a forked child of user code may hold the same open file, and then closing it here
    /// does not end the registration.
    pub(crate) fn remove(&self, fd: RawFd) {
        // Not registered is as good.
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, events: i32) -> nix::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: token };
        // SAFETY: `event` lives through the call; a number that is not open is refused by the kernel.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) };
        Errno::result(result).map(drop)
    }

    /// What one registration has to tell; `None` when the time is over or a signal came. -1 ms waits without end.
    ///
    /// A failure of any other kind ends the process: user code has closed or replaced our descriptors, and a process
    /// that cannot wait would spin in place of serving. Its supervisor fills the slot anew.
    pub(crate) fn wait(&self, timeout_ms: i32) -> Option<Told> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: `event` has room for the one event asked for.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, timeout_ms) };
        if count < 0 && Errno::last() != Errno::EINTR {
            // SAFETY: ends the process without running anything more of it.
            unsafe { libc::_exit(DESCRIPTORS_LOST) }
        }
        let ended = (libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
        (count == 1).then_some(Told { token: event.u64, is_ended: event.events & ended != 0 })
    }

    pub(crate) fn raw(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
