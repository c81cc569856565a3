import numpy
import xgboost

rows = numpy.random.default_rng(1).random((2_000, 10))
labels = (rows[:, 0] + rows[:, 1] > 1).astype(int)
model = xgboost.XGBClassifier(n_estimators=50, max_depth=4)
model.fit(rows, labels)
model.save_model("model.json")
numpy.savez("expected.npz", rows=rows[:50], expected=model.predict_proba(rows[:50]))
