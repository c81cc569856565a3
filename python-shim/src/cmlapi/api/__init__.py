"""The API's methods."""

from .cml_service_api import CMLServiceApi

__all__ = ["CMLServiceApi"]
