"""Who calls, outside of a replica."""

import sys
from types import SimpleNamespace

import pytest

import millgate


def test_outside_of_a_replica_no_call_runs() -> None:
    assert millgate.current_call() is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [(None, None), (("r-1", ""), ("r-1", None)), (("r-1", "00-aa-bb-01"), ("r-1", "00-aa-bb-01"))],
)
def test_in_one_the_runtime_is_asked(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, str] | None, expected: tuple[str, str | None] | None
) -> None:
    monkeypatch.setitem(sys.modules, "_millgate_runtime", SimpleNamespace(call=lambda: found))
    assert millgate.current_call() == expected
