"""What every method of the API does: path, query and body out, an object back."""

from __future__ import annotations

import datetime
import json
import os
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import Any, Callable

from . import models
from .configuration import Configuration
from .rest import RESTClient, RESTResponse

#: Requests that may be underway at once with ``async_req``.
THREADS_MAX = 8


class ApiClient:
    """A connection to one server."""

    def __init__(
        self,
        configuration: Configuration | None = None,
        header_name: str | None = None,
        header_value: str | None = None,
    ) -> None:
        self.configuration = configuration or Configuration()
        self.default_headers: dict[str, str] = {"User-Agent": "millgate-cmlapi"}
        if header_name is not None and header_value is not None:
            self.default_headers[header_name] = header_value
        self._rest: RESTClient | None = None
        self._pool: ThreadPool | None = None

    def set_default_header(self, header_name: str, header_value: str) -> None:
        """Send a header with every request."""
        self.default_headers[header_name] = header_value

    def later(self, work: Callable[[], Any]) -> AsyncResult[Any]:
        """Begin to work in a thread; its ``get`` waits for what comes of it."""
        if self._pool is None:
            self._pool = ThreadPool(THREADS_MAX)
        return self._pool.apply_async(work)

    def send(self, method: str, path: str, body: Body | None, timeout: Any) -> RESTResponse:
        """Return the answer to one request; ``timeout`` is seconds, or a pair of which the longer counts."""
        if self._rest is None:
            self._rest = RESTClient(self.configuration)
        headers = {**self.default_headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = body.media_type
        request = urllib.request.Request(
            self.configuration.base() + path,
            data=None if body is None else body.data,
            headers=headers,
            method=method,
        )
        seconds = max(timeout) if isinstance(timeout, (tuple, list)) else timeout
        return self._rest.request(request, seconds)


class Body:
    """Bytes to send, and what they are."""

    def __init__(self, data: bytes, media_type: str) -> None:
        self.data = data
        self.media_type = media_type

    @classmethod
    def json(cls, value: Any) -> Body:
        """Return a JSON body of a model, a dict or a value."""
        return cls(json.dumps(plain(value)).encode(), "application/json")

    @classmethod
    def form(cls, files: Mapping[str, Any]) -> Body:
        """Return a form of files: target path to bytes, a path on this machine or an open file."""
        cut = uuid.uuid4().hex
        parts = []
        for target, source in files.items():
            # Quotes and line ends would end the name early.
            name = "".join({'"': "%22", "\r": "%0D", "\n": "%0A"}.get(c, c) for c in target)
            head = f'--{cut}\r\nContent-Disposition: form-data; name="{name}"; filename="file"\r\n\r\n'
            parts.append(head.encode() + _content(source) + b"\r\n")
        return cls(b"".join(parts) + f"--{cut}--\r\n".encode(), f"multipart/form-data; boundary={cut}")


def _content(source: Any) -> bytes:
    if isinstance(source, (bytes, bytearray)):
        return bytes(source)
    if hasattr(source, "read"):
        data = source.read()
        return data.encode() if isinstance(data, str) else bytes(data)
    with open(os.fspath(source), "rb") as file:
        return file.read()


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: models as dicts without what is not set, times as text."""
    if isinstance(value, models.ApiObject):
        return {name: plain(part) for name, part in value.fields().items() if part is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value


def query_text(parameters: Mapping[str, Any]) -> str:
    """Return a query string with its question mark, or nothing."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return "?" + urllib.parse.urlencode(given) if given else ""
