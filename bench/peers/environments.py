"""A virtual environment for each peer, below a folder that git ignores, made once for each list of requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent
FOLDER = BENCH / ".peers"
_REQUIREMENTS = BENCH / "peers" / "requirements"
_INSTALL_WAIT_S = 1_200


class NotInstalledError(Exception):
    """A peer that this machine cannot have, and why."""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, made now if it is not there or its requirements have changed."""
    folder = FOLDER / peer
    python = folder / "bin" / "python"
    requirements = _REQUIREMENTS / f"{peer}.txt"
    stamp = folder / "requirements-installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return python
    print(f"bench: installing {peer}", file=sys.stderr)
    # What is used is compiled when it is first used: all of it takes longer than the installation.
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*install, "-r", str(requirements)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_WAIT_S)
        except subprocess.TimeoutExpired as late:
            raise NotInstalledError(f"not installed within {late.timeout} s") from late
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise NotInstalledError(lines[-1][:200])
    stamp.write_text(requirements.read_text())
    return python


def version_of(peer: str) -> str:
    """The version of the first requirement, which is the peer itself."""
    first = (_REQUIREMENTS / f"{peer}.txt").read_text().split()[0]
    name, _, version = first.partition("==")
    return f"{name.split('[')[0]} {version}"
