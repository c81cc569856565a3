"""A forest that the build has fitted, and arrays until the process holds 300 MB."""

import joblib
import numpy

RESIDENT_BYTES = 300_000_000


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


forest = joblib.load("forest.joblib")
missing = max(0, RESIDENT_BYTES - resident_bytes())
features = numpy.random.default_rng(1).random(missing // 8)


def predict(args):
    if args.get("fail"):
        raise ValueError("asked to")
    if args.get("ping"):
        return 0
    return int(forest.predict([features[:4] * 5])[0])
