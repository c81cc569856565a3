"""Much data in, little out: what is measured is the way in."""


def predict(args: dict) -> int:
    """`{"values": [0.1, …]}` → how many."""
    return len(args["values"])
