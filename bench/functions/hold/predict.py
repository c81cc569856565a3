"""A function that holds its replica for so long: what is measured is what waits for it."""

import time


def predict(args: dict) -> int:
    """`{"seconds": 5}` → 5, five seconds later."""
    time.sleep(args["seconds"])
    return args["seconds"]
