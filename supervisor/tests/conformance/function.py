"""What the conformance program calls."""

import time


def conformance(args):
    if "raise" in args:
        raise RuntimeError(args["raise"])
    if "sleep" in args:
        time.sleep(args["sleep"])
        return None
    if "print" in args:
        print(args["print"])
        return None
    return args["echo"]
