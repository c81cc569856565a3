"""The SDK against a real server: predictions tracked there, read and added to from outside and from a replica."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import cdsw
from cml import metrics_v1

ROOT = Path(__file__).parents[2]
MODEL = """
import cml.models_v1 as models
from cml import metrics_v1


@models.cml_model(metrics=True)
def predict(args):
    if args.get("read"):
        try:
            return [row["metrics"] for row in metrics_v1.read_metrics()["metrics"]]
        except PermissionError as error:
            return str(error)
    metrics_v1.track_metric("n", args["n"])
    return args["n"]
"""


class Server:
    """A server with one model, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.program = Path(os.environ.get("MILLGATE_PROGRAM", ROOT / "target/debug/millgate"))
        assert self.program.exists(), f"{self.program} is not built (hint: cargo build --workspace --bins)"
        self.folder = folder
        self.data = folder / "data"
        listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command = [self.program, "serve", "--data-dir", self.data, *listen]
        environment = {**os.environ, "MILLGATE_LOG": "error"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline()
        self.url = next(word for word in line.split() if word.startswith("http://"))
        self.key = json.loads((self.data / "credentials.json").read_text())["api_key"]
        (folder / "m").mkdir()
        (folder / "m/model.py").write_text(MODEL)
        self.deploy()
        self.model = json.loads(self.run("--json", "show", "m"))

    def run(self, *args: str) -> str:
        environment = {**os.environ, "MILLGATE_SERVER": self.url, "MILLGATE_DATA_DIR": str(self.data)}
        return subprocess.run(
            [self.program, *args], env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def deploy(self, *options: str) -> None:
        self.run("deploy", f"{self.folder / 'm/model.py'}:predict", "--name", "m", *options)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait() == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def running():
    # Short, so that the sockets' paths fit, and open, since replicas run under users of their own.
    with tempfile.TemporaryDirectory(prefix="mgpy", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("CDSW_API_URL", f"{running.url}/api/v1")
    monkeypatch.setenv("CDSW_APIV2_KEY", running.key)
    return running


def predict(server: Server, **request: object) -> dict:
    answer = cdsw.call_model(server.model["access_key"], request)
    assert answer["success"], answer
    return answer["response"]


def test_a_prediction_is_read_at_once_with_what_became_known_later(server):
    response = predict(server, n=1)
    metrics_v1.track_delayed_metrics({"actual_result": "1"}, response["uuid"])
    crn = response["model_deployment_crn"]
    row = next(r for r in metrics_v1.read_metrics(crn)["metrics"] if r.get("predictionUuid") == response["uuid"])
    assert row["metrics"] == {"n": 1, "actual_result": "1"}
    assert (row["modelDeploymentCrn"], row["modelCrn"]) == (crn, server.model["crn"])
    assert set(row) == {
        "modelDeploymentCrn",
        "modelBuildCrn",
        "modelCrn",
        "startTimeStampMs",
        "endTimeStampMs",
        "predictionUuid",
        "metrics",
    }
    bounds = {"start_timestamp_ms": row["startTimeStampMs"], "end_timestamp_ms": row["endTimeStampMs"]}
    for name in ("model_crn", "model_build_crn"):
        within = metrics_v1.read_metrics(
            **{name: row[f"{'model' if name == 'model_crn' else 'modelBuild'}Crn"]}, **bounds
        )
        assert row in within["metrics"]


def test_aggregates_are_rows_without_a_prediction(server):
    crn = predict(server, n=2)["model_deployment_crn"]
    metrics_v1.track_aggregate_metrics({"accuracy": 0.9}, 1_000.4, 2_000, crn)
    rows = metrics_v1.read_metrics(crn, end_timestamp_ms=2_000)["metrics"]
    assert [(row["startTimeStampMs"], row["metrics"], "predictionUuid" in row) for row in rows] == [
        (1_000, {"accuracy": 0.9}, False)
    ]


def test_pages_are_put_together(server, monkeypatch):
    monkeypatch.setattr("millgate._server.PAGE_ROWS", 2)
    uuids = [predict(server, n=n)["uuid"] for n in range(5)]
    rows = metrics_v1.read_metrics(model_crn=server.model["crn"])["metrics"]
    found = [row["predictionUuid"] for row in rows if row.get("predictionUuid") in uuids]
    assert sorted(found) == sorted(uuids)
    starts = [row["startTimeStampMs"] for row in rows]
    assert starts == sorted(starts)


def test_what_the_server_refuses_is_said_in_its_words(server, monkeypatch):
    with pytest.raises(LookupError, match="there is no deployment"):
        metrics_v1.read_metrics("crn:of:another")
    with pytest.raises(ValueError, match="prediction_uuid"):
        metrics_v1.track_delayed_metrics({}, "7")
    with pytest.warns(UserWarning, match="not there yet"):
        metrics_v1.track_delayed_metrics({}, "0b6d2f1e-0000-4000-8000-000000000000")
    monkeypatch.setenv("CDSW_APIV2_KEY", "mgk_wrong")
    with pytest.raises(PermissionError, match="API key"):
        metrics_v1.read_metrics(model_crn=server.model["crn"])


def test_a_replica_reads_its_own_metrics_with_a_key_that_its_user_gave_it_and_not_without(server):
    assert "a replica has no key of its own" in predict(server, read=True)["prediction"]
    server.deploy("--env", f"CDSW_APIV2_KEY={server.key}", "--env", f"CDSW_API_URL={server.url}/api/v1")
    predict(server, n=7)
    assert {"n": 7} in predict(server, read=True)["prediction"]
