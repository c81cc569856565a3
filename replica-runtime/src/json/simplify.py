"""One step from an object that JSON has no form for to one that it has. See the table in `json/mod.rs`."""

import sys
from enum import Enum


class RawNumber(str):
    """Text that is a JSON number already."""


class NotJson(Exception):
    """What is wrong with a value, to be put behind "the function returned"."""


_HINTS = {
    "bytes": "decode it to text, or use base64",
    "bytearray": "decode it to text, or use base64",
    "memoryview": "use its `tolist()` or base64",
    "set": "use `list(…)` or `sorted(…)`",
    "frozenset": "use `list(…)` or `sorted(…)`",
    "generator": "use `list(…)`",
    "dict_keys": "use `list(…)`",
    "dict_values": "use `list(…)`",
    "map": "use `list(…)`",
    "filter": "use `list(…)`",
    "zip": "use `list(…)`",
    "range": "use `list(…)`",
    "timedelta": "use its `total_seconds()`",
    "complex": "use its real and imaginary parts",
}


def simplify(value):
    cls = type(value)
    if isinstance(value, Enum):
        return value.value
    if hasattr(cls, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in cls.__dataclass_fields__ if hasattr(value, name)}
    if cls.__module__.partition(".")[0] in ("numpy", "pandas"):
        return _from_arrays(value, cls)
    if _is_a(value, "datetime", "date", "time"):
        return value.isoformat()
    if _is_a(value, "decimal", "Decimal"):
        if not value.is_finite():
            raise NotJson(f"`Decimal('{value}')`")
        return RawNumber(value)
    if _is_a(value, "uuid", "UUID"):
        return str(value)
    if hasattr(cls, "tolist") and cls.__name__ not in _HINTS:
        return value.tolist()
    raise NotJson(_of_type(cls))


def key(value):
    """The text of a dictionary's key that is neither text, number, bool nor None."""
    simple = simplify(value)
    if isinstance(simple, (dict, list)):
        raise NotJson(f"a dictionary with a key of type `{type(value).__name__}`")
    return simple


def _from_arrays(value, cls):
    name = cls.__name__
    if name == "DataFrame":
        if not value.columns.is_unique:
            raise NotJson("a `DataFrame` with two columns of one name, of which a record holds one")
        return value.to_dict(orient="records")
    if name in ("NaTType", "NAType"):
        raise NotJson(f"`{value}`")
    if name == "Timestamp":
        return value.isoformat()
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if cls.__module__ == "numpy" and kind == "M":
        # `tolist` would give nanoseconds as bare numbers.
        text = value.astype(str).tolist()
        if "NaT" in (text if isinstance(text, list) else [text]):
            raise NotJson("`NaT`")
        return text
    if kind in ("c", "m"):
        raise NotJson(_of_type(cls, f"{cls.__name__} of {value.dtype}"))
    if not hasattr(cls, "tolist"):
        raise NotJson(_of_type(cls))
    simple = value.tolist()
    if type(simple) is cls:
        raise NotJson(_of_type(cls))
    return simple


def _is_a(value, module, *names):
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def _of_type(cls, shown=None):
    hint = _HINTS.get(cls.__name__)
    text = f"an object of type `{shown or cls.__name__}`"
    return f"{text} (hint: {hint})" if hint else text
