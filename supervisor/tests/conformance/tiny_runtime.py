"""The smallest runtime there can be, written from `contract/RUNTIMES.md` alone: threads, no fork, no cancelling.

Its first argument names a rule that it breaks, or is `none`; then come a supervisor's.
"""

import importlib.util
import json
import os
import signal
import socket
import struct
import sys
import threading

BROKEN, MODE, *REST = sys.argv[1:]
HELLO, JOIN, CALL, ACCEPTED, REFUSED, DONE = range(1, 7)
OK, EXCEPTION, BAD_INPUT = 0, 1, 3
BUSY = 0


def is_broken(rule):
    return rule == BROKEN


class Ended(Exception):
    pass


def text(value):
    raw = value.encode()
    return struct.pack("<H", len(raw)) + raw


def frame(kind, call=0, head=b"", body=b""):
    return struct.pack("<IBBHQ", len(head) + len(body), kind, 0, len(head), call) + head + body


def exactly(stream, count):
    raw = b""
    while len(raw) < count:
        more = stream.recv(min(count - len(raw), 1 << 20))
        if not more or (is_broken("pieces") and len(more) < count):
            raise Ended
        raw += more
    return raw


def read(stream):
    """Kind, call, head and body of the next frame that is known."""
    while True:
        payload, kind, flags, head, call = struct.unpack("<IBBHQ", exactly(stream, 16))
        if payload > 21 << 20 or head > payload:
            raise Ended
        raw = exactly(stream, payload)
        if kind in (JOIN, CALL, 7, 11):
            return kind, call, raw[:head], raw[head:]
        if (not flags & 1 and not is_broken("unknown-frame")) or is_broken("newer-frames"):
            raise Ended


class Replica:
    def __init__(self, spec, slot, name):
        self.spec, self.slot, self.name = spec, slot, name
        self.nonce = int.from_bytes(os.urandom(8), "little")
        self.running = threading.Lock()
        self.leaving = threading.Event()
        self.function = None

    def load(self):
        function = self.spec["function"]
        path = os.path.join(function["root"], function["file"])
        module_spec = importlib.util.spec_from_file_location("function", path)
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        if is_broken("missing-function"):
            self.function = getattr(module, function["function"], print)
        else:
            self.function = getattr(module, function["function"])

    def run(self, body):
        try:
            request = json.loads(body)
        except ValueError as error:
            if is_broken("bad-request"):
                os._exit(1)
            return BAD_INPUT, str(error).encode()
        try:
            value = json.dumps(self.function(request))
            return OK, value.encode()
        except Exception as error:
            if is_broken("exception"):
                return OK, b"null"
            return EXCEPTION, f"{type(error).__name__}: {error}".encode()

    def hello(self):
        spec = self.spec
        name = "somebody-else" if is_broken("hello") else self.name
        newest = 3 if is_broken("ahead") else 1
        head = struct.pack("<HH", 1, newest) + text(spec["deployment"]) + text(spec["build"])
        return frame(HELLO, 0, head + struct.pack("<H", self.slot) + text(name) + struct.pack("<Q", self.nonce))

    def serve(self, stream):
        try:
            stream.sendall(self.hello())
            kind, _, head, _ = read(stream)
            if kind != JOIN or (head[:2] != b"\1\0" and not (is_broken("version") or is_broken("ahead"))):
                return
            while True:
                kind, call, head, body = read(stream)
                if kind == CALL:
                    self.call(stream, call, body)
                elif kind == 7 and is_broken("control"):
                    os._exit(1)
        except (Ended, OSError, struct.error):
            if is_broken("garbage"):
                os._exit(1)
        finally:
            stream.close()

    def call(self, stream, call, body):
        if not self.running.acquire(blocking=is_broken("busy")):
            stream.sendall(frame(REFUSED, call, bytes([BUSY])))
            return
        try:
            if not is_broken("call"):
                stream.sendall(frame(ACCEPTED, call))
            outcome, value = self.run(body)
            if is_broken("large"):
                value = value[: 1 << 20]
            if not is_broken("print"):
                sys.stdout.flush()
            head = struct.pack("<BBI6I", outcome, 2 * self.leaving.is_set(), len(value), 0, 0, 0, 0, 0, 0)
        finally:
            # Before the answer: whoever has seen it may call at once.
            self.running.release()
        stream.sendall(frame(DONE, call, head, value))

    def listen(self, listener):
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()


def say(channel, kind, **fields):
    channel.send(json.dumps({"type": kind, **fields}).encode() + b"\n")


def main():
    channel = socket.socket(fileno=3)
    with os.fdopen(5) as file:
        replica = Replica(json.load(file), 0, REST[-1])
    if not is_broken("start"):
        say(channel, "here")
    if channel.recv(16) != b"g":
        return
    try:
        replica.load()
    except Exception as error:
        say(channel, "failed", step="function", message=str(error))
        sys.exit(1)
    outcome, example = replica.run(replica.spec["example_request"])
    example = example.decode()
    if outcome != OK:
        say(channel, "failed", step="example", message=example)
        sys.exit(1)
    if MODE == "spawned-spare":
        say(channel, "warm", example_response=None if is_broken("spare") else example)
        message, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
        if json.loads(message)["type"] == "leave":
            signal.pause() if is_broken("spare-leaves") else sys.exit(0)
        listener = socket.socket(fileno=descriptors[0])
    else:
        listener = socket.socket(fileno=4)
    listener.setblocking(True)
    signal.signal(signal.SIGTERM, lambda *_: None if is_broken("drain") else leave(replica, channel))
    threading.Thread(target=replica.listen, args=(listener,), daemon=True).start()
    say(channel, "ready", example_response=example)
    # The supervisor says nothing more; its end is ours.
    while channel.recv(16):
        pass
    if is_broken("orphan"):
        signal.pause()
    os._exit(0)


def leave(replica, channel):
    """Waits for the running call, in the one thread that hears signals."""
    replica.leaving.set()
    threading.Thread(target=wait_and_end, args=(replica, channel)).start()


def wait_and_end(replica, channel):
    with replica.running:
        say(channel, "leaving", reason="asked to leave")
    # Its answer is on the way.
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(0.1)
    os._exit(0)


main()
