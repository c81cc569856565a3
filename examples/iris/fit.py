"""Fits petal width on petal length (both in cm) over Fisher's 150 irises and writes `model.pkl`."""

import pickle
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression

PETAL_LENGTH, PETAL_WIDTH = 2, 3

iris = load_iris()
model = LinearRegression().fit(iris.data[:, [PETAL_LENGTH]], iris.data[:, PETAL_WIDTH])
Path("model.pkl").write_bytes(pickle.dumps(model))
print(f"petal width = {model.coef_[0]:.4f} * petal length + {model.intercept_:.4f}")
