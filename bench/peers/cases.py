"""What is measured: a function, how many workers serve it, how many connections call it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache

_ARGUMENTS = {
    "add": '{"a": 3, "b": 5}',
    "hold": '{"seconds": 0}',
    "iris": '{"petal_length": 5.4}',
    "sleep": "{}",
}


@dataclass(frozen=True)
class Case:
    """One measurement. `workers` is the number of processes or single-call replicas that run the function."""

    name: str
    title: str
    function: str
    connections: int
    workers: int = 2
    floats: int = 0
    #: Callgrind and CPU figures need few calls at a time; rates need many.
    shows_cpu: bool = False

    @property
    def threads(self) -> int:
        """Of `wrk`."""
        return min(2, self.connections)

    def arguments(self) -> str:
        """The JSON that the function is called with."""
        if self.function == "floats":
            return floats(self.floats)
        return _ARGUMENTS[self.function]

    def is_right(self, value: object) -> bool:
        """Whether the function gives this for `arguments()`."""
        expected = {"add": 8.0, "iris": 1.88, "sleep": 1.0, "floats": float(self.floats)}[self.function]
        return isinstance(value, int | float) and abs(value - expected) < 0.01


@cache
def floats(count: int) -> str:
    """The same floats each time."""
    draw = random.Random(1)
    return json.dumps({"values": [draw.random() for _ in range(count)]})


CASES = [
    Case("add64", "add, 64 conn.", "add", 64),
    Case("add8", "add, 8 conn.", "add", 8, shows_cpu=True),
    Case("add1", "add, 1 conn.", "add", 1),
    Case("iris64", "Iris scikit-learn, 64 conn.", "iris", 64),
    Case("floats1mb", "1 MB of floats, 4 conn.", "floats", 4, floats=50_000),
    Case("floats5mb", "5 MB of floats, 4 conn.", "floats", 4, floats=250_000),
    Case("sleep16", "10 ms sleep, 4 single-call workers, 16 conn.", "sleep", 16, workers=4),
]
