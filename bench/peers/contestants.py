"""Who is measured: peers, each as its own documentation tunes it, and the limits of the machine.

Each is started for one function with so many workers, in a folder of its own, and says where it is called and how."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path

from . import environments, nginx
from .cases import Case
from .environments import BENCH
from .load import Target
from .processes import free_port

_SERVERS = BENCH / "peers" / "servers"
RELEASE = BENCH.parent / "target" / "release"


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
    settings = "high-throughput mode, one call at a time per replica"
    variables = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_LOG_TO_STDERR": "0"}

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


class Nginx(Contestant):
    name, title, functions = "nginx", "nginx, fixed answer", ("add", "floats")
    settings = "two workers, no access log"
    # It answers before it has read the body, and then what is measured is how it gets rid of the rest.
    skips = ("floats5mb",)
    is_proxied = False

    def __init__(self) -> None:
        self.port = 0

    def version(self) -> str:
        return nginx.version()

    def prepare(self) -> None:
        if shutil.which("nginx") is None:
            raise environments.NotInstalledError("not installed: `deploy/setup.sh bench`")

    def start(self, case: Case, folder: Path) -> None:
        self.port = free_port()
        spawn(["nginx", "-c", nginx.configure(folder, self.port, is_proxied=self.is_proxied)], folder)

    def target(self, case: Case) -> Target:
        return Target(f"http://127.0.0.1:{self.port}/", case.arguments())


class NginxNginx(Nginx):
    name, title = "nginx-nginx", "nginx in front of nginx"
    settings = "two workers each, kept-alive upstream, no access log"
    is_proxied = True


class HyperHyper(Contestant):
    name, title, functions = "hyper-hyper", "hyper in front of hyper", ("add", "floats")
    settings = "untuned, in one process"

    def __init__(self) -> None:
        self.port = 0

    def version(self) -> str:
        return "bench/examples/hyper_proxy.rs"

    def prepare(self) -> None:
        if not (RELEASE / "examples" / "hyper_proxy").exists():
            raise environments.NotInstalledError("not built: `cargo build --release -p millgate-bench --examples`")

    def start(self, case: Case, folder: Path) -> None:
        self.port = free_port()
        spawn([RELEASE / "examples" / "hyper_proxy", f"127.0.0.1:{self.port}", f"127.0.0.1:{free_port()}"], folder)

    def target(self, case: Case) -> Target:
        return Target(f"http://127.0.0.1:{self.port}/", case.arguments())


PEERS: list[type[Contestant]] = [FastApi, Granian, RayServe, Mlflow, BentoMl, LitServe, MlServer]
LIMITS: list[type[Contestant]] = [Nginx, NginxNginx, HyperHyper]
