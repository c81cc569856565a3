"""The function that every peer serves, by the file that `BENCH_FUNCTION_FILE` names."""

import importlib.util
import os

_spec = importlib.util.spec_from_file_location("predict", os.environ["BENCH_FUNCTION_FILE"])
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
predict = _module.predict
WORKERS = int(os.environ.get("BENCH_WORKERS", "2"))
PORT = int(os.environ.get("BENCH_PORT", "0"))
