//! System calls that have no safe wrapper elsewhere, each made safe here.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    sys::signal::{SigHandler, SigSet, Signal},
    unistd::Pid,
};
use tokio::io::unix::AsyncFd;

/// Turns the return value of a system call into a result.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), libc::PIDFD_NONBLOCK) })?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process behind a pidfd; one that has ended already is no error.
pub(crate) fn pidfd_signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    // SAFETY: a null `siginfo` is allowed and means what `kill` would send.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    });
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Attributes of a mount and of all mounts below it.
pub(crate) fn mount_setattr_recursive(path: &CString, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: path and attributes live through the call, and the size is that of the structure.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Gives up every capability, in each of the sets that exec could bring one back from.
pub(crate) fn drop_bounding_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: the call takes integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The first number past the last capability of this kernel.
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
    }
    // SAFETY: the call takes integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    }))?;
    Ok(())
}

/// Empties the effective, permitted and inheritable capabilities.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    // `struct __user_cap_header_struct` and two `__user_cap_data_struct` of capget(2), version 3.
    let header: [u32; 2] = [0x2008_0522, 0];
    let data = [0_u32; 6];
    // SAFETY: both arrays have the layout of version 3 and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    Ok(())
}

/// Moves `source` to number `target`, open across exec.
pub(crate) fn dup_to(source: RawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: the call takes integers; the caller is about to exec and owns no other use of `target`.
    check(libc::c_long::from(unsafe { libc::dup2(source, target) }))?;
    Ok(())
}

/// A copy of `source` at a number of at least `min`, closed on exec.
pub(crate) fn dup_above(source: RawFd, min: RawFd) -> io::Result<RawFd> {
    // SAFETY: the call takes integers and makes a new descriptor.
    Ok(check(libc::c_long::from(unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, min) }))? as RawFd)
}

/// Marks every descriptor from `first` on to be closed on exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes integers; it only sets flags.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Turns on the loopback interface of this process's network namespace.
pub(crate) fn raise_loopback() -> io::Result<()> {
    // SAFETY: the call takes integers and makes a new descriptor.
    let fd = check(libc::c_long::from(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    }))?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: an `ifreq` is integers and bytes: all zeros is a value of it, with an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request of netdevice(7) has its name and flags set, and lives through the call.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))?;
    Ok(())
}

/// Signals as a new program expects them: all at their defaults, none blocked.
pub(crate) fn reset_signals() -> nix::Result<()> {
    for signal in Signal::iterator() {
        if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action runs no code of ours.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
    }
    SigSet::all().thread_unblock()
}

/// Eight random bytes from the kernel.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer and length are those of `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 8, "getrandom of 8 bytes never comes up short");
    u64::from_ne_bytes(bytes)
}

/// Ends the process at once, running nothing that was registered for its end: for a child that could not exec.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Puts a descriptor into the event loop.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, is the same descriptor for as long as it lives, and lives in the `AsyncFd`.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
