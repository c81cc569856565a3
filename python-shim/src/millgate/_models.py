"""The decorators of a model's function."""

from __future__ import annotations

import functools
from typing import Any, Callable, TypeVar, cast

from millgate import _development, _tracking

Function = TypeVar("Function", bound=Callable[..., Any])


class _Record:
    """What the runtime looks for on a decorated function.

    `wrapper` tells the wrapper itself from a decorator put on top of it, which copies attributes (`functools.wraps`):
    the runtime calls `function` directly only where nobody else wants to be called first.
    """

    def __init__(self, function: Callable[..., Any], wrapper: Callable[..., Any], metrics: bool) -> None:
        self.function = function
        self.wrapper = wrapper
        self.metrics = metrics


def cml_model(function: Function | None = None, *, metrics: bool = False) -> Function | Callable[[Function], Function]:
    """Mark a function as a model's: `@cml_model`, `@cml_model()` or `@cml_model(metrics=True)`.

    With metrics, what the function tracks is recorded with its prediction, and the answer is
    `{"model_deployment_crn", "prediction", "uuid"}`. Outside of a replica the function then runs in development mode.
    """
    if function is None:
        return lambda function: _decorate(function, metrics)
    if not callable(function):
        raise TypeError(
            f"cml_model decorates a function, not `{type(function).__name__}` (hint: `@cml_model(metrics=True)`)"
        )
    return _decorate(function, metrics)


def model_metrics(function: Function) -> Function:
    """Mark a function as a model's that collects metrics; the same as `@cml_model(metrics=True)`."""
    return _decorate(function, metrics=True)


def _decorate(function: Function, metrics: bool) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        # In a replica the gateway puts the envelope around the value.
        if not metrics or _tracking.in_replica:
            return function(*args, **kwargs)
        return _development.predict(function, args, kwargs)

    wrapper.__millgate__ = _Record(function, wrapper, metrics)  # type: ignore[attr-defined]
    return cast(Function, wrapper)
