"""What the runtime does in Python: loading the file, showing exceptions, an event loop.

It is compiled into the program and never found on `sys.path`; no name of it is visible to a function file.
"""

import difflib
import importlib.util
import io
import keyword
import os
import random
import sys
import traceback
from importlib.machinery import SourceFileLoader

_OWN_FILE = __file__


class StartFailure(Exception):
    """A step of the start failed; the text is for the person who deployed the file."""

    def __init__(self, step, message):
        super().__init__(message)
        self.step = step
        self.message = message


class _Descriptor(io.FileIO):
    """Standard output or error; what a call prints there is marked as its own."""

    def __init__(self, fd, name, mark):
        super().__init__(fd, "w", closefd=False)
        self.name = name
        self._mark = mark

    def write(self, data):
        self._mark(self.fileno())
        return super().write(data)


def open_streams(mark):
    """Prints reach the log line by line, and so before the answer of their call."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            continue
        stream.flush()
        raw = _Descriptor(stream.fileno(), f"<{name}>", mark)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
        )
        text.mode = "w"
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def load(root, file, python_path):
    """The module of the function file, imported by path whatever the file's name is."""
    try:
        os.chdir(root)
    except OSError as error:
        raise StartFailure("import", f"the model's root `{root}` cannot be entered: {error.strerror}") from None
    path = os.path.join(root, file)
    if not os.path.isfile(path):
        raise StartFailure("import", _no_such_file(root, file))
    folder = os.path.dirname(path)
    # '' comes first so that imports follow `chdir`, as in an interactive session.
    sys.path[:] = ["", *([folder] if folder != os.path.normpath(root) else []), *sys.path, *python_path]
    name = _module_name(file)
    loader = SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except SystemExit as error:
        show(error)
        message = f"`{file}` called `sys.exit({error.code!r})` while it was imported"
        raise StartFailure("import", f'{message}; guard it by `if __name__ == "__main__":`') from None
    except BaseException as error:
        show(error)
        raise StartFailure("import", describe(error)) from None
    return module


def find(module, file, name):
    """The function called `name`, and its record if it is decorated by the SDK."""
    try:
        function = getattr(module, name)
    except AttributeError:
        raise StartFailure("function", _no_such_function(module, file, name)) from None
    if not callable(function):
        what = type(function).__name__
        message = f"`{name}` in `{file}` is of type `{what}` and cannot be called; name a function"
        raise StartFailure("function", message)
    record = getattr(function, "__millgate__", None)
    # A decorator on top of the SDK's copies its attributes; then the outer one is what must be called.
    if record is not None and record.wrapper is function:
        function = record.function
    return function, bool(record is not None and record.metrics)


def hook(module, name):
    """`setup` or `teardown` of the file, if it has one."""
    function = getattr(module, name, None)
    return function if callable(function) else None


def describe(error):
    """`Type: text` of an exception; never raises, whatever its `__str__` does."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = "(its text cannot be had)"
    return f"{name}: {text}" if text else name


def show(error):
    """The traceback, for the log, from the user's first frame on."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    try:
        traceback.print_exception(type(error), error, frames)
        sys.stderr.flush()
    except BaseException:
        # The user may have replaced or closed sys.stderr; the answer must not depend on it.
        pass


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass


def reseed():
    """Siblings forked from one template must not draw the same numbers."""
    random.seed()
    for name in ("numpy.random", "torch"):
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            module.seed()
        except Exception as error:
            print(f"millgate: {name} was not reseeded: {describe(error)}", file=sys.stderr)


class EventLoop:
    """One event loop for as long as the replica lives; tasks go on between calls, while it is idle."""

    def __init__(self):
        import asyncio

        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def run(self, coroutine):
        return self._loop.run_until_complete(coroutine)

    def idle(self, fd):
        """Runs tasks until `fd` can be read."""
        self._loop.add_reader(fd, self._loop.stop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.remove_reader(fd)


def _is_ours(filename):
    return filename == _OWN_FILE or filename.startswith("<frozen importlib")


def _module_name(file):
    """The file's stem where that is a free module name, so that classes of the file can be pickled; else a safe one."""
    stem = os.path.splitext(os.path.basename(file))[0]
    is_free = stem not in sys.modules and stem not in _standard_modules()
    if stem.isidentifier() and not keyword.iskeyword(stem) and is_free:
        return stem
    return "millgate_function_" + "".join(c if c.isalnum() else "_" for c in stem)


def _standard_modules():
    names = getattr(sys, "stdlib_module_names", None)
    if names is not None:
        return names
    # Python 3.9 keeps no list.
    folder = os.path.dirname(os.__file__)
    found = set(sys.builtin_module_names)
    for place in (folder, os.path.join(folder, "lib-dynload")):
        if os.path.isdir(place):
            found.update(name.split(".")[0] for name in os.listdir(place))
    return found


def _no_such_file(root, file):
    folder = os.path.join(root, os.path.dirname(file))
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".py")]
    except OSError:
        names = []
    return f"there is no file `{file}` in the model's root{_suggestion(os.path.basename(file), names)}"


def _no_such_function(module, file, name):
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return f"`{file}` has no function `{name}`{_suggestion(name, own)}"


def _suggestion(name, candidates):
    close = difflib.get_close_matches(name, candidates, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    if candidates:
        return "; there is " + ", ".join(f"`{candidate}`" for candidate in sorted(candidates)[:10])
    return ""
