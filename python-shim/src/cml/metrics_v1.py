"""Tracking and reading metrics."""

from millgate import (
    dev_model_build_crn,
    dev_model_crn,
    dev_model_deployment_crn,
    read_metrics,
    track_aggregate_metrics,
    track_delayed_metrics,
    track_metric,
    track_metrics,
)

__all__ = [
    "dev_model_build_crn",
    "dev_model_crn",
    "dev_model_deployment_crn",
    "read_metrics",
    "track_aggregate_metrics",
    "track_delayed_metrics",
    "track_metric",
    "track_metrics",
]
