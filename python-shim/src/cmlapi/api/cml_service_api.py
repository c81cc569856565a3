"""Every operation of API v2 as a method, made from the API document.

``create_model(body, project_id)`` is the operation ``CreateModel``: what it must have comes first, the body before the
names in the path; what it may have is given by keyword. Every method also takes ``async_req=True`` (it returns at once,
and ``.get()`` of what it returns waits), ``_request_timeout`` in seconds, and ``_preload_content=False`` for the answer
as it came.
"""

from __future__ import annotations

import inspect
import json
import re
import urllib.parse
from typing import Any, Callable

from ..api_client import ApiClient, Body, query_text
from ..models import DOCUMENT, read

_OPTIONS = ("async_req", "_return_http_data_only", "_preload_content", "_request_timeout")


class Operation:
    """An operation of the API document."""

    def __init__(self, method: str, path: str, described: dict[str, Any]) -> None:
        self.method = method.upper()
        self.path = path
        self.name = snake(described["operationId"])
        self.summary = described.get("summary", "")
        parameters = described.get("parameters", [])
        self.required = [_argument(p) for p in parameters if p.get("required")]
        self.optional = [p["name"] for p in parameters if not p.get("required")]
        self.in_path = [p["name"] for p in parameters if p["in"] == "path"]
        self.body = next((p["in"] for p in parameters if p["in"] in ("body", "formData")), None)
        self.is_json = "application/json" in described.get("consumes", ["application/json"])
        self.answer = described["responses"]["200"].get("schema", {})
        self.is_text = "produces" in described

    def call(self, client: ApiClient, given: dict[str, Any], options: dict[str, Any]) -> Any:
        """Return (what came of it, status, headers), or the answer as it came."""
        path = self.path
        for name in self.in_path:
            path = path.replace("{" + name + "}", urllib.parse.quote(str(given[name]), safe=""))
        path += query_text({name: given.get(name) for name in self.optional})
        answer = client.send(self.method, path, self._body(given), options.get("_request_timeout"))
        if not options.get("_preload_content", True):
            return answer, answer.status, answer.getheaders()
        value: Any = answer.data
        if self.answer.get("type") != "file":
            value = answer.data.decode("utf-8", "replace")
            value = value if self.is_text else read(self.answer, json.loads(value or "null"))
        return value, answer.status, answer.getheaders()

    def _body(self, given: dict[str, Any]) -> Body | None:
        if self.body is None:
            return None
        if self.body == "formData":
            return Body.form(given["files"])
        content = given["body"]
        return Body.json(content) if self.is_json else Body(content, "application/octet-stream")


def _argument(parameter: dict[str, Any]) -> str:
    # A form of files is a dict of them.
    return "files" if parameter["in"] == "formData" else str(parameter["name"])


def snake(name: str) -> str:
    """Return ``CreateModelV2`` as ``create_model_v2``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _method(operation: Operation, is_with_http_info: bool) -> Callable[..., Any]:
    keyword = inspect.Parameter.KEYWORD_ONLY
    required = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in operation.required]
    optional = [inspect.Parameter(n, keyword, default=None) for n in (*operation.optional, *_OPTIONS)]
    positions = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *required]
    signature = inspect.Signature([*positions, *optional])

    def method(self: CMLServiceApi, /, *values: Any, **named: Any) -> Any:
        bound = signature.bind(self, *values, **named)
        given = {n: value for n, value in bound.arguments.items() if n not in _OPTIONS and n != "self"}
        options = {n: value for n, value in bound.arguments.items() if n in _OPTIONS and value is not None}
        for name in operation.required:
            if given[name] is None:
                raise ValueError(f"Missing the required parameter `{name}` when calling `{operation.name}`")

        def work() -> Any:
            done = operation.call(self.api_client, given, options)
            whole = is_with_http_info and not options.get("_return_http_data_only", False)
            return done if whole else done[0]

        return self.api_client.later(work) if options.get("async_req") else work()

    method.__name__ = operation.name + ("_with_http_info" if is_with_http_info else "")
    method.__qualname__ = f"CMLServiceApi.{method.__name__}"
    method.__doc__ = f"{operation.summary}.\n\n``{operation.method} {operation.path}``"
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


class CMLServiceApi:
    """API v2; see the module."""

    def __init__(self, api_client: ApiClient | None = None) -> None:
        self.api_client = api_client or ApiClient()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the API has no operation {name!r}")


for _path, _methods in DOCUMENT["paths"].items():
    for _verb, _described in _methods.items():
        if "CMLService" in _described["tags"]:
            _operation = Operation(_verb, _path, _described)
            setattr(CMLServiceApi, _operation.name, _method(_operation, False))
            setattr(CMLServiceApi, _operation.name + "_with_http_info", _method(_operation, True))
