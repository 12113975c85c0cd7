"""``--server``: what is no Calibrant server is told as that, by a real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.deletions import Deleted
from app.errors import Refused
from app.remote import SERVER_VARIABLE, ServerFailed, ask


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Deleted]:
    def ask_there(address: str) -> Deleted:
        monkeypatch.setenv(SERVER_VARIABLE, address)
        return ask("GET", "/jobs/x", Deleted)

    return ask_there


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>Welcome</html>", {}),
        (200, b'{"status": "ok"}', {}),
        (404, b"<html>not found</html>", {}),
        (401, b'{"detail": "nope"}', {}),
        (502, b"bad gateway", {}),
        (302, b"", {"Location": "https://sso.example/login"}),
    ],
)
def test_another_products_server_is_told_as_that(
    asked: Callable[[str], Deleted], status: int, body: bytes, headers: dict[str, str]
) -> None:
    with answering(status, body, **headers) as address, pytest.raises(ServerFailed) as failed:
        asked(address)
    said = failed.value.sentence
    assert said.startswith(f"{address} does not answer /jobs/x as a Calibrant of this version does")
    assert f"status {status}" in said
    assert all(where in said for where in headers.values())


def test_a_calibrant_servers_own_sentence_is_told(asked: Callable[[str], Deleted]) -> None:
    there = answering(404, b'{"error": "There is no job."}')
    with there as address, pytest.raises(Refused, match=r"^There is no job\.$"):
        asked(address)
    there = answering(503, b'{"error": "It is held."}')
    with there as address, pytest.raises(ServerFailed, match=r"failed with status 503: It is held"):
        asked(address)
    with answering(200, b'{"id": "a", "freed_bytes": 3}') as address:
        assert asked(address) == Deleted(id="a", freed_bytes=3)


@pytest.mark.parametrize("address", ["localhost:8000", "nonsense", "ftp://x"])
def test_what_is_no_address_is_refused(asked: Callable[[str], Deleted], address: str) -> None:
    with pytest.raises(Refused, match=f"^{address} is no address: give a server's, like http://"):
        asked(address)
