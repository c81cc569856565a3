"""The API's objects, one class for each definition of the API document."""

from __future__ import annotations

import datetime
import json
import pprint
import re
from pathlib import Path
from typing import Any, ClassVar

#: The API document of the server this client came with.
DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent.parent / "document.json").read_text("utf-8"))

_FRACTION = re.compile(r"\.(\d+)")


class ApiObject:
    """An object of the API. Fields are attributes; one that is not set is None."""

    #: Field to its schema in the API document.
    schemas: ClassVar[dict[str, Any]] = {}

    def __init__(self, *values: Any, **named: Any) -> None:
        names = list(self.schemas)
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} has {len(names)} fields, {len(values)} values were given")
        given = dict(zip(names, values))
        for name, value in named.items():
            if name in given:
                raise TypeError(f"{type(self).__name__} got two values for {name!r}")
            given[name] = value
        for name in names:
            setattr(self, name, given.pop(name, None))
        # Programs give fields of other versions, too; the server says which it does not know.
        for name, value in given.items():
            setattr(self, name, value)

    def fields(self) -> dict[str, Any]:
        """Return every field with its value."""
        return dict(vars(self))

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dict, what is in it too."""

        def shown(value: Any) -> Any:
            if isinstance(value, ApiObject):
                return value.to_dict()
            if isinstance(value, list):
                return [shown(part) for part in value]
            return value

        return {name: shown(value) for name, value in self.fields().items()}

    def to_str(self) -> str:
        """Return it as text for people."""
        return pprint.pformat(self.to_dict())

    def __repr__(self) -> str:
        return self.to_str()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, ApiObject) and self.fields() == other.fields()

    __hash__ = None  # type: ignore[assignment]  # it can be changed


def _class(name: str, definition: dict[str, Any]) -> type[ApiObject]:
    properties = definition.get("properties", {})
    order = definition.get("x-order", list(properties))
    schemas = {field: properties[field] for field in order}
    lines = [f"``{field}``: {schema.get('description', '')}" for field, schema in schemas.items()]
    doc = "\n".join([f"{name} of API v2.", "", *lines])
    return type(name, (ApiObject,), {"schemas": schemas, "__doc__": doc, "__module__": "cmlapi.models"})


CLASSES: dict[str, type[ApiObject]] = {
    name: _class(name, definition) for name, definition in DOCUMENT["definitions"].items()
}
NAMES = list(CLASSES)
globals().update(CLASSES)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the API has no definition {name!r}")


def read(schema: dict[str, Any], value: Any) -> Any:
    """Return a value of an answer as its schema says: models, times, lists of them."""
    if value is None:
        return None
    reference = schema.get("$ref")
    if reference and isinstance(value, dict):
        model = CLASSES[reference.rsplit("/", 1)[-1]]
        # Fields of a newer server have no schema and are kept as they are.
        return model(**{name: read(model.schemas.get(name, {}), part) for name, part in value.items()})
    if schema.get("type") == "array" and isinstance(value, list):
        return [read(schema.get("items", {}), part) for part in value]
    if schema.get("format") == "date-time" and isinstance(value, str):
        return read_time(value)
    return value


def read_time(text: str) -> datetime.datetime | str:
    """Return an RFC 3339 time, or the text where it is none."""
    padded = _FRACTION.sub(lambda found: "." + found[1][:6].ljust(6, "0"), text)
    try:
        return datetime.datetime.fromisoformat(padded.replace("Z", "+00:00"))
    except ValueError:
        return text
