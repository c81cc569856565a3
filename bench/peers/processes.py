"""What processes cost, from `/proc`, and their end. This process adopts all that its children leave behind, so that a
server's whole tree is found and ended, daemons included."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36
#: Some that are asked to end wait for connections that nobody uses; there is nothing here that could be lost.
_END_WAIT_S = 3.0


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes a child of this process, not of init."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int) -> list[str]:
    """Fields of `/proc/<pid>/stat` from the third on: the second, in parentheses, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def descendants(root: int | None = None) -> list[int]:
    """Live processes below `root`, this process by default, itself not counted."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = _stat(int(entry))
                if fields[0] != "Z":
                    parents[int(entry)] = int(fields[1])
    found = [root or os.getpid()]
    for parent in found:
        found.extend(pid for pid, above in parents.items() if above == parent)
    return found[1:]


def cpu_s(pids: list[int]) -> float:
    """User and system time that these processes have had."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def running_s(pids: list[int]) -> float:
    """The same, of the threads that there are, to the nanosecond.

    In ticks of a hundredth of a second, of which each process has two that are rounded, an idle server is hardly seen.
    """
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                nanoseconds += int(task.read_text().split()[0])
    return nanoseconds / 1e9


def pss_mb(pids: list[int]) -> float:
    """Proportional memory: shared pages divided among those who share them."""
    kib = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
    return kib * 1024 / 1e6


def end_all() -> None:
    """Ends every process below this one: asks first, then kills."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _END_WAIT_S
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        while descendants() and time.monotonic() < until:
            _reap()
            time.sleep(0.05)
        _reap()
        if not descendants():
            return


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
