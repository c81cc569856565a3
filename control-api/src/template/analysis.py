"""Looks at the irises that `fit.py` fits: mean and spread of each measure, by species."""

from statistics import mean, stdev

from sklearn.datasets import load_iris

iris = load_iris()
for number, species in enumerate(iris.target_names):
    rows = iris.data[iris.target == number]
    for name, column in zip(iris.feature_names, rows.T):
        print(f"{species:>12} {name:>18}: {mean(column):.2f} ± {stdev(column):.2f}")
