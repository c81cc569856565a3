"""Petal width of an iris, in cm, from its petal length, by scikit-learn."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression

_iris = load_iris()
_model = LinearRegression().fit(_iris.data[:, [2]], _iris.data[:, 3])


def predict(args: dict) -> float:
    """`{"petal_length": 5.4}` → about 1.88."""
    return float(_model.predict([[float(args["petal_length"])]])[0])
