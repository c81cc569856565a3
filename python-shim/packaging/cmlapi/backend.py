"""Makes a wheel of the package beside it (PEP 517), by the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import stubs

HERE = Path(__file__).parent
WHEEL = "Wheel-Version: 1.0\nGenerator: millgate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    """Write the wheel and return its name."""
    metadata = (HERE / "PKG-INFO").read_text("utf-8")
    fields = dict(line.split(": ", 1) for line in metadata.splitlines() if ": " in line)
    stem = f"{fields['Name']}-{fields['Version']}"
    files = {str(f.relative_to(HERE)): f.read_bytes() for f in sorted((HERE / "cmlapi").rglob("*")) if f.is_file()}
    files.update({f"cmlapi/{path}": text.encode() for path, text in stubs.write(HERE / "cmlapi").items()})
    files[f"{stem}.dist-info/METADATA"] = metadata.encode()
    files[f"{stem}.dist-info/WHEEL"] = WHEEL.encode()
    record = f"{stem}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    name = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            wheel.writestr(zipfile.ZipInfo(path), content)
    return name


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
