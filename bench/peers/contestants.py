"""Who is measured: peers, each as its own documentation tunes it.

Each is started for one function with so many workers, in a folder of its own, and says where it is called and how."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from . import environments
from .cases import Case
from .environments import BENCH
from .load import Target, call_once
from .processes import free_port

_SERVERS = BENCH / "peers" / "servers"
RELEASE = BENCH.parent / "target" / "release"
CALL_WAIT_S = 30.0


class Contestant(ABC):
    """Something that answers calls."""

    name: str
    title: str
    settings: str
    #: Functions that it can serve; limits of the machine serve none.
    functions: tuple[str, ...] = ("add", "floats", "iris", "sleep")
    #: Names of cases that mean nothing for it.
    skips: tuple[str, ...] = ()

    @abstractmethod
    def version(self) -> str:
        """What was measured."""

    @abstractmethod
    def prepare(self) -> None:
        """Brings what is missing. Raises `NotInstalledError`."""

    @abstractmethod
    def start(self, case: Case, folder: Path) -> None:
        """Starts the processes; they end with `processes.end_all`."""

    @abstractmethod
    def target(self, case: Case) -> Target:
        """How it is called, once started."""

    def value_of(self, answer: Any) -> object:
        """What the function gave, of a whole answer."""
        return answer["response"]

    def check(self, case: Case) -> None:
        """Calls once and looks at the answer: a server that answers quickly and wrongly is no contestant."""
        text = call_once(self.target(case), CALL_WAIT_S)
        value = self.value_of(json.loads(text))
        if not case.is_right(value):
            raise RuntimeError(f"{case.name} is answered by `{text[:200]}`")


def spawn(command: list[str | Path], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A server whose output goes to a file of its folder."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


class Peer(Contestant):
    """A peer from PyPI in an environment of its own."""

    requirements: str
    path = "/predict"

    def __init__(self) -> None:
        self.port = 0

    def version(self) -> str:
        return environments.version_of(self.requirements)

    def prepare(self) -> None:
        environments.python_of(self.requirements)

    def target(self, case: Case) -> Target:
        return Target(f"http://127.0.0.1:{self.port}{self.path}", self.body(case))

    def body(self, case: Case) -> str:
        """The arguments as this peer wants them."""
        return case.arguments()

    def start(self, case: Case, folder: Path) -> None:
        self.port = free_port()
        python = environments.python_of(self.requirements)
        spawn(
            [part if part != "python" else python for part in self.command(case, folder, python)],
            folder,
            PYTHONPATH=str(_SERVERS),
            PATH=f"{python.parent}:{os.environ['PATH']}",
            BENCH_FUNCTION_FILE=str(BENCH / "functions" / case.function / "predict.py"),
            BENCH_WORKERS=str(case.workers),
            BENCH_PORT=str(self.port),
            **self.variables,
        )

    variables: dict[str, str] = {}

    @abstractmethod
    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        """What is run; `python` stands for the environment's."""


class FastApi(Peer):
    name, title, requirements = "fastapi", "FastAPI + uvicorn", "fastapi"
    settings = "uvloop, httptools, a worker per core, no access log"

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return [
            "python",
            "-m",
            "uvicorn",
            "asgi:app",
            "--port",
            str(self.port),
            "--workers",
            str(case.workers),
            *options,
        ]


class Granian(Peer):
    name, title, requirements = "granian", "granian + FastAPI", "granian"
    settings = "uvloop, a worker per core, no access log"

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        options = ["--interface", "asgi", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"]
        return [
            python.parent / "granian",
            "--port",
            str(self.port),
            "--workers",
            str(case.workers),
            *options,
            "asgi:app",
        ]


class RayServe(Peer):
    name, title, requirements = "ray", "Ray Serve", "ray"
    settings = "high-throughput mode; one call at a time per replica in the 10 ms case"
    variables = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_AUTH_MODE": "disabled",
    }

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        return ["python", _SERVERS / "ray_serve.py"]


class BentoMl(Peer):
    name, title, requirements = "bentoml", "BentoML", "bentoml"
    settings = "a worker per core, one thread each, no access log"
    variables = {"BENTOML_DO_NOT_TRACK": "True"}

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        return [
            python.parent / "bentoml",
            "serve",
            "bento:Service",
            "--port",
            str(self.port),
            "--working-dir",
            _SERVERS,
        ]

    def body(self, case: Case) -> str:
        return f'{{"args": {case.arguments()}}}'


class LitServe(Peer):
    name, title, requirements = "litserve", "LitServe", "litserve"
    settings = "fast queue, two HTTP servers, a worker per core"

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        return ["python", _SERVERS / "lit.py"]


class MlServer(Peer):
    name, title, requirements = "mlserver", "MLServer", "mlserver"
    settings = "a parallel worker per core, custom runtime"
    path = "/v2/models/bench/infer"

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        settings = {
            "http_port": self.port,
            "grpc_port": free_port(),
            "metrics_port": free_port(),
            "parallel_workers": case.workers,
            "host": "127.0.0.1",
            "debug": False,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(
            json.dumps({"name": "bench", "implementation": "mlserver_runtime.Model"})
        )
        return [python.parent / "mlserver", "start", folder]

    def body(self, case: Case) -> str:
        if case.function == "floats":
            values = json.loads(case.arguments())["values"]
            given = {"name": "args", "shape": [len(values)], "datatype": "FP64", "data": values}
        else:
            given = {"name": "args", "shape": [1], "datatype": "BYTES", "data": [case.arguments()]}
        return json.dumps({"inputs": [given]})

    def value_of(self, answer: Any) -> object:
        return answer["outputs"][0]["data"][0]


class Mlflow(Peer):
    name, title, requirements = "mlflow", "MLflow serving", "mlflow"
    settings = "a worker per core; not single-call, so the 10 ms case is not comparable"
    functions = ("add", "floats", "iris")
    path = "/invocations"

    def command(self, case: Case, folder: Path, python: Path) -> list[str | Path]:
        model = folder / "model"
        save = [python, _SERVERS / "mlflow_model.py", model]
        environment = {**os.environ, "PYTHONPATH": str(_SERVERS)}
        subprocess.run([str(part) for part in save], check=True, capture_output=True, env=environment)
        options = ["--env-manager", "local", "--port", str(self.port), "--workers", str(case.workers)]
        return [python.parent / "mlflow", "models", "serve", "-m", model, *options]

    def body(self, case: Case) -> str:
        return f'{{"inputs": {case.arguments()}}}'

    def value_of(self, answer: Any) -> object:
        return answer["predictions"]["response"]


PEERS: list[type[Contestant]] = [FastApi, Granian, RayServe, Mlflow, BentoMl, LitServe, MlServer]
