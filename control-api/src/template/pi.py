"""Estimates pi by throwing darts at a square."""

import random

THROWS = 100_000
hits = sum(random.random() ** 2 + random.random() ** 2 <= 1 for _ in range(THROWS))
print(f"pi is about {4 * hits / THROWS}")
