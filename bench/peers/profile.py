"""`make bench-profile`: what one call of `add` costs in counts, which do not depend on what else the machine does.

    python3 -m peers.profile [--connections N] [--instructions]

System calls of gateway and replica come from `strace -c`. With `--instructions` the server runs below callgrind
and the instructions of a call are the difference between many calls and few, by function."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .cases import Case
from .load import run
from .millgate import Millgate
from .processes import adopt_orphans, cpu_s, descendants, end_all

_TRACE_S = 4
#: Functions that are named, the dearest first.
_FUNCTIONS_SHOWN = 45


def main() -> int:
    parser = argparse.ArgumentParser(prog="peers.profile", description=__doc__)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--instructions", action="store_true")
    args = parser.parse_args()
    adopt_orphans()
    case = Case("profile", "", "add", args.connections, workers=1)
    with tempfile.TemporaryDirectory(prefix="millgate-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            if args.instructions:
                _instructions(case, folder)
            else:
                _system_calls(case, folder)
        finally:
            end_all()
    return 0


def _system_calls(case: Case, folder: Path) -> None:
    millgate = Millgate()
    server = millgate.serve(folder)
    millgate.deploy("add", case.workers)
    target = millgate.target(case)
    run(target, case, 1)
    # The template and the spare have the same program, and had less to do.
    replica = max((pid for pid in descendants() if "millgate-replica" in _command(pid)), key=lambda pid: cpu_s([pid]))
    for title, pid in (("gateway", server), ("replica", replica)):
        counts = folder / f"strace-{pid}"
        tracer = subprocess.Popen(
            ["strace", "-c", "-f", "-q", "-o", str(counts), "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        time.sleep(0.5)
        before = _answered(millgate)
        found = run(target, case, _TRACE_S)
        calls = _answered(millgate) - before
        tracer.terminate()
        tracer.wait()
        print(f"{title}: system calls per call of `add`, {case.connections} connections ({found['rate']:.0f}/s traced)")
        for line in counts.read_text().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total" and int(fields[3]) > calls / 100:
                print(f"  {fields[-1]:<16} {int(fields[3]) / calls:6.2f}")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")


def _answered(millgate: Millgate) -> int:
    """Calls that ended well, by the gateway's own count."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{millgate.admin_port}/metrics", timeout=10) as page:
        counts = re.findall(r'^millgate_calls_total\{.*code="ok".*\} (\d+)', page.read().decode(), re.MULTILINE)
    return sum(int(count) for count in counts)


def _instructions(case: Case, folder: Path) -> None:
    """Callgrind is told when to count, so that the start of the server is not counted."""
    millgate = Millgate()
    out = folder / "callgrind"
    millgate.wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    server = millgate.serve(folder)
    millgate.deploy("add", case.workers)
    target = millgate.target(case)
    run(target, case, 1)
    _control("--instr=on", server)
    before = _answered(millgate)
    run(target, case, _TRACE_S)
    calls = _answered(millgate) - before
    _control("--dump", server)
    dumps = sorted(folder.glob("callgrind*"), key=lambda path: path.stat().st_size)
    told = subprocess.run(
        ["callgrind_annotate", "--threshold=97", str(dumps[-1])], capture_output=True, text=True, check=True
    ).stdout
    shown = 0
    for line in told.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*([\d.]+)%\)\s+(.*)", line)
        if found and shown < _FUNCTIONS_SHOWN:
            each = int(found[1].replace(",", "")) / calls
            print(f"{each:9.0f}  {re.sub(r'^[^:]*:', '', found[3])[:110]}")
            shown += 1


def _control(option: str, pid: int) -> None:
    subprocess.run(["callgrind_control", option, str(pid)], env=os.environ, capture_output=True, check=True)


if __name__ == "__main__":
    sys.exit(main())
