"""A model that was trained by the build and is only loaded here."""

import numpy
import xgboost

# Closed again: a file left open would be shared by all forks, and replicas be started afresh.
with numpy.load("expected.npz") as stored:
    rows, expected = stored["rows"], stored["expected"]
model = xgboost.XGBClassifier()
model.load_model("model.json")


def predict(args):
    numpy.testing.assert_allclose(model.predict_proba(rows), expected, rtol=1e-5)
    return args["n"]
