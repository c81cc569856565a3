#!/usr/bin/env python3
"""Takes the place of `millgate supervise` and `millgate build-step`: speaks as they do and confines nothing."""
import json
import os
import socket
import subprocess
import sys


def build_step():
    spec = json.load(sys.stdin)
    step = subprocess.run(spec["command"], cwd=spec["root"], env=spec["environment"])
    sys.exit(step.returncode if step.returncode >= 0 else 1)


def supervise(run_dir):
    with open(os.path.join(run_dir, "spec.json")) as f:
        spec = json.load(f)
    if spec["function"]["function"] == "cannot_start":
        sys.exit("error: no room for it")
    path = os.path.join(run_dir, "control.sock")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    while True:
        peer, _ = listener.accept()
        words = peer.makefile("rwb", buffering=0)
        hello = json.loads(words.readline())
        assert hello["type"] == "hello" and hello["peer"] == "control", hello
        say = lambda message: words.write(json.dumps(message).encode() + b"\n")
        say({"type": "hello", "protocol": 1, "deployment": spec["deployment"], "build": spec["build"],
             "slots": spec["slots"], "pid": os.getpid(), "isolation": {}})
        for slot in range(spec["slots"]):
            say({"type": "slot", "slot": slot, "state": "ready", "replica": f"r-{slot}", "pid": 7, "reason": "",
                 "starts": 1, "ready_after_ms": 3})
        say({"type": "deployment", "phase": "serving", "reason": "", "start_mode": "fork", "start_mode_reason": "",
             "example_response": None})
        for line in words:
            if json.loads(line)["type"] == "stop":
                os.unlink(path)
                os._exit(0)


if sys.argv[1] == "build-step":
    build_step()
else:
    supervise(sys.argv[2])
