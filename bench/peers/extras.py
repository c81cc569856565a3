"""What only Millgate is asked: gateway overhead, idleness, the start, growth."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cases import CASES, Case
from .contestants import RELEASE
from .environments import BENCH
from .load import Target, call_once, run
from .millgate import Millgate
from .processes import descendants, pss_mb, running_s

ADD = CASES[0]
_IDLE_SETTLE_S = 3.0
_WAITING_CALLS = 40
_LINE_WAIT_S = 20.0
#: The load generator begins so long before what is measured beside it, and goes on so long behind it.
_LOAD_MARGIN_S = 0.5
#: The most that a body may have.
_BODY_BYTES = 5_242_880


def _example(name: str, *args: str) -> object:
    done = subprocess.run([str(RELEASE / "examples" / name), *args], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def overhead(folder: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """p99 by the gateway less p99 by the replica's own socket, at half load, in microseconds."""
    millgate = Millgate()
    millgate.start(ADD, folder)
    target = millgate.target(ADD)
    run_dir = max((folder / "data" / "run").iterdir(), key=lambda path: path.stat().st_mtime)
    address = target.url.removeprefix("http://").removesuffix("/model")
    access_key = millgate.model["access_key"]
    rows = _example("overhead", address, target.authorization, access_key, str(run_dir), str(seconds), str(rounds))
    assert isinstance(rows, list)
    return {
        "overhead_p99_us": [row["http_p99_us"] - row["direct_p99_us"] for row in rows],
        "overhead_p50_us": [row["http_p50_us"] - row["direct_p50_us"] for row in rows],
        "overhead_calls_per_s": [row["calls_per_s"] for row in rows],
    }


def idle(folder: Path, seconds: float) -> dict[str, list[float]]:
    """Memory (Pss, MB) and processor (percent of a core) of everything: two replicas, nobody calling."""
    millgate = Millgate()
    millgate.start(ADD, folder)
    call_once(millgate.target(ADD), 10)
    time.sleep(_IDLE_SETTLE_S)
    processes = descendants()
    before = running_s(processes)
    time.sleep(seconds)
    used = running_s(processes) - before
    return {"idle_pss_mb": [pss_mb(processes)], "idle_cpu_percent": [used / seconds * 100]}


def start(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds from the start of the server's process to its first answer, the deployment being there already."""
    millgate = Millgate()
    pid = millgate.serve(folder)
    millgate.deploy("add", 2)
    target = millgate.target(ADD)
    found = []
    for _ in range(rounds):
        # Its replicas outlive a killed server, as they do an upgrade.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        (folder / "output").unlink()
        begun = time.perf_counter()
        again = Millgate()
        again.model, again.folder = millgate.model, folder
        pid = again.serve(folder)
        target = again.target(ADD)
        while True:
            try:
                call_once(target, 10)
                break
            except OSError:
                time.sleep(0.002)
        found.append((time.perf_counter() - begun) * 1e3)
    return {"start_ms": found}


def waiting(folder: Path) -> dict[str, list[float]]:
    """What a call in line with 5 MB costs the gateway beyond its body, in KB: all calls but the first wait."""
    millgate = Millgate()
    server = millgate.serve(folder)
    millgate.deploy("hold", 1)
    target = millgate.target(Case("hold", "", "hold", 1, workers=1))
    call_once(target, 30)
    before_kb = _private_kb(server)
    callers = [_send(target, target.body.replace('"seconds": 0', f'"seconds": {_LINE_WAIT_S:g}'))]
    body = _padded(target.body)
    callers += [_send(target, body) for _ in range(_WAITING_CALLS)]
    until = time.monotonic() + _LINE_WAIT_S
    while millgate.gauge("millgate_line_calls") < _WAITING_CALLS:
        if time.monotonic() > until:
            raise RuntimeError(f"not {_WAITING_CALLS} calls in line within {_LINE_WAIT_S:g} s")
        time.sleep(0.1)
    each_kb = (_private_kb(server) - before_kb) / _WAITING_CALLS
    for caller in callers:
        caller.close()
    return {"waiting_kb": [each_kb - len(body) / 1024]}


def _padded(body: str) -> str:
    """The same call, with so much in it that it is as large as may be."""
    name = ', "padding": ""'
    padding = "x" * (_BODY_BYTES - len(body) - len(name))
    return f"{body[:-2]}{name[:-1]}{padding}{name[-1]}{body[-2:]}"


def _send(target: Target, body: str) -> socket.socket:
    """A call whose answer nobody reads."""
    host, port = target.url.removeprefix("http://").removesuffix("/model").split(":")
    caller = socket.create_connection((host, int(port)), _LINE_WAIT_S)
    head = f"POST /model HTTP/1.1\r\nHost: {host}\r\nAuthorization: {target.authorization}\r\n"
    caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return caller


def _private_kb(pid: int) -> int:
    """Memory of a process that is no file's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def growth(rounds: int, calls: int) -> dict[str, list[float]]:
    """What a call costs the gateway's thread with more models and keys, and how long a route change takes."""
    found = _example("growth", str(calls), str(rounds))
    assert isinstance(found, dict)
    return found


def bare_loop_beside_load(
    case: Case, python: Path, seconds: float, copies: int, folder: Path, load_of: tuple[Target, float]
) -> dict[str, float]:
    """The same while the load generator calls a server that answers a fixed text, about so many times a second: as much
    of the machine as it takes from whom it measures, and what that server takes besides."""
    target, rate = load_of
    pause_ms = max(1, round(case.connections / rate * 1e3) - 1)
    with ThreadPoolExecutor() as pool:
        load = pool.submit(run, target, case, seconds + 2 * _LOAD_MARGIN_S, pause_ms)
        time.sleep(_LOAD_MARGIN_S)
        found = bare_loop(case, python, seconds, copies, folder)
        found["beside_calls_per_s"] = load.result()["rate"]
    return found


def bare_loop(case: Case, python: Path, seconds: float, copies: int, folder: Path) -> dict[str, float]:
    """The function alone in so many processes at once: calls per second of all, CPU per call."""
    arguments = folder / "arguments.json"
    arguments.write_text(case.arguments())
    servers = BENCH / "peers" / "servers"
    environment = {**os.environ, "PYTHONPATH": str(servers)}
    environment["BENCH_FUNCTION_FILE"] = str(BENCH / "functions" / case.function / "predict.py")
    command = [str(python), str(servers / "loop.py"), str(arguments), str(seconds)]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(copies)]
    told = [each.communicate()[0].split() for each in running]
    return {
        "rate": sum(float(rate) for rate, _ in told),
        "cpu_us": statistics.mean(float(cpu_us) for _, cpu_us in told),
    }
