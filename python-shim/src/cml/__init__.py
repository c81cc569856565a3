"""The `cml` package of the original: `models_v1` and `metrics_v1`, whose names are here as well."""

from cml import metrics_v1, models_v1
from cml.metrics_v1 import *  # noqa: F403
from cml.metrics_v1 import __all__ as _metrics_names
from cml.models_v1 import *  # noqa: F403
from cml.models_v1 import __all__ as _models_names

__all__ = ["metrics_v1", "models_v1", *_metrics_names, *_models_names]
