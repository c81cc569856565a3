import asyncio
import uuid

import pytest

import cdsw
from cml.metrics_v1 import dev_model_deployment_crn, read_metrics, track_delayed_metrics
from cml.models_v1 import cml_model
from millgate import _tracking


@cml_model
def bare(args):
    return args


@cml_model()
def with_parentheses(args):
    return args


@cml_model(metrics=True)
def with_metrics(args):
    cdsw.track_metric("input", args)
    return [2]


@cdsw.model_metrics
def flat(args):
    cdsw.track_metrics({"a": 1, "b": 2})
    cdsw.track_metrics("c", 3)
    return args


@cml_model(metrics=True)
async def coroutine(args):
    await asyncio.sleep(0)
    cdsw.track_metric("seen", args)
    return args


def test_without_metrics_a_function_is_as_it_was():
    value = object()
    assert bare(value) is value
    assert with_parentheses(value) is value
    assert bare.__name__ == "bare"
    assert bare.__wrapped__(value) is value


def test_with_metrics_the_answer_has_the_form_of_a_deployed_model():
    answer = with_metrics(7)
    assert answer["prediction"] == [2]
    assert answer["model_deployment_crn"] == dev_model_deployment_crn
    assert uuid.UUID(answer["uuid"]).version == 4
    assert set(answer) == {"prediction", "model_deployment_crn", "uuid"}


def test_argument_and_result_are_passed_uncopied():
    value = {"a": object()}
    assert flat(value)["prediction"] is value


def test_development_mode_is_said_once(capsys):
    with_metrics(1)
    with_metrics(2)
    assert capsys.readouterr().err.count("development mode") == 1


def test_what_was_tracked_can_be_read_with_delayed_metrics_merged():
    first = with_metrics(1)
    second = flat(2)
    track_delayed_metrics({"actual_result": "1"}, first["uuid"], dev=True)
    rows = {row["predictionUuid"]: row["metrics"] for row in read_metrics(dev=True)["metrics"]}
    assert rows == {
        first["uuid"]: {"input": 1, "actual_result": "1"},
        second["uuid"]: {"a": 1, "b": 2, "c": 3},
    }


def test_a_coroutine_function_is_awaited_and_records_too():
    answer = asyncio.run(coroutine(5))
    assert answer["prediction"] == 5
    assert read_metrics(dev=True)["metrics"][0]["metrics"] == {"seen": 5}


def test_a_function_that_raises_leaves_no_row_and_no_open_prediction():
    @cml_model(metrics=True)
    def broken(args):
        raise KeyError(args)

    with pytest.raises(KeyError):
        broken(1)
    assert read_metrics(dev=True) == {"metrics": []}
    assert _tracking.current is None


def test_in_a_replica_the_value_alone_is_returned_and_the_store_is_the_runtimes(monkeypatch):
    monkeypatch.setattr(_tracking, "in_replica", True)
    monkeypatch.setattr(_tracking, "current", {})
    assert with_metrics(9) == [2]
    assert _tracking.current == {"input": 9}
    assert with_metrics.__millgate__.wrapper is with_metrics
    assert with_metrics.__millgate__.metrics


def test_only_functions_can_be_decorated():
    with pytest.raises(TypeError, match="metrics=True"):
        cml_model("metrics")
