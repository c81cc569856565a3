import pytest

import cdsw
from cml import metrics_v1
from millgate import _tracking


def test_outside_of_a_prediction_a_metric_is_kept_in_memory_and_said_once(capsys):
    cdsw.track_metric("a", 1)
    cdsw.track_metric("b", [2])
    assert _tracking.outside == {"a": 1, "b": [2]}
    assert capsys.readouterr().err.count("outside of a prediction") == 1


def test_keys_are_text_and_bounded_in_number():
    with pytest.raises(TypeError, match="int"):
        cdsw.track_metric(3, 1)
    for n in range(_tracking.METRICS_MAX):
        cdsw.track_metric(f"m{n}", n)
    cdsw.track_metric("m0", "again")
    with pytest.raises(ValueError, match="one too many"):
        cdsw.track_metric("another", 1)


def test_a_metric_needs_a_value():
    with pytest.raises(TypeError, match="missing"):
        cdsw.track_metrics("alone")
    with pytest.raises(TypeError, match="mapping"):
        cdsw.track_metrics({"a": 1}, 2)


def test_aggregates_are_rows_without_a_prediction():
    metrics_v1.track_aggregate_metrics({"accuracy": 0.9}, 1_000.4, 2_000, dev=True)
    rows = metrics_v1.read_metrics(dev=True)["metrics"]
    assert rows == [
        {
            "modelDeploymentCrn": metrics_v1.dev_model_deployment_crn,
            "modelBuildCrn": metrics_v1.dev_model_build_crn,
            "modelCrn": metrics_v1.dev_model_crn,
            "startTimeStampMs": 1_000,
            "endTimeStampMs": 2_000,
            "metrics": {"accuracy": 0.9},
        }
    ]


def test_a_window_includes_both_of_its_bounds_and_rows_ascend():
    for start in (3_000, 1_000, 2_000):
        metrics_v1.track_aggregate_metrics({"n": start}, start, start + 10, dev=True)
    rows = metrics_v1.read_metrics(start_timestamp_ms=1_000, end_timestamp_ms=2_010, dev=True)["metrics"]
    assert [row["metrics"]["n"] for row in rows] == [1_000, 2_000]


def test_what_is_read_is_a_copy():
    metrics_v1.track_aggregate_metrics({"n": 1}, 1, 2, dev=True)
    metrics_v1.read_metrics(dev=True)["metrics"][0]["metrics"]["n"] = 2
    assert metrics_v1.read_metrics(dev=True)["metrics"][0]["metrics"] == {"n": 1}


def test_without_a_server_the_error_says_what_to_set(monkeypatch):
    with pytest.raises(ValueError, match="CDSW_API_URL"):
        metrics_v1.read_metrics(model_crn="crn:x")
    monkeypatch.setenv("CDSW_API_URL", "http://127.0.0.1:9/api/v1")
    with pytest.raises(PermissionError, match=r"CDSW_APIV2_KEY.*dev=True"):
        metrics_v1.track_delayed_metrics({}, "u")
    monkeypatch.setenv("CDSW_APIV2_KEY", "k")
    with pytest.raises(ConnectionError, match="is the server running"):
        metrics_v1.track_delayed_metrics({}, "u")
    with pytest.raises(ValueError, match="model_deployment_crn"):
        metrics_v1.track_aggregate_metrics({}, 0, 1)
    with pytest.raises(ValueError, match="model_deployment_crn"):
        metrics_v1.read_metrics()


def test_in_a_replica_without_a_key_the_error_says_who_may_set_one(monkeypatch):
    monkeypatch.setenv("CDSW_API_URL", "http://127.0.0.1:9/api/v1")
    monkeypatch.setenv("CDSW_ENGINE_TYPE", "model")
    monkeypatch.setenv("CDSW_ENGINE_ID", "d")
    with pytest.raises(PermissionError, match="a replica has no key of its own"):
        metrics_v1.read_metrics()


def test_unknown_predictions_and_crns_are_named():
    with pytest.raises(ValueError, match="no-such-uuid"):
        metrics_v1.track_delayed_metrics({"a": 1}, "no-such-uuid", dev=True)
    with pytest.raises(ValueError, match="crn:x"):
        metrics_v1.read_metrics(model_deployment_crn="crn:x", dev=True)
