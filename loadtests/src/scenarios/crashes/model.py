"""Every way to go wrong, by name. Each call does one, or answers with its own number."""

import ctypes
import os
import re
import signal
import sys
import threading
import time

held = []


def kill_nine():
    os.kill(os.getpid(), 9)


def underscore_exit():
    os._exit(0)


def null_dereference():
    ctypes.string_at(0)


def sys_exit():
    sys.exit(3)


def loop():
    while True:
        pass


def loop_that_catches_everything():
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass


def c_call():
    # PyDLL does not let the interpreter go while it waits.
    ctypes.PyDLL(None).sleep(3600)


def regular_expression():
    re.match(r"(a+)+$", "a" * 64 + "b")


def ignore_terminate():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(1)


def block_every_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        time.sleep(1)


def memory():
    while True:
        held.append(b"x" * (1 << 26))


def fork_bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass


def fork_bomb_in_new_sessions():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass


def thread_bomb():
    while True:
        threading.Thread(target=time.sleep, args=(3600,)).start()


def print_for_ever():
    while True:
        print("x" * 1_000_000)


def print_much():
    for _ in range(30):
        print("x" * 1_000_000)


def write_to_low_descriptors():
    for fd in range(1, 256):
        try:
            os.write(fd, b"\xff" * 64)
        except OSError:
            pass


def write_to_every_descriptor():
    for fd in range(1, 4096):
        try:
            os.write(fd, b"\xff" * 64)
        except OSError:
            pass


def close_every_descriptor():
    os.closerange(0, 65536)


def descriptor_leak():
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))


def descriptor_leak_that_answers():
    try:
        descriptor_leak()
    except OSError:
        pass


def background_thread():
    def late():
        time.sleep(0.2)
        print("late")
        return "late"

    threading.Thread(target=late).start()


def answer_late():
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


def long_message():
    raise ValueError("x" * 10_000_000)


def endless_recursion():
    sys.setrecursionlimit(1 << 30)

    # Through C, which has a stack that ends. Otherwise this would only be another way to fill memory.
    def down(_=None):
        list(map(down, [0]))

    down()


def base_exception():
    raise BaseException("no Exception")


def exception_without_text():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("not this either")

    raise Mute


def predict(args):
    if "do" in args:
        globals()[args["do"]]()
    return args["n"]
