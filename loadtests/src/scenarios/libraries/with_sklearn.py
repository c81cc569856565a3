"""Three models that were fitted by the build and are only loaded here."""

import joblib
import numpy

rows, models, expected = joblib.load("models.joblib")


def predict(args):
    for model, wanted in zip(models, expected):
        numpy.testing.assert_allclose(model.predict_proba(rows), wanted)
    return args["n"]
