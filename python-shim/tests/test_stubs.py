"""The client as it is installed, looked at by a type checker."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RIGHT = """
import cmlapi
client = cmlapi.default_client("http://127.0.0.1:1", "key")
project = client.create_project(cmlapi.CreateProjectRequest(name="p"))
name: str = project.name
models: list[cmlapi.Model] = client.list_models(project.id, page_size=5).models
later = client.create_model({"name": "m"}, project.id, async_req=True)
made: cmlapi.Model = later.get(60)
request = cmlapi.CreateModelDeploymentRequest(cpu="1", memory=1, environment={"A": "1"})
client.create_model_deployment(request, "p", "m", "b")
"""
WRONG = {
    'client.create_modell({}, "p")': "has no attribute",
    'client.create_model({"name": "m"})': "overload",
    "project.nam": "has no attribute",
    'cmlapi.CreateProjectRequest(name=["p"])': "incompatible type",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the client and its stubs."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "cmlapi"
    shutil.copytree(ROOT / "src" / "cmlapi", package, ignore=shutil.ignore_patterns("__pycache__"))
    found = importlib.util.spec_from_file_location("stubs", ROOT / "packaging" / "cmlapi" / "stubs.py")
    stubs = importlib.util.module_from_spec(found)
    found.loader.exec_module(stubs)
    for path, text in stubs.write(package).items():
        (package / path).write_text(text)
    return folder


def checked(site, text):
    """What the type checker says of a program that uses the client."""
    (site / "program.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(site / "cache"), "program.py"]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_program_that_is_right_has_types(site):
    code, said = checked(site, RIGHT)
    assert code == 0, said


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_seen_before_the_program_runs(site, line):
    code, said = checked(site, RIGHT + line)
    assert code == 1, said
    assert WRONG[line] in said
