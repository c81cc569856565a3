import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

rows, classes = load_iris(return_X_y=True)
joblib.dump(RandomForestClassifier(random_state=0).fit(rows, classes), "forest.joblib")
