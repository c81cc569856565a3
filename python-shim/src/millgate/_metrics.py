"""Tracking and reading metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millgate import _development, _server
from millgate._tracking import track_metric

__all__ = [
    "read_metrics",
    "track_aggregate_metrics",
    "track_delayed_metrics",
    "track_metric",
    "track_metrics",
]

_MISSING = object()


def track_metrics(metrics: Mapping[str, Any] | str, value: Any = _MISSING) -> None:
    """Record several metrics from a mapping, or one by key and value."""
    if isinstance(metrics, Mapping):
        if value is not _MISSING:
            raise TypeError("track_metrics takes a mapping, or a key and a value")
        for key, item in metrics.items():
            track_metric(key, item)
    elif value is _MISSING:
        raise TypeError(f"the value of the metric `{metrics}` is missing")
    else:
        track_metric(metrics, value)


def track_delayed_metrics(metrics: dict[str, Any], prediction_uuid: str, dev: bool = False) -> None:
    """Add metrics that became known later to the row of their prediction, which may come after them.

    With `dev` the prediction is one of development mode, in this process.
    """
    if dev:
        _development.track_delayed(metrics, prediction_uuid)
    else:
        _server.track_delayed(metrics, prediction_uuid)


def track_aggregate_metrics(
    metrics: dict[str, Any],
    start_timestamp_ms: float,
    end_timestamp_ms: float,
    model_deployment_crn: str | None = None,
    dev: bool = False,
) -> None:
    """Record metrics of a span of time, in milliseconds of Unix time.

    In a replica they are about its own deployment unless another one is named.
    """
    if dev:
        _check_development_crn(model_deployment_crn)
        _development.track_aggregate(metrics, start_timestamp_ms, end_timestamp_ms)
    else:
        _server.track_aggregate(metrics, start_timestamp_ms, end_timestamp_ms, model_deployment_crn)


def read_metrics(
    model_deployment_crn: str | None = None,
    start_timestamp_ms: float | None = None,
    end_timestamp_ms: float | None = None,
    model_crn: str | None = None,
    model_build_crn: str | None = None,
    dev: bool = False,
) -> dict[str, Any]:
    """Read `{"metrics": [row, …]}`, rows ascending by start; the start defaults to 0 and the end to now.

    The server is that of `CDSW_API_URL`, the key that of `CDSW_APIV2_KEY`, else `CDSW_API_KEY`. In a replica rows of
    its own deployment are read unless something is named.
    """
    if dev:
        _check_development_crn(model_deployment_crn, model_crn, model_build_crn)
        return _development.read(start_timestamp_ms, end_timestamp_ms)
    crns = {
        "model_deployment_crn": model_deployment_crn,
        "model_crn": model_crn,
        "model_build_crn": model_build_crn,
    }
    return _server.read(crns, start_timestamp_ms, end_timestamp_ms)


def _check_development_crn(*crns: str | None) -> None:
    known = {
        _development.DEV_MODEL_CRN,
        _development.DEV_MODEL_BUILD_CRN,
        _development.DEV_MODEL_DEPLOYMENT_CRN,
    }
    for crn in crns:
        if crn is not None and crn not in known:
            raise ValueError(f"`{crn}` is not a CRN of development mode (hint: leave out dev=True)")
