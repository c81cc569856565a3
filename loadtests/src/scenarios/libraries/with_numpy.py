"""Linear algebra with the default thread pool, used at import as well."""

import numpy

numpy.random.seed(1)
matrix = numpy.random.default_rng(7).random((300, 300))
expected = float(numpy.linalg.inv(matrix @ matrix).trace())


def predict(args):
    if args.get("draw"):
        return numpy.random.random()
    found = float(numpy.linalg.inv(matrix @ matrix).trace())
    assert abs(found - expected) < 1e-6 * abs(expected), (found, expected)
    return numpy.int64(args["n"])
