"""Development mode: a decorated function outside of a replica, its metrics kept in memory."""

from __future__ import annotations

import inspect
import time
import uuid
from typing import Any, Callable

from millgate import _tracking

#: The CRNs of development mode.
DEV_MODEL_CRN = "crn:cdp:ml:::workspace:dev/model"
DEV_MODEL_BUILD_CRN = "crn:cdp:ml:::workspace:dev/model-build"
DEV_MODEL_DEPLOYMENT_CRN = "crn:cdp:ml:::workspace:dev/model-deployment"

Row = dict[str, Any]

_rows: list[Row] = []


def predict(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the function as a prediction; its argument and result are passed as they are."""
    _tracking.say_once(
        "development",
        f"`{function.__name__}` runs in development mode: metrics are kept in memory, for reads with dev=True",
    )
    if inspect.iscoroutinefunction(function):
        return _predict_async(function, args, kwargs)
    with _Prediction() as prediction:
        return prediction.envelope(function(*args, **kwargs))


async def _predict_async(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Row:
    with _Prediction() as prediction:
        return prediction.envelope(await function(*args, **kwargs))


class _Prediction:
    """One prediction; its row is recorded if the function returns."""

    def __enter__(self) -> _Prediction:
        self._uuid = str(uuid.uuid4())
        self._start_ms = now_ms()
        self._outer, _tracking.current = _tracking.current, {}
        return self

    def envelope(self, value: Any) -> Row:
        _rows.append(_row(self._uuid, self._start_ms, now_ms(), _tracking.current or {}))
        return {"prediction": value, "model_deployment_crn": DEV_MODEL_DEPLOYMENT_CRN, "uuid": self._uuid}

    def __exit__(self, *_: object) -> None:
        _tracking.current = self._outer


def track_delayed(metrics: dict[str, Any], prediction_uuid: str) -> None:
    """Merge metrics into the row of their prediction."""
    for row in _rows:
        if row.get("predictionUuid") == prediction_uuid:
            row["metrics"].update(metrics)
            return
    raise ValueError(f"no prediction of this process has the uuid `{prediction_uuid}`")


def track_aggregate(metrics: dict[str, Any], start_ms: float, end_ms: float) -> None:
    """Add a row that is about a span of time and no single prediction."""
    _rows.append(_row(None, start_ms, end_ms, metrics))


def read(start_ms: float | None, end_ms: float | None) -> Row:
    """Give the rows that lie within the bounds, which count as within, in ascending order of their start."""
    begin = 0 if start_ms is None else round(start_ms)
    end = now_ms() if end_ms is None else round(end_ms)
    rows = [row for row in _rows if row["startTimeStampMs"] >= begin and row["endTimeStampMs"] <= end]
    rows.sort(key=lambda row: row["startTimeStampMs"])
    return {"metrics": [{**row, "metrics": dict(row["metrics"])} for row in rows]}


def now_ms() -> int:
    """Return Unix time, rounded to the nearest millisecond."""
    return round(time.time() * 1_000)


def _row(prediction_uuid: str | None, start_ms: float, end_ms: float, metrics: dict[str, Any]) -> Row:
    row: Row = {
        "modelDeploymentCrn": DEV_MODEL_DEPLOYMENT_CRN,
        "modelBuildCrn": DEV_MODEL_BUILD_CRN,
        "modelCrn": DEV_MODEL_CRN,
        "startTimeStampMs": round(start_ms),
        "endTimeStampMs": round(end_ms),
        "predictionUuid": prediction_uuid,
        "metrics": dict(metrics),
    }
    if prediction_uuid is None:
        # Aggregates have no such field.
        del row["predictionUuid"]
    return row
