"""Whatever an expression comes to, with the libraries that values come from."""

import datetime
import decimal

import numpy
import pandas

NAMES = {"datetime": datetime, "decimal": decimal, "numpy": numpy, "pandas": pandas}


def predict(args):
    return eval(args["of"], NAMES) if "of" in args else args["n"]
