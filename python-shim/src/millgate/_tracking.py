"""Where tracked metrics go.

In a replica the runtime sets `in_replica` once and puts a fresh dictionary into `current` for the length of each
call; what is in it afterwards rides back on the call's answer. So tracking is one entry in a dictionary. A replica
runs one call at a time, and threads that the call starts find the same dictionary.

In development mode a decorated function does the same for itself, and records go to memory (`_development`).
"""

from __future__ import annotations

import sys
from typing import Any

#: Metrics of one call. Their bytes are bounded by the runtime, which names in the log what it left out.
METRICS_MAX = 1_000

#: Set by the runtime.
in_replica: bool = False
#: The metrics of the prediction that runs, or None.
current: dict[str, Any] | None = None
#: What was tracked while no prediction ran.
outside: dict[str, Any] = {}

_said: set[str] = set()


def track_metric(key: str, value: Any) -> None:
    """Record a metric of the prediction that runs; the value is anything JSON can hold.

    Outside of a prediction it is kept in memory, and said so once. A value that JSON cannot hold, or that there is no
    room for (64 KiB for all metrics of a call), is left out and named in the model's log.
    """
    if not isinstance(key, str):
        raise TypeError(f"the key of a metric is text, not `{type(key).__name__}`: {key!r}")
    store = current
    if store is None:
        say_once("outside", "a metric was tracked outside of a prediction; it is kept in memory only")
        store = outside
    if len(store) >= METRICS_MAX and key not in store:
        raise ValueError(f"more than {METRICS_MAX} metrics; `{key}` is one too many (hint: track lists or objects)")
    store[key] = value


def say_once(topic: str, text: str) -> None:
    """Tell the person at the terminal, the first time only."""
    if topic not in _said:
        _said.add(topic)
        print(f"millgate: {text}", file=sys.stderr)
