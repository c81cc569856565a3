"""Configuration of the nginx that shows what the machine can do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .processes import free_port

_HEAD = """daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 16m; client_body_buffer_size 8m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
"""
_FIXED = """  server {{ listen 127.0.0.1:{port} reuseport; default_type application/json;
    location / {{ return 200 '{answer}'; }} }}
"""
_PROXY = """  upstream fixed {{ server 127.0.0.1:{inner}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} reuseport; location / {{
    proxy_pass http://fixed; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering on;
  }} }}
"""
_ANSWER = '{"success":true,"response":8,"ReplicaID":"add-1-1-86b9b58b7b-g6s8r","Size":1,"StatusCode":200}'


def version() -> str:
    """Of the nginx on this machine."""
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.split("/")[-1].strip()


def configure(folder: Path, port: int, *, is_proxied: bool) -> Path:
    """Writes the configuration. Proxied, front and back are in one configuration: the same two workers serve both."""
    inner = free_port()
    text = _HEAD.format(folder=folder) + _FIXED.format(port=inner if is_proxied else port, answer=_ANSWER)
    if is_proxied:
        text += _PROXY.format(port=port, inner=inner)
    file = folder / "nginx.conf"
    file.write_text(text + "}\n")
    return file
