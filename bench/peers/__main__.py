"""`make bench-peers`: everything beside everything, in turns, several times, and one page of results.

python3 -m peers [--peers a,b] [--cases a,b] [--rounds N] [--seconds N] [--extras a,b] [--out FILE]
python3 -m peers --compare PROGRAMS   two builds of Millgate: the one in target/release, and the one in PROGRAMS
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import extras
from .cases import CASES, Case
from .contestants import PEERS, Contestant
from .environments import BENCH, NotInstalledError, python_of
from .limits import LIMITS, Nginx
from .load import run
from .millgate import Millgate
from .processes import adopt_orphans, end_all
from .report import Results, markdown

#: How long a server may take until it answers.
_READY_WAIT_S = 60.0
_WARM_S = 1.0
_WARM_TRIES = 10
#: A second that is better by less ends the warming.
_WARM_GAIN = 1.1
#: Contestants that are not servers: the function alone, in one process and in two.
_LOOPS = {"function": 1, "function2": 2}
_EXTRAS = ["overhead", "idle", "start", "waiting", "growth"]
_STAGES_BEGIN = "\n## Where a call goes"


def main() -> int:
    args = _arguments()
    adopt_orphans()
    everybody: list[Contestant] = [Millgate(), *(kind() for kind in LIMITS + PEERS)]
    if args.compare:
        everybody = [Millgate(), Millgate(Path(args.compare).resolve(), "base")]
        everybody[1].title = "Millgate, base"
    wanted = args.peers.split(",") if args.peers else [c.name for c in everybody] + list(_LOOPS)
    cases = [case for case in CASES if not args.cases or case.name in args.cases.split(",")]
    results = Results(args.seconds)
    contestants = [c for c in everybody if c.name in wanted and _is_there(c, results)]
    loops = [name for name in _LOOPS if name in wanted and not args.compare]
    begun = time.monotonic()
    try:
        # First, for they are short, and what comes later may have no time.
        if not args.compare:
            _extras(args.extras.split(",") if args.extras else [], results, args)
        while results.rounds < args.rounds:
            begun_round = time.monotonic()
            _round(contestants, loops, cases, results)
            results.rounds += 1
            took, until_now = time.monotonic() - begun_round, time.monotonic() - begun
            print(f"bench: round {results.rounds} of {args.rounds} is done after {until_now:.0f} s", file=sys.stderr)
            if not args.compare:
                _write(results, Path(args.out))
            if args.minutes and until_now + took > args.minutes * 60:
                print(f"bench: no time for another round within {args.minutes:g} minutes", file=sys.stderr)
                break
    finally:
        end_all()
    if args.compare:
        print(_comparison(results))
    return 0


class NotStartedError(Exception):
    """A contestant that does not answer though it was given time."""


def _round(contestants: list[Contestant], loops: list[str], cases: list[Case], results: Results) -> None:
    """Everybody once, one after another."""
    for function in dict.fromkeys(case.function for case in cases):
        of_function = [case for case in cases if case.function == function]
        for contestant in list(contestants):
            try:
                _measure(contestant, of_function, results)
            except NotStartedError as why:
                # It would cost the others their time each round.
                print(f"bench: {contestant.name} is left out from here on: {why}", file=sys.stderr)
                results.missing[contestant.name] = str(why)[:120]
                contestants.remove(contestant)
        _loops(loops, of_function, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", default="", help="who is measured; all by default")
    parser.add_argument("--cases", default="", help=", ".join(case.name for case in CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--minutes", type=float, default=0.0, help="no round begins that would not end within these")
    parser.add_argument("--extras", default=",".join(_EXTRAS), help="of Millgate alone; an empty text for none")
    parser.add_argument("--out", default=str(BENCH / "RESULTS.md"))
    parser.add_argument("--compare", default="", metavar="PROGRAMS", help="a folder with another build's programs")
    return parser.parse_args()


def _is_there(contestant: Contestant, results: Results) -> bool:
    results.titles[contestant.name] = contestant.title
    try:
        contestant.prepare()
    except NotInstalledError as why:
        print(f"bench: {contestant.name} is left out: {why}", file=sys.stderr)
        results.missing[contestant.name] = str(why)
        return False
    results.versions[contestant.name] = contestant.version()
    results.settings[contestant.name] = contestant.settings
    return True


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="millgate-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _measure(contestant: Contestant, cases: list[Case], results: Results) -> None:
    """Starts one contestant for one function, measures its cases, ends it. What fails is reported and left out."""
    cases = [case for case in cases if case.function in contestant.functions and case.name not in contestant.skips]
    if not cases:
        return
    with _folder() as folder:
        try:
            contestant.start(cases[0], folder)
            _await(contestant, cases[0])
            _warm(contestant, cases[0])
            for case in cases:
                contestant.check(case)
                results.add(contestant.name, case.name, run(contestant.target(case), case, results.seconds))
        except (RuntimeError, OSError, LookupError, TypeError, ValueError, subprocess.SubprocessError) as error:
            output = folder / "output"
            said = output.read_text(errors="replace")[-300:] if output.exists() else ""
            print(f"bench: {contestant.name}, {cases[0].function}: {error!r} {said}", file=sys.stderr)
            results.missing[contestant.name] = f"{cases[0].function}: {str(error)[:120]}"
        finally:
            end_all()


def _await(contestant: Contestant, case: Case) -> None:
    """Until it answers; a wrong answer is none of a server that is still starting."""
    until = time.monotonic() + _READY_WAIT_S
    while True:
        try:
            return contestant.check(case)
        except OSError as error:
            if time.monotonic() > until:
                raise NotStartedError(f"{case.function}: no answer within {_READY_WAIT_S:g} s: {error}") from error
            time.sleep(0.1)


def _warm(contestant: Contestant, case: Case) -> None:
    """Calls until a second goes well and the next is not much better: one worker may answer while another is still
    importing, or is ready and not yet at its speed."""
    best = 0.0
    for tries_left in reversed(range(_WARM_TRIES)):
        try:
            rate = run(contestant.target(case), case, _WARM_S)["rate"]
        except RuntimeError:
            if not tries_left:
                raise
            continue
        if rate < best * _WARM_GAIN:
            return
        best = rate


def _loops(names: list[str], cases: list[Case], results: Results) -> None:
    for name in names:
        copies = _LOOPS[name]
        results.titles[name] = f"the function alone, {'one process' if copies == 1 else 'two processes'}"
        results.settings[name] = "`json.loads` → call → `json.dumps`, nobody calling from outside"
        seen = set()
        for case in cases:
            # A loop has no connections: the first case of a request stands for all.
            if case.function == "sleep" or case.arguments() in seen:
                continue
            seen.add(case.arguments())
            with _folder() as folder:
                found = extras.bare_loop(case, python_of("fastapi"), results.seconds, copies, folder)
            results.add(name, case.name, found)
            if case.function == "add":
                results.add(name, "add8", found)
    for case in cases:
        if case.function == "iris" and names:
            _loops_beside_load(case, results)


def _loops_beside_load(case: Case, results: Results) -> None:
    """With as many calls per second as Millgate has just answered."""
    rates = results.figures.get("millgate", {}).get(case.name, {}).get("rate")
    if not rates:
        return
    name = "function2-load"
    results.titles[name] = "the function alone, two processes, beside the load generator"
    results.settings[name] = (
        "the same, while the load generator makes as many calls per second of an nginx as it made of Millgate"
    )
    with _folder() as folder:
        try:
            nginx = Nginx()
            nginx.start(case, folder)
            _await(nginx, case)
            load = (nginx.target(case), rates[-1])
            python = python_of("fastapi")
            found = extras.bare_loop_beside_load(case, python, results.seconds, 2, folder, load)
            results.add(name, case.name, found)
        except (RuntimeError, OSError, NotStartedError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
        finally:
            end_all()


def _extras(names: list[str], results: Results, args: argparse.Namespace) -> None:
    for name in names:
        with _folder() as folder:
            try:
                if name == "overhead":
                    found = extras.overhead(folder, args.rounds, args.seconds)
                elif name == "idle":
                    found = extras.idle(folder, max(args.seconds, 10.0))
                elif name == "start":
                    found = extras.start(folder, args.rounds)
                elif name == "waiting":
                    found = extras.waiting(folder)
                else:
                    found = extras.growth(args.rounds, calls=5_000)
                results.extras.update(found)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                print(f"bench: {name}: {error}", file=sys.stderr)
            finally:
                end_all()


def _write(results: Results, out: Path) -> None:
    before = out.read_text() if out.exists() else ""
    at = before.find(_STAGES_BEGIN)
    out.write_text(markdown(results, before[at:] if at >= 0 else ""))
    raw = BENCH / ".peers" / "results.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(json.dumps(vars(results), indent=1))
    print(f"bench: {out} is written, raw figures are in {raw}", file=sys.stderr)


def _comparison(results: Results) -> str:
    lines = [f"{'':<40} {'base':>12} {'now':>12}   change (each round)"]
    for case in CASES:
        for kind in ("rate", "p50_ms", "p99_ms", "cpu_us"):
            now = results.figures.get("millgate", {}).get(case.name, {}).get(kind, [])
            base = results.figures.get("base", {}).get(case.name, {}).get(kind, [])
            if now and base:
                ratios = [a / b - 1 for a, b in zip(now, base, strict=False) if b]
                each = ", ".join(f"{ratio * 100:+.1f}" for ratio in ratios)
                middle = [statistics.median(base), statistics.median(now)]
                change = statistics.median(ratios) * 100 if ratios else 0.0
                title = f"{case.name}, {kind}"
                lines.append(f"{title:<40} {middle[0]:>12.1f} {middle[1]:>12.1f}   {change:+.1f} % ({each})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
