"""`RESULTS.md`: one table of medians, the noise beside them, and each aim with its figure."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .cases import CASES, Case


@dataclass
class Results:
    """Everything that was found. Figures are kept by contestant, case and kind, one for each round."""

    seconds: float
    #: That are done.
    rounds: int = 0
    titles: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    extras: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contestant: str, case: str, found: dict[str, float]) -> None:
        kinds = self.figures.setdefault(contestant, {}).setdefault(case, {})
        for kind, value in found.items():
            kinds.setdefault(kind, []).append(value)

    def median(self, contestant: str, case: str, kind: str) -> float | None:
        values = self.figures.get(contestant, {}).get(case, {}).get(kind)
        return statistics.median(values) if values else None

    def extra(self, name: str) -> float | None:
        values = self.extras.get(name)
        return statistics.median(values) if values else None


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def _noise(values: list[float]) -> str:
    """The least and the most."""
    return f" ({_number(min(values))}–{_number(max(values))})" if len(values) > 1 else ""


def _cell(results: Results, contestant: str, case: Case) -> str:
    kinds = results.figures.get(contestant, {}).get(case.name)
    if not kinds:
        return ""
    if case.name == "add8" and "cpu_us" in kinds:
        return _number(statistics.median(kinds["cpu_us"])) + " µs" + _noise(kinds["cpu_us"])
    text = _number(statistics.median(kinds["rate"])) + _noise(kinds["rate"])
    if "p50_ms" in kinds:
        text += f"; {_number(statistics.median(kinds['p50_ms']))}, {_number(statistics.median(kinds['p99_ms']))}"
    return text


def _heading(case: Case) -> str:
    return f"CPU per call, {case.title}" if case.name == "add8" else case.title


Figure = Callable[[Results], "float | None"]


@dataclass(frozen=True)
class Aim:
    """What is to be reached. With `is_floor`, more is better."""

    what: str
    goal: float
    figure: Figure
    unit: str = ""
    is_floor: bool = True

    def row(self, results: Results) -> str:
        value = self.figure(results)
        wanted = f"{'≥' if self.is_floor else '≤'} {_number(self.goal)} {self.unit}".strip()
        if value is None:
            return f"| {self.what} | {wanted} | not measured | |"
        is_met = value >= self.goal if self.is_floor else value <= self.goal
        verdict = "met" if is_met else f"missed, {_number(value / self.goal)} of it"
        return f"| {self.what} | {wanted} | {_number(value)} {self.unit} | {verdict} |"


def _ratio(case: str, kind: str, other: str) -> Figure:
    def figure(results: Results) -> float | None:
        ours, theirs = results.median("millgate", case, kind), results.median(other, case, kind)
        return ours / theirs if ours and theirs else None

    return figure


def _own(case: str, kind: str) -> Figure:
    return lambda results: results.median("millgate", case, kind)


def _extra(name: str) -> Figure:
    return lambda results: results.extra(name)


def _best_peer(case: str) -> Figure:
    def figure(results: Results) -> float | None:
        limits = {"millgate", "nginx", "nginx-nginx", "hyper-hyper", "function", "function2", "function2-load"}
        rates = [results.median(name, case, "rate") for name in results.figures if name not in limits]
        best, ours = max((rate for rate in rates if rate), default=None), results.median("millgate", case, "rate")
        return ours / best if ours and best else None

    return figure


def _tail(results: Results) -> float | None:
    p50, p99 = results.median("millgate", "sleep16", "p50_ms"), results.median("millgate", "sleep16", "p99_ms")
    return p99 / p50 if p50 and p99 else None


def _of_ideal(results: Results) -> float | None:
    rate = results.median("millgate", "sleep16", "rate")
    return rate / 400 if rate else None


AIMS = [
    Aim("add, 64 conn. ÷ nginx in front of nginx", 0.55, _ratio("add64", "rate", "nginx-nginx")),
    Aim("add, 64 conn. ÷ FastAPI + uvicorn", 2.5, _ratio("add64", "rate", "fastapi")),
    Aim("add, 64 conn. ÷ BentoML", 15, _ratio("add64", "rate", "bentoml")),
    Aim("CPU per call, whole tree, add, 8 conn.", 60, _own("add8", "cpu_us"), "µs", is_floor=False),
    Aim("p50 with one connection ÷ nginx's", 1.5, _ratio("add1", "p50_ms", "nginx"), is_floor=False),
    Aim("the same ÷ that of nginx in front of nginx", 1.5, _ratio("add1", "p50_ms", "nginx-nginx"), is_floor=False),
    Aim(
        "Iris ÷ two copies of the bare function beside the load generator",
        0.8,
        _ratio("iris64", "rate", "function2-load"),
    ),
    Aim("the same, nobody calling from outside", 0.8, _ratio("iris64", "rate", "function2")),
    Aim("1 MB of floats ÷ FastAPI + uvicorn", 5, _ratio("floats1mb", "rate", "fastapi")),
    Aim("1 MB of floats ÷ the best peer", 2, _best_peer("floats1mb")),
    Aim("5 MB of floats ÷ FastAPI + uvicorn", 5, _ratio("floats5mb", "rate", "fastapi")),
    Aim("memory per waiting 5 MB call, beyond its body", 64, _extra("waiting_kb"), "KB", is_floor=False),
    Aim("10 ms, 4 replicas: rate ÷ ideal", 0.97, _of_ideal),
    Aim("10 ms, 4 replicas: p99 ÷ p50", 1.05, _tail, is_floor=False),
    Aim("gateway's overhead at half load, p99", 150, _extra("overhead_p99_us"), "µs", is_floor=False),
    Aim("idle, `add` with 2 replicas, Pss of everything", 60, _extra("idle_pss_mb"), "MB", is_floor=False),
    Aim("idle, CPU of everything", 0.2, _extra("idle_cpu_percent"), "% of a core", is_floor=False),
    Aim("start of the server to the first answer", 300, _extra("start_ms"), "ms", is_floor=False),
    Aim("cost of a call, 1 → 1,000 models, one called", 5, _extra("growth_one_model_percent"), "%", is_floor=False),
    Aim("the same, each called in turn (cold caches)", 5, _extra("growth_models_percent"), "%", is_floor=False),
    Aim("cost of a call, 1 → 10,000 API keys", 5, _extra("growth_keys_percent"), "%", is_floor=False),
    Aim("route change with 1,000 models", 20, _extra("route_change_ms"), "ms", is_floor=False),
]


def _machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    cpu = f"{os.cpu_count()} × {names[0] if names else platform.machine()}"
    return f"{cpu}, {memory_kib / 2**20:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def _wrk_version() -> str:
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(told.split()[:2])


def markdown(results: Results, stages: str) -> str:
    """The whole page. `stages` is kept as it was: where the time of a call goes is written by people."""
    shown = [case for case in CASES if any(case.name in of for of in results.figures.values())]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# Results",
        "",
        "Written by `make bench-peers`; what is measured and how is in [README.md](README.md).",
        "",
    ]
    lines += [
        f"- {now}, {results.versions.get('millgate', 'Millgate not measured')}",
        f"- {_machine()}, {_wrk_version()}",
    ]
    lines += [
        f"- medians of {results.rounds} rounds of {results.seconds:g} s, contestants in turn; in brackets the range",
        "- a cell: calls/s; p50, p99 in ms. CPU is that of the whole process tree, in user and system",
        "",
    ]
    lines += ["| | " + " | ".join(_heading(case) for case in shown) + " |", "| --- " * (len(shown) + 1) + "|"]
    for name, title in results.titles.items():
        if name in results.figures:
            lines.append("| " + " | ".join([title, *(_cell(results, name, case) for case in shown)]) + " |")
    lines += ["", "| | version | settings |", "| --- | --- | --- |"]
    lines += [f"| {results.titles[n]} | {results.versions.get(n, '')} | {s} |" for n, s in results.settings.items()]
    lines += [f"| {results.titles[name]} | not measured | {why} |" for name, why in results.missing.items()]
    lines += ["", "## Aims", "", "| aim | goal | figure | |", "| --- | --- | --- | --- |"]
    lines += [aim.row(results) for aim in AIMS]
    if results.extras:
        lines += ["", "| Millgate only | median | each round |", "| --- | --- | --- |"]
        for name, values in results.extras.items():
            each = ", ".join(_number(value) for value in values)
            lines.append(f"| {name} | {_number(statistics.median(values))} | {each} |")
    return "\n".join(lines) + "\n" + stages
