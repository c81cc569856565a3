"""The smallest model: adds two numbers."""


def add(args: dict) -> float:
    """`{"a": 3, "b": 5}` → 8."""
    return args["a"] + args["b"]
