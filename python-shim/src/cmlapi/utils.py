"""Lists longer than a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable


class Cursor:
    """Everything a list method lists, page after page.

    ``Cursor(client.list_projects, search_filter='{"name": "iris"}').items()`` yields projects. Arguments of the method
    are given after it; a page is read when it is reached.
    """

    def __init__(self, method: Callable[..., Any], *values: Any, **named: Any) -> None:
        self._method = method
        self._values = values
        self._named = named

    def items(self) -> Iterator[Any]:
        """Yield each object."""
        token = self._named.get("page_token", "")
        while True:
            page = self._method(*self._values, **{**self._named, "page_token": token})
            yield from next((value for value in page.fields().values() if isinstance(value, list)), [])
            token = getattr(page, "next_page_token", "")
            if not token:
                return
