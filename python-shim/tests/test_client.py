import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import cdsw


@pytest.fixture
def server(monkeypatch):
    """A server that answers what it is told to, and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.asked.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            status, answer = self.server.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.answer = (200, b'{"success": true, "response": 8}')
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("CDSW_API_URL", f"http://127.0.0.1:{server.server_port}/api/v1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_whole_envelope_comes_back(server):
    assert cdsw.call_model("mkey", {"a": 3}) == {"success": True, "response": 8}
    assert server.asked == [("/model", None, {"accessKey": "mkey", "request": {"a": 3}})]


def test_a_refusal_is_an_envelope_too(server):
    server.answer = (429, b'{"success": false, "errors": ["no replica"], "StatusCode": 429}')
    assert cdsw.call_model(model_access_key="mkey", ipt=[1])["StatusCode"] == 429


def test_the_key_is_the_argument_then_that_of_version_two_then_the_other(server, monkeypatch):
    monkeypatch.setenv("CDSW_API_KEY", "one")
    cdsw.call_model("m", 1)
    monkeypatch.setenv("CDSW_APIV2_KEY", "two")
    cdsw.call_model("m", 1)
    cdsw.call_model("m", 1, api_key="three")
    assert [key for _, key, _ in server.asked] == ["Bearer one", "Bearer two", "Bearer three"]


def test_the_domain_is_enough(server, monkeypatch):
    monkeypatch.delenv("CDSW_API_URL")
    monkeypatch.setenv("CDSW_DOMAIN", f"127.0.0.1:{server.server_port}")
    assert cdsw.call_model("m", 1)["success"]


def test_an_answer_that_is_none_is_an_error(server):
    server.answer = (502, b"<html>")
    with pytest.raises(ConnectionError, match="502"):
        cdsw.call_model("m", 1)


def test_without_a_server_the_error_says_what_to_set():
    with pytest.raises(ValueError, match="CDSW_API_URL"):
        cdsw.call_model("m", 1)
    with pytest.raises(ValueError, match="not the address"):
        cdsw.call_model("m", 1, url="file:///etc/passwd")


def test_nan_is_refused_before_it_is_sent(server):
    with pytest.raises(ValueError, match=r"nan|JSON"):
        cdsw.call_model("m", float("nan"))
    assert server.asked == []
