//! SIGTERM as an event: it asks the replica to finish its call and leave.
//!
//! A handler and not a blocked signal, because children of user code would inherit the mask. A child that user code
//! forks without exec (`multiprocessing`) does inherit the handler; there it restores the default and dies by it, or a
//! pool that ends its workers would end the replica.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicI32, Ordering},
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static EVENT: AtomicI32 = AtomicI32::new(-1);
static OWNER: AtomicI32 = AtomicI32::new(-1);

/// From now on SIGTERM raises `event`, which must stay open until the process ends. Replaces what user code installed.
pub(crate) fn terminate_raises(event: &OwnedFd) -> nix::Result<()> {
    EVENT.store(event.as_raw_fd(), Ordering::SeqCst);
    OWNER.store(std::process::id().cast_signed(), Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(on_terminate), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler makes only async-signal-safe calls.
    unsafe { sigaction(Signal::SIGTERM, &action) }.map(drop)
}

extern "C" fn on_terminate(_: i32) {
    // SAFETY: getpid, write, signal and kill are async-signal-safe; `errno` is put back as it was.
    unsafe {
        let errno = *libc::__errno_location();
        if libc::getpid() == OWNER.load(Ordering::SeqCst) {
            let one = 1_u64.to_ne_bytes();
            libc::write(EVENT.load(Ordering::SeqCst), one.as_ptr().cast(), one.len());
        } else {
            libc::signal(libc::SIGTERM, libc::SIG_DFL);
            libc::kill(libc::getpid(), libc::SIGTERM);
        }
        *libc::__errno_location() = errno;
    }
}

/// A thread that can be interrupted as by Ctrl-C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interruptible(libc::pthread_t);

impl Interruptible {
    /// The calling thread, which must live as long as the process.
    pub(crate) fn this_thread() -> Self {
        // SAFETY: always succeeds.
        Self(unsafe { libc::pthread_self() })
    }

    /// Makes Python raise `KeyboardInterrupt` there, without attaching to it. Sent as a signal to that thread and not by
    /// `PyErr_SetInterrupt`, which would leave a `sleep` or `recv` that it is in. Does nothing where user code has taken
    /// Python's handler away: the default action would kill the process.
    pub(crate) fn interrupt(self) {
        // SAFETY: asks for the handler only; zeros are a valid place to write it to. The thread is alive.
        unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(libc::SIGINT, std::ptr::null(), &raw mut present) == 0;
            if known && present.sa_sigaction != libc::SIG_DFL && present.sa_sigaction != libc::SIG_IGN {
                libc::pthread_kill(self.0, libc::SIGINT);
            }
        }
    }
}

impl Interruptible {
    /// Ends the system call that the thread may be in, so that Python looks at the interrupt it has been sent. One that
    /// came just before the call began would else lie there until the call ends by itself: Python looks, then sleeps.
    /// Does nothing else, so it can be repeated where a second interrupt would hit the clearing up after the first.
    pub(crate) fn nudge(self) {
        // SAFETY: the thread is alive, and the signal has a handler (`nudges_do_nothing_else`).
        unsafe { libc::pthread_kill(self.0, libc::SIGRTMAX()) };
    }
}

/// Gives the signal of [`Interruptible::nudge`] a handler that does nothing, and no restart of system calls.
pub(crate) fn nudges_do_nothing_else() -> nix::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: zeros are a valid action; the handler does nothing.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        libc::sigaction(libc::SIGRTMAX(), &raw const action, std::ptr::null_mut())
    };
    nix::errno::Errno::result(result).map(drop)
}

/// When it returns, an interrupt sent to this thread before has been noted by Python: a signal is handed over at the
/// latest on the way out of a system call.
pub(crate) fn receive_interrupts() {
    // SAFETY: always succeeds.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Runs `start` with all signals blocked, so that a thread it starts never gets one.
pub(crate) fn blocked<T>(start: impl FnOnce() -> T) -> nix::Result<T> {
    let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let result = start();
    before.thread_set_mask()?;
    Ok(result)
}
