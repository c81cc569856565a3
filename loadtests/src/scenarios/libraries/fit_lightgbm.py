import lightgbm
import numpy
from sklearn.datasets import load_iris

rows, classes = load_iris(return_X_y=True)
booster = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, lightgbm.Dataset(rows, classes), 20)
booster.save_model("booster.txt")
numpy.savez("expected.npz", rows=rows, expected=booster.predict(rows))
