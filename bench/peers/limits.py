"""The limits of the machine, measured beside everybody: what cannot be had cheaper."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import nginx
from .cases import Case
from .contestants import CALL_WAIT_S, RELEASE, Contestant, spawn
from .environments import NotInstalledError
from .load import Target, call_once
from .processes import free_port


class Limit(Contestant):
    """What the machine can do: a fixed answer, in the form of ours to `add`, whatever is sent."""

    functions = ("add", "floats")

    def check(self, case: Case) -> None:
        call_once(self.target(case), CALL_WAIT_S)


class Nginx(Limit):
    name, title = "nginx", "nginx, fixed answer"
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
            raise NotInstalledError("not installed: `deploy/setup.sh bench`")

    def start(self, case: Case, folder: Path) -> None:
        self.port = free_port()
        spawn(["nginx", "-c", nginx.configure(folder, self.port, is_proxied=self.is_proxied)], folder)

    def target(self, case: Case) -> Target:
        return Target(f"http://127.0.0.1:{self.port}/", case.arguments())


class NginxNginx(Nginx):
    name, title = "nginx-nginx", "nginx in front of nginx"
    settings = "two workers each, kept-alive upstream, no access log"
    is_proxied = True


class HyperHyper(Limit):
    name, title = "hyper-hyper", "hyper in front of hyper"
    settings = "untuned, in one process"

    def __init__(self) -> None:
        self.port = 0

    def version(self) -> str:
        return "bench/examples/hyper_proxy.rs"

    def prepare(self) -> None:
        if not (RELEASE / "examples" / "hyper_proxy").exists():
            raise NotInstalledError("not built: `cargo build --release -p millgate-bench --examples`")

    def start(self, case: Case, folder: Path) -> None:
        self.port = free_port()
        spawn([RELEASE / "examples" / "hyper_proxy", f"127.0.0.1:{self.port}", f"127.0.0.1:{free_port()}"], folder)

    def target(self, case: Case) -> Target:
        return Target(f"http://127.0.0.1:{self.port}/", case.arguments())


LIMITS: list[type[Contestant]] = [Nginx, NginxNginx, HyperHyper]
