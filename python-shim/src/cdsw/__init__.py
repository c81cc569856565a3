"""The flat names of the original `cdsw` package."""

from millgate import (
    call_model,
    cml_model,
    model_metrics,
    read_metrics,
    track_aggregate_metrics,
    track_delayed_metrics,
    track_metric,
    track_metrics,
)

__all__ = [
    "call_model",
    "cml_model",
    "model_metrics",
    "read_metrics",
    "track_aggregate_metrics",
    "track_delayed_metrics",
    "track_metric",
    "track_metrics",
]
