"""One request and its answer, by the standard library."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .configuration import Configuration


class RESTResponse:
    """An answer that was read: ``status``, ``reason``, ``data`` (bytes)."""

    def __init__(self, status: int, reason: str, data: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.data = data
        self._headers = headers

    def read(self) -> bytes:
        """Return the body."""
        return self.data

    def getheaders(self) -> Mapping[str, str]:
        """Return all headers."""
        return self._headers

    def getheader(self, name: str, default: str | None = None) -> str | None:
        """Return one header, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self._headers.items() if key.lower() == wanted), default)


class ApiException(Exception):  # noqa: N818 - the name that programs catch
    """The server refused, or could not be reached.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        reason: its words.
        body: the body of the answer as text, JSON with ``message`` where the server made it.
        headers: the headers of the answer.
    """

    def __init__(self, status: int = 0, reason: str | None = None, http_resp: RESTResponse | None = None) -> None:
        self.status = http_resp.status if http_resp else status
        self.reason = http_resp.reason if http_resp else reason
        self.body = http_resp.data.decode("utf-8", "replace") if http_resp else None
        self.headers = http_resp.getheaders() if http_resp else None
        super().__init__(f"({self.status}) {self.reason}" + (f": {self.body}" if self.body else ""))


class RESTClient:
    """Sends requests as a configuration says."""

    def __init__(self, configuration: Configuration) -> None:
        # Proxies of the environment are left alone: a server on this host must not be asked for through one.
        proxies = {"http": configuration.proxy, "https": configuration.proxy} if configuration.proxy else {}
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(proxies)]
        if configuration.base().startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=configuration.ssl_context()))
        self._opener = urllib.request.build_opener(*handlers)

    def request(self, request: urllib.request.Request, timeout_s: float | None) -> RESTResponse:
        """Return the answer to a request. Raises ApiException unless it is a success."""
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return RESTResponse(answer.status, answer.reason, answer.read(), dict(answer.headers.items()))
        except urllib.error.HTTPError as error:
            with error:
                data = error.read()
                refused = RESTResponse(error.code, str(error.reason), data, dict(error.headers.items()))
            raise ApiException(http_resp=refused) from None
        except OSError as error:
            raise ApiException(0, str(getattr(error, "reason", error))) from error
