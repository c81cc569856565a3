"""Decorating and calling models."""

from millgate import call_model, cml_model

__all__ = ["call_model", "cml_model"]
