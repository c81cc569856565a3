"""One run of `wrk`, and what the servers' processes had of the processor meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .cases import Case
from .processes import cpu_s, descendants

_SCRIPT = Path(__file__).parent / "wrk.lua"


@dataclass(frozen=True)
class Target:
    """Where a contestant is called, and how."""

    url: str
    body: str
    authorization: str = ""


def call_once(target: Target, timeout_s: float) -> str:
    """The answer to one call."""
    headers = {"Content-Type": "application/json"}
    if target.authorization:
        headers["Authorization"] = target.authorization
    request = urllib.request.Request(target.url, target.body.encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return str(answer.read().decode())


def run(target: Target, case: Case, seconds: float, pause_ms: int = 0) -> dict[str, float]:
    """Calls per second, latencies in milliseconds, CPU per call in microseconds. A failed call is an error.

    Each connection waits `pause_ms` before each call.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(target.body)
        body.flush()
        command = ["wrk", f"-t{case.threads}", f"-c{case.connections}", f"-d{max(1, round(seconds))}s", "--timeout=30s"]
        command += ["-s", str(_SCRIPT), target.url]
        environment = {**os.environ, "BENCH_BODY": body.name, "BENCH_AUTHORIZATION": target.authorization}
        environment["BENCH_PAUSE_MS"] = str(pause_ms)
        servers = descendants()
        before = cpu_s(servers)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        cpu = cpu_s(servers) - before
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
    told = json.loads(lines[-1])
    if told["failed"] or not told["calls"]:
        raise RuntimeError(f"{told['failed']} of {told['calls']} calls failed")
    return {
        "rate": told["calls"] / told["seconds"],
        "p50_ms": told["p50_us"] / 1e3,
        "p99_ms": told["p99_us"] / 1e3,
        "cpu_us": cpu / told["calls"] * 1e6,
    }
