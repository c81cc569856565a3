"""The call that runs, as its gateway knows it."""

from __future__ import annotations

import sys
from typing import NamedTuple


class Call(NamedTuple):
    """Who asked for the prediction that runs."""

    #: What the caller got as `X-Request-Id`; every line of the log that the call prints has it.
    request_id: str
    #: The W3C trace context that the caller sent, or None: the parent of the spans that the function makes.
    traceparent: str | None


def current_call() -> Call | None:
    """Tell which call runs; None outside of a replica and between calls.

    Threads that a call has started see the call that runs when they ask, which may be a later one.
    """
    runtime = sys.modules.get("_millgate_runtime")
    found = None if runtime is None else runtime.call()
    return None if found is None else Call(found[0], found[1] or None)
