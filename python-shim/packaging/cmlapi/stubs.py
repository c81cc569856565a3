"""Writes type stubs of the client's models and operations, from the API document that they are made from."""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Any

_HEAD = "import datetime\nfrom typing import Any, Literal, overload\n\n"
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "dict[str, Any]"}


def write(package: Path) -> dict[str, str]:
    """Return the stubs of the package ``cmlapi`` in this folder: path in it to text."""
    document = json.loads((package / "document.json").read_text("utf-8"))
    return {
        "models/__init__.pyi": _models(document["definitions"]),
        "api/cml_service_api.pyi": _operations(document["paths"]),
        "__init__.pyi": _whole(list(document["definitions"])),
    }


def _whole(names: list[str]) -> str:
    lines = ["from .api.cml_service_api import CMLServiceApi as CMLServiceApi"]
    lines += ["from .api_client import ApiClient as ApiClient"]
    lines += ["from .configuration import Configuration as Configuration"]
    lines += [f"from .models import {name} as {name}" for name in names]
    lines += ["from .rest import ApiException as ApiException", ""]
    lines += ["def default_client(url: str | None = None, cml_api_key: str | None = None) -> CMLServiceApi: ..."]
    return "\n".join([*lines, ""])


def _models(definitions: dict[str, Any]) -> str:
    lines = [_HEAD + "DOCUMENT: dict[str, Any]", "NAMES: list[str]", "CLASSES: dict[str, type[ApiObject]]", ""]
    lines += ["class ApiObject:", "    schemas: dict[str, Any]", "    def fields(self) -> dict[str, Any]: ..."]
    lines += ["    def to_dict(self) -> dict[str, Any]: ...", "    def to_str(self) -> str: ...", ""]
    for name, definition in definitions.items():
        properties = definition.get("properties", {})
        order = [field for field in definition.get("x-order", list(properties)) if not keyword.iskeyword(field)]
        lines.append(f"class {name}(ApiObject):")
        lines += [f"    {field}: {_type(properties[field])}" for field in order]
        given = [f"{field}: {_given(properties[field])} = None" for field in order]
        lines += [f"    def __init__(self, {', '.join([*given, '**others: Any'])}) -> None: ...", ""]
    lines += ["def read(schema: dict[str, Any], value: Any) -> Any: ...", ""]
    lines += ["def read_time(text: str) -> datetime.datetime | str: ...", ""]
    return "\n".join(lines)


def _operations(paths: dict[str, Any]) -> str:
    lines = [
        _HEAD + "from ..api_client import ApiClient, AsyncResult",
        "from ..models import *",
        "from ..rest import RESTResponse",
        "",
    ]
    lines += ["class CMLServiceApi:", "    api_client: ApiClient"]
    lines += ["    def __init__(self, api_client: ApiClient | None = None) -> None: ..."]
    for methods in paths.values():
        for described in methods.values():
            if "CMLService" in described["tags"]:
                lines += _operation(described)
    return "\n".join([*lines, ""])


def _operation(described: dict[str, Any]) -> list[str]:
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", described["operationId"]).lower()
    parameters = described.get("parameters", [])
    first = ["self", *(_argument(p) for p in parameters if p.get("required")), "*"]
    optional = [f"{p['name']}: {_given(p)} = None" for p in parameters if not p.get("required")]
    answer = "str" if "produces" in described else _type(described["responses"]["200"].get("schema", {}))
    timeout = "_request_timeout: float | None = None"

    def signature(options: list[str], result: str) -> list[str]:
        given = ", ".join([*first, *options, *optional, timeout])
        return ["    @overload", f"    def {name}({given}) -> {result}: ..."]

    lines = signature(["async_req: Literal[False] | None = None"], answer)
    lines += signature(["async_req: Literal[True]"], f"AsyncResult[{answer}]")
    lines += signature(["_preload_content: Literal[False]"], "RESTResponse")
    whole = ", ".join([*first, *optional, timeout])
    return [*lines, f"    def {name}_with_http_info({whole}) -> tuple[{answer}, int, Any]: ..."]


def _argument(parameter: dict[str, Any]) -> str:
    if parameter["in"] == "formData":
        return "files: dict[str, Any]"
    if parameter["in"] == "body":
        kind = _type(parameter.get("schema", {}))
        return f"{parameter['name']}: {kind}" if kind == "Any" else f"{parameter['name']}: {kind} | dict[str, Any]"
    return f"{parameter['name']}: {_type(parameter)}"


def _given(schema: dict[str, Any]) -> str:
    # Numbers are taken as texts too, objects as dicts.
    kind = _type(schema)
    also = {"int": " | str", "float": " | str"}.get(kind, " | dict[str, Any]" if "$ref" in schema else "")
    return kind if kind == "Any" else f"{kind}{also} | None"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    kind = schema.get("type")
    if kind == "array":
        return f"list[{_type(schema.get('items', {}))}]"
    if kind == "file":
        return "bytes"
    if schema.get("format") == "date-time":
        return "datetime.datetime"
    return _PLAIN.get(str(kind), "Any")
