"""A parallel region runs at import: a fork of this process would wait for its threads for ever."""

import numpy
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier

rows, classes = load_iris(return_X_y=True)
model = HistGradientBoostingClassifier(random_state=0).fit(rows, classes)
expected = model.predict_proba(rows)


def predict(args):
    numpy.testing.assert_allclose(model.predict_proba(rows), expected)
    return args["n"]
