"""What a model's function file imports. `cdsw` and `cml` are the same under the names that existing programs use."""

from millgate._calls import Call, current_call
from millgate._client import call_model
from millgate._development import DEV_MODEL_BUILD_CRN as dev_model_build_crn  # noqa: N811
from millgate._development import DEV_MODEL_CRN as dev_model_crn  # noqa: N811
from millgate._development import DEV_MODEL_DEPLOYMENT_CRN as dev_model_deployment_crn  # noqa: N811
from millgate._metrics import (
    read_metrics,
    track_aggregate_metrics,
    track_delayed_metrics,
    track_metric,
    track_metrics,
)
from millgate._models import cml_model, model_metrics

__all__ = [
    "Call",
    "call_model",
    "cml_model",
    "current_call",
    "dev_model_build_crn",
    "dev_model_crn",
    "dev_model_deployment_crn",
    "model_metrics",
    "read_metrics",
    "track_aggregate_metrics",
    "track_delayed_metrics",
    "track_metric",
    "track_metrics",
]
