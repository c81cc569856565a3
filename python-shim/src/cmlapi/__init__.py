"""A client of API v2 by the names that existing programs use.

Its methods and models are made from the server's own API document at import, so they cannot differ from it. It uses the
standard library alone.
"""

from __future__ import annotations

import os
from typing import Any

from . import models
from .api.cml_service_api import CMLServiceApi
from .api_client import ApiClient
from .configuration import Configuration
from .rest import ApiException

__all__ = ["ApiClient", "ApiException", "CMLServiceApi", "Configuration", "default_client", *models.NAMES]

globals().update(models.CLASSES)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"the API has no definition {name!r}")


def default_client(url: str | None = None, cml_api_key: str | None = None) -> CMLServiceApi:
    """Return a client of the server at ``url``.

    What is not given is found in the environment: ``CDSW_API_URL`` or ``CDSW_DOMAIN``, and ``CDSW_APIV2_KEY``.
    Raises ValueError when one of the two is nowhere to be found.
    """
    found = url or os.environ.get("CDSW_API_URL", "").split("/api/")[0] or os.environ.get("CDSW_DOMAIN")
    key = cml_api_key or os.environ.get("CDSW_APIV2_KEY")
    if not found:
        raise ValueError("no server: give `url`, or set CDSW_API_URL")
    if not key:
        raise ValueError("no API key: give `cml_api_key`, or set CDSW_APIV2_KEY")
    configuration = Configuration()
    configuration.host = found
    client = ApiClient(configuration)
    client.set_default_header("authorization", f"Bearer {key}")
    return CMLServiceApi(client)
