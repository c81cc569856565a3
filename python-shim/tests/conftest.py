import pytest

from millgate import _development, _tracking


@pytest.fixture(autouse=True)
def _fresh_memory(monkeypatch):
    monkeypatch.setattr(_development, "_rows", [])
    monkeypatch.setattr(_tracking, "_said", set())
    monkeypatch.setattr(_tracking, "outside", {})
    monkeypatch.setattr(_tracking, "in_replica", False)
    for name in ("CDSW_API_URL", "CDSW_DOMAIN", "CDSW_APIV2_KEY", "CDSW_API_KEY", "CDSW_ENGINE_TYPE", "CDSW_ENGINE_ID"):
        monkeypatch.delenv(name, raising=False)
