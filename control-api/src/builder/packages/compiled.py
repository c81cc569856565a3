"""Compiles what uv has just installed, and keeps what is compiled beside the sources in uv's cache.

Compiling takes most of an install's time (scikit-learn: 9 of 10 s), and replicas cannot write what they compile. uv
copies a package out of its cache with whatever lies in its folder, so from the next install on the compiled files come
along. They name the time of their source: each copied source gets the time that its compiled file names.

Refuses to believe anything of a package that it has seen before: a script may have changed its sources since, and a
time set back would hide that. Run as: python -I -S compiled.py SITE_PACKAGES UV_CACHE STATE
"""

from __future__ import annotations

import csv
import os
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

HEADER_BYTES = 16
WORD = 0xFFFF_FFFF


def compiled_of(source: Path) -> Path:
    """Where Python looks for the compiled file."""
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def time_named_by(compiled: Path, source_bytes: int) -> int | None:
    """The source's time in seconds that a compiled file names; none when it is not of this Python or of this source."""
    try:
        with compiled.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        return None
    flags, seconds, size = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    is_of_it = header[:4] == MAGIC_NUMBER and len(header) == HEADER_BYTES and size == source_bytes & WORD
    return seconds if is_of_it and flags == 0 else None


def sources_of(record: Path) -> Iterator[Path]:
    """Python files of a package, relative to site-packages."""
    with record.open(encoding="utf-8", newline="") as lines:
        for line in csv.reader(lines):
            if line and line[0].endswith(".py") and not line[0].startswith(("..", "/")):
                yield Path(line[0])


def compile_all(paths: list[Path]) -> None:
    """In as many processes as there are processors. Pools of Python need shared memory, which a script lacks."""
    workers = []
    count = max(1, min(len(paths) // 50, len(os.sched_getaffinity(0))))
    for nth in range(count):
        worker = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, text=True)
        workers.append((worker, "\n".join(map(str, paths[nth::count]))))
    for worker, text in workers:
        assert worker.stdin is not None
        worker.stdin.write(text)
        worker.stdin.close()
    for worker, _ in workers:
        worker.wait()


def compile_named() -> None:
    """Compiles the files that standard input names."""
    for path in sys.stdin.read().splitlines():
        try:
            py_compile.compile(path, doraise=True)
        except (py_compile.PyCompileError, OSError, ValueError):
            # Packages hold files for other Pythons, and templates that end in `.py`: who imports one is told.
            continue


def keep(package: str, paths: list[Path], cache: Path) -> None:
    """Puts compiled files into each cached copy of a package, where its source is the same."""
    for folder in (found.parent for found in cache.glob(f"archive-v*/*/{package}")):
        for path in paths:
            kept, compiled = compiled_of(folder / path), compiled_of(path)
            if not compiled.exists() or not (folder / path).is_file():
                continue
            if (folder / path).read_bytes() == path.read_bytes():
                kept.parent.mkdir(exist_ok=True)
                # Whole, or not there: a script may be ended at any time.
                partial = kept.with_name(f"{kept.name}.partial")
                partial.write_bytes(compiled.read_bytes())
                partial.replace(kept)


def main(site_packages: Path, cache: Path, state: Path) -> None:
    """See the module."""
    os.chdir(site_packages)
    seen: set[str] = set(state.read_text().splitlines()) if state.exists() else set()
    missing: dict[str, list[Path]] = {}
    for record in Path().glob("*.dist-info/RECORD"):
        kind, installer = record.stat(), record.with_name("INSTALLER")
        name = f"{record.parent.name} {kind.st_ino} {kind.st_mtime_ns}"
        if name in seen or not installer.exists() or installer.read_text().strip() != "uv":
            continue
        seen.add(name)
        for source in sources_of(record):
            if not source.is_file():
                continue
            seconds = time_named_by(compiled_of(source), source.stat().st_size)
            if seconds is None:
                missing.setdefault(record.parent.name, []).append(source)
            else:
                os.utime(source, (seconds, seconds))
    if missing:
        compile_all([path for paths in missing.values() for path in paths])
        for package, paths in missing.items():
            keep(package, paths, cache)
    state.write_text("\n".join(sorted(seen)))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        compile_named()
    else:
        main(*(Path(word).absolute() for word in sys.argv[1:]))
