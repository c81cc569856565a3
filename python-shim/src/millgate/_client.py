"""Calling a deployed model."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

#: Seconds: the longest wait for a replica and the default time of a call, and some for the way.
TIMEOUT_S = 75.0


def call_model(
    model_access_key: str,
    ipt: Any,
    api_key: str | None = None,
    *,
    url: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Call a model and return the whole envelope, whether it tells of success or of failure.

    The server is `url`, else that of `CDSW_API_URL`, else of `CDSW_DOMAIN`. The API key is `api_key`, else
    `CDSW_APIV2_KEY`, else `CDSW_API_KEY`; without any the call is made without one.
    """
    endpoint = address(url) + "/model"
    body = json.dumps({"accessKey": model_access_key, "request": ipt}, allow_nan=False).encode()
    headers = {"Content-Type": "application/json"}
    key = api_key or os.environ.get("CDSW_APIV2_KEY") or os.environ.get("CDSW_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(endpoint, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return _envelope(endpoint, response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return _envelope(endpoint, error.code, error.read())
    except urllib.error.URLError as error:
        raise ConnectionError(f"no answer from {endpoint}: {error.reason} (hint: is the server running?)") from error


def address(url: str | None) -> str:
    """Give scheme and host of a server: that of `url`, else the one that the environment names."""
    base = url or os.environ.get("CDSW_API_URL")
    if not base:
        domain = os.environ.get("CDSW_DOMAIN")
        if not domain:
            raise ValueError("the server is not known; set CDSW_API_URL to <scheme>://<domain>/api/v1, or CDSW_DOMAIN")
        base = f"http://{domain}"
    parts = urllib.parse.urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"`{base}` is not the address of a server (hint: <scheme>://<domain>/api/v1)")
    return f"{parts.scheme}://{parts.netloc}"


def _envelope(endpoint: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        envelope = json.loads(body)
    except ValueError:
        envelope = None
    if not isinstance(envelope, dict):
        raise ConnectionError(f"{endpoint} answered {status} with something that is not a model's answer")
    return envelope
