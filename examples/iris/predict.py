"""Petal width of an iris, in cm, from its petal length."""

import pickle
from pathlib import Path

model = pickle.loads(Path("model.pkl").read_bytes())


def predict(args: dict) -> float:
    """`{"petal_length": 5.4}` → about 1.88."""
    return float(model.predict([[float(args["petal_length"])]])[0])
