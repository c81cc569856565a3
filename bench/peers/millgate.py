"""Millgate itself, always with everything on: API key, rate limits, metrics, access log, isolation, single calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from .cases import Case
from .contestants import RELEASE, Contestant, spawn
from .environments import BENCH, NotInstalledError
from .load import Target
from .processes import free_port

#: Rates that are counted at each call and never reached.
_CONFIGURATION = """[admission]
key_rate = "100000000/1s"
model_rate = "100000000/1s"
"""
_START_WAIT_S = 60
_DEPLOY_WAIT_S = 600


class Millgate(Contestant):
    name, title = "millgate", "Millgate"
    settings = "API key, rate limits, metrics, access log to a file, isolation, one call at a time per replica"

    def __init__(self, programs: Path = RELEASE, name: str = "millgate") -> None:
        self.programs, self.name = programs, name
        self.port = self.admin_port = 0
        self.folder = Path()
        self.model: dict[str, str] = {}
        #: What the server runs below, if anything.
        self.wrapper: list[str | Path] = []

    def version(self) -> str:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=BENCH, capture_output=True, text=True, check=True
        )
        return f"commit {done.stdout.strip()}"

    def prepare(self) -> None:
        if not (self.programs / "millgate").exists():
            raise NotInstalledError("not built: `make build`")

    def start(self, case: Case, folder: Path) -> None:
        self.serve(folder)
        self.deploy(case.function, case.workers)

    def serve(self, folder: Path) -> int:
        """Starts the server; returns its process id."""
        self.folder, self.port, self.admin_port = folder, free_port(), free_port()
        folder.chmod(0o755)
        (folder / "millgate.toml").write_text(_CONFIGURATION)
        command: list[str | Path] = [
            *self.wrapper,
            self.programs / "millgate",
            "serve",
            "--config",
            folder / "millgate.toml",
            "--data-dir",
            folder / "data",
        ]
        addresses = ["--listen", f"127.0.0.1:{self.port}", "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        server = spawn([*command, *addresses], folder)
        until = time.monotonic() + _START_WAIT_S
        while "millgate serves" not in (folder / "output").read_text(errors="replace"):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {(folder / 'output').read_text()[-400:]}")
            time.sleep(0.01)
        return server.pid

    def deploy(self, function: str, replicas: int) -> None:
        """Brings a function live and remembers how it is called."""
        file = BENCH / "functions" / function / "predict.py"
        self.cli("deploy", f"{file}:predict", "--name", function, "--replicas", str(replicas))
        self.model = json.loads(self.cli("--json", "show", function))

    def cli(self, *args: str) -> str:
        """Runs the command line against this server."""
        done = subprocess.run(
            [str(self.programs / "millgate"), *args],
            env={
                **os.environ,
                "MILLGATE_SERVER": f"http://127.0.0.1:{self.port}",
                "MILLGATE_DATA_DIR": str(self.folder / "data"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEPLOY_WAIT_S,
        )
        if done.returncode != 0:
            raise RuntimeError(f"millgate {' '.join(args)}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def api_key(self) -> str:
        """The administrator's."""
        return str(json.loads((self.folder / "data" / "credentials.json").read_text())["api_key"])

    def gauge(self, name: str) -> float:
        """The sum of a figure on the page of metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[{{ ]", line))

    def target(self, case: Case) -> Target:
        body = f'{{"accessKey": "{self.model["access_key"]}", "request": {case.arguments()}}}'
        return Target(f"http://127.0.0.1:{self.port}/model", body, f"Bearer {self.api_key()}")
