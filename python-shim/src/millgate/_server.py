"""The metric store of a server: what is written there and read."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
import warnings
from typing import Any

from millgate._client import address

#: Seconds for one request. A read waits up to one for what gateways still have.
TIMEOUT_S = 60.0
#: Rows of one request.
PAGE_ROWS = 10_000

Row = dict[str, Any]


def read(crns: dict[str, str | None], start_ms: float | None, end_ms: float | None) -> Row:
    """Read every row of a window, page by page."""
    parameters: dict[str, Any] = {name: crn for name, crn in crns.items() if crn is not None}
    if not parameters:
        own = own_deployment()
        if own is None:
            raise ValueError(
                "what to read is not known (hint: give model_deployment_crn, model_build_crn or model_crn)"
            )
        parameters["model_deployment_crn"] = own
    if start_ms is not None:
        parameters["start_timestamp_ms"] = start_ms
    if end_ms is not None:
        parameters["end_timestamp_ms"] = end_ms
    parameters["page_size"] = PAGE_ROWS
    rows: list[Row] = []
    while True:
        page = _send("GET", "/api/v2/metrics?" + urllib.parse.urlencode(parameters))
        rows.extend(page["metrics"])
        if not page["next_page_token"]:
            return {"metrics": rows}
        parameters["page_token"] = page["next_page_token"]


def track_delayed(metrics: dict[str, Any], prediction_uuid: str) -> None:
    """Merge metrics into the row of their prediction."""
    _send("POST", "/api/v2/metrics/delayed", {"metrics": metrics, "prediction_uuid": prediction_uuid})


def track_aggregate(metrics: dict[str, Any], start_ms: float, end_ms: float, deployment_crn: str | None) -> None:
    """Add a row about a span of time."""
    deployment = deployment_crn or own_deployment()
    if deployment is None:
        raise ValueError("the deployment is not known (hint: give model_deployment_crn)")
    body = {
        "metrics": metrics,
        "start_timestamp_ms": start_ms,
        "end_timestamp_ms": end_ms,
        "model_deployment_crn": deployment,
    }
    _send("POST", "/api/v2/metrics/aggregates", body)


def own_deployment() -> str | None:
    """Give the id of the deployment this process is a replica of, or None anywhere else."""
    if os.environ.get("CDSW_ENGINE_TYPE") != "model":
        return None
    return os.environ.get("CDSW_ENGINE_ID")


def _send(method: str, path: str, body: Any = None) -> Any:
    url = address(None) + path
    data = None if body is None else json.dumps(body, allow_nan=False).encode()
    headers = {"Authorization": f"Bearer {_key()}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            for warning in response.headers.get_all("Warning") or []:
                warnings.warn(warning, stacklevel=4)
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise _failure(error.code, error.read()) from None
    except urllib.error.URLError as error:
        raise ConnectionError(f"no answer from {url}: {error.reason} (hint: is the server running?)") from error


def _key() -> str:
    key = os.environ.get("CDSW_APIV2_KEY") or os.environ.get("CDSW_API_KEY")
    if key:
        return key
    if own_deployment() is not None:
        # User code shares a replica's address space, so nobody puts a key there but the user.
        raise PermissionError(
            "a replica has no key of its own (hint: set CDSW_APIV2_KEY in the variables of the deployment or the "
            "project; track_metric needs none)"
        )
    raise PermissionError(
        "an API key is needed (hint: set CDSW_APIV2_KEY, or use dev=True for metrics of this process)"
    )


def _failure(status: int, body: bytes) -> Exception:
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    if status in (400, 413):
        return ValueError(message)
    if status in (401, 403):
        return PermissionError(message)
    if status == 404:
        return LookupError(message)
    return ConnectionError(f"the server answered {status}: {message}")
