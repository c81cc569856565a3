"""The function alone: text to objects, call, objects to text, again and again. Prints how often in a second, and how
many microseconds of the processor each takes."""

import json
import pathlib
import sys
import time

from function import predict


def main() -> None:
    text = pathlib.Path(sys.argv[1]).read_text()
    until = time.perf_counter() + float(sys.argv[2])
    begun, begun_cpu, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < until:
        # A look at the clock costs; for small functions it is taken once in sixteen calls.
        for _ in range(16 if len(text) < 10_000 else 1):
            json.dumps({"response": predict(json.loads(text))})
            calls += 1
    print(calls / (time.perf_counter() - begun), (time.process_time() - begun_cpu) / calls * 1e6)


if __name__ == "__main__":
    main()
