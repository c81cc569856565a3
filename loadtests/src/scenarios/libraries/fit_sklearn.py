import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

rows, classes = load_iris(return_X_y=True)
models = [
    HistGradientBoostingClassifier(random_state=0).fit(rows, classes),
    RandomForestClassifier(random_state=0, n_jobs=2).fit(rows, classes),
    LogisticRegression(max_iter=500).fit(rows, classes),
]
joblib.dump((rows, models, [model.predict_proba(rows) for model in models]), "models.joblib")
