//! A filter of system calls: denied is what reaches into other processes, changes the system, makes namespaces, or is
//! a large part of the kernel that a function has no use for. A list of what is denied and not of what is allowed:
//! numerical libraries may call whatever else there is.
//!
//! Denied calls fail with `EPERM`, so that libraries fall back where they can. Calls by another architecture's table
//! are not let through at all, as their numbers mean other things.

use std::io;

use libc::{c_long, sock_filter};

use crate::sys;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Numbers from here on are those of the x32 table, under the same architecture.
const X32_FIRST: u32 = 0x4000_0000;

const DENIED: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    // Keys of the user's session.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The system.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// Sockets that a function may have use for; the other families are seldom used and often broken.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// What types into the terminal of another process.
const TERMINAL_REQUESTS: [u32; 2] = [0x5412, 0x541c];

/// Filters the system calls of the calling thread, and of all that it will start, for good. `no_new_privs` must be set.
pub(super) fn restrict() -> io::Result<()> {
    let program = program();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: filter and program live through the call, which copies and does not write them.
    sys::check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter)
    })
    .map(drop)
}

const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
/// Where the lower half of the first argument is, on a little-endian machine.
const FIRST_ARGUMENT_AT: u32 = 16;
const SECOND_ARGUMENT_AT: u32 = 24;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

const fn fails_with(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

fn program() -> Vec<sock_filter> {
    let mut code = vec![load(ARCHITECTURE_AT)];
    code.extend(unless_equal(NATIVE, &[returns(libc::SECCOMP_RET_KILL_PROCESS)]));
    code.push(load(NUMBER_AT));
    if cfg!(target_arch = "x86_64") {
        code.extend(when(libc::BPF_JGE, X32_FIRST, &[returns(fails_with(libc::ENOSYS))]));
    }
    // Its flags lie in memory, where a filter cannot look; without it, libraries use `clone`.
    code.extend(when_number(libc::SYS_clone3, &[returns(fails_with(libc::ENOSYS))]));
    let mut of_clone = vec![load(FIRST_ARGUMENT_AT)];
    of_clone.extend(when(libc::BPF_JSET, NAMESPACES, &[returns(fails_with(libc::EPERM))]));
    of_clone.push(returns(ALLOW));
    code.extend(when_number(libc::SYS_clone, &of_clone));
    let mut of_ioctl = vec![load(SECOND_ARGUMENT_AT)];
    for request in TERMINAL_REQUESTS {
        of_ioctl.extend(when(libc::BPF_JEQ, request, &[returns(fails_with(libc::EPERM))]));
    }
    of_ioctl.push(returns(ALLOW));
    code.extend(when_number(libc::SYS_ioctl, &of_ioctl));
    let mut of_socket = vec![load(FIRST_ARGUMENT_AT)];
    for family in FAMILIES {
        of_socket.extend(when(libc::BPF_JEQ, family.cast_unsigned(), &[returns(ALLOW)]));
    }
    of_socket.push(returns(fails_with(libc::EAFNOSUPPORT)));
    code.extend(when_number(libc::SYS_socket, &of_socket));
    for number in DENIED {
        code.extend(when_number(*number, &[returns(fails_with(libc::EPERM))]));
    }
    code.push(returns(ALLOW));
    code
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("BPF's codes are of two bytes"), jt, jf, k }
}

fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

fn returns(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

/// Runs `then` where the comparison of what was loaded with `value` holds, and goes on behind it where it does not.
fn when(comparison: u32, value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    let length = u8::try_from(then.len()).expect("a branch is short");
    let mut code = vec![instruction(libc::BPF_JMP | libc::BPF_K | comparison, 0, length, value)];
    code.extend_from_slice(then);
    code
}

fn unless_equal(value: u32, then: &[sock_filter]) -> Vec<sock_filter> {
    let length = u8::try_from(then.len()).expect("a branch is short");
    let mut code = vec![instruction(libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ, length, 0, value)];
    code.extend_from_slice(then);
    code
}

fn when_number(number: c_long, then: &[sock_filter]) -> Vec<sock_filter> {
    when(libc::BPF_JEQ, u32::try_from(number).expect("numbers are small"), then)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// The filter holds for the thread that asks for it, so that a test can have it for itself.
    fn filtered<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().unwrap();
                restrict().unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    fn call(number: c_long, arguments: [c_long; 2]) -> Result<c_long, Errno> {
        // SAFETY: every call of these tests is refused, or reads its arguments as integers or null.
        Errno::result(unsafe { libc::syscall(number, arguments[0], arguments[1], 0, 0, 0, 0) })
    }

    #[test]
    fn every_call_of_the_list_is_denied() {
        let allowed: Vec<c_long> = filtered(|| {
            DENIED.iter().copied().filter(|number| call(*number, [0, 0]) != Err(Errno::EPERM)).collect()
        });
        assert_eq!(allowed, [] as [c_long; 0]);
    }

    #[test]
    fn namespaces_cannot_be_made_but_processes_can() {
        let namespace = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        let (by_clone, by_clone3, child) = filtered(|| {
            let child = std::process::Command::new("true").status();
            (call(libc::SYS_clone, [namespace, 0]), call(libc::SYS_clone3, [0, 0]), child)
        });
        assert_eq!(by_clone, Err(Errno::EPERM));
        assert_eq!(by_clone3, Err(Errno::ENOSYS));
        assert!(child.unwrap().success());
    }

    #[test]
    fn sockets_are_of_the_usual_families() {
        let stream = c_long::from(libc::SOCK_STREAM);
        let open = |family: i32| call(libc::SYS_socket, [c_long::from(family), stream]);
        let (usual, unusual) = filtered(|| (open(libc::AF_INET), [libc::AF_ALG, libc::AF_VSOCK].map(open)));
        assert!(usual.is_ok());
        assert_eq!(unusual, [Err(Errno::EAFNOSUPPORT); 2]);
    }

    #[test]
    fn nothing_is_typed_into_a_terminal() {
        let [sti, linux] =
            filtered(|| TERMINAL_REQUESTS.map(|r| call(libc::SYS_ioctl, [0, c_long::from(r)])));
        assert_eq!((sti, linux), (Err(Errno::EPERM), Err(Errno::EPERM)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_other_table_of_this_architecture_is_closed() {
        const X32_GETPID: c_long = 0x4000_0000 + 39;
        assert_eq!(filtered(|| call(X32_GETPID, [0, 0])), Err(Errno::ENOSYS));
    }
}
