"""A small stand-in for the hub on loopback: the routes that ``datasets`` and ``huggingface_hub``
ask for, files in ranges, and the ways a hub fails."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = re.compile(
    r"/api/datasets/(?P<id>[^/]+/[^/]+?)(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.+))?$"
)
FILE = re.compile(r"/datasets/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")


@dataclass
class DataSet:
    """A data set: the files of each commit, the newest last. ``gated`` asks for a token."""

    commits: dict[str, dict[str, bytes]]
    gated: bool = False
    token: str | None = None

    @property
    def newest(self) -> str:
        return list(self.commits)[-1]

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch or a commit."""
        if revision == "main":
            return self.newest
        return revision if revision in self.commits else None


@dataclass
class StandIn:
    """What the hub holds and how it fails.

    ``failures`` are answered first, one a request; ``stalls`` are seconds of silence before a
    file's answer; ``breaks`` end a whole file's answer after so many bytes, ``range_breaks`` that
    of a part of one, one a request.
    """

    sets: dict[str, DataSet] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    range_breaks: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""


def commit_of(number: int) -> str:
    """A commit's name."""
    return sha1(str(number).encode(), usedforsecurity=False).hexdigest()


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """A hub that is served until the block ends."""
    hub = StandIn()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: StandIn

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.state.requests.append(f"{self.command} {self.path}")
        if token := self.headers.get("authorization"):
            self.state.tokens.add(token)
        if self.state.stalls and "/resolve/" in self.path:
            time.sleep(self.state.stalls.pop(0))
        if self.state.failures:
            self._say(self.state.failures.pop(0), {"error": "try later"})
            return
        path = unquote(urlsplit(self.path).path)
        if found := API.match(path):
            self._api(found, body)
        elif found := FILE.match(path):
            self._file(found)
        else:
            self._say(404, {"error": "no such route"})

    def _known(self, found: re.Match[str]) -> DataSet | None:
        """The data set asked for, None when the answer was a refusal."""
        known = self.state.sets.get(found["id"])
        if known is None:
            self._say(401, {"error": "not found"}, {"x-error-code": "RepoNotFound"})
        elif known.gated and self.headers.get("authorization") != f"Bearer {known.token}":
            self._say(403, {"error": "ask for access"}, {"x-error-code": "GatedRepo"})
        else:
            return known
        return None

    def _api(self, found: re.Match[str], body: bytes) -> None:
        known = self._known(found)
        if known is None:
            return
        revision, _, inner = (found["rest"] or "main").partition("/")
        commit = known.resolve(unquote(revision))
        if commit is None:
            self._say(404, {"error": "no revision"}, {"x-error-code": "RevisionNotFound"})
            return
        files = known.commits[commit]
        match found["what"]:
            case "tree":
                self._tree(files, inner)
            case "paths-info":
                asked = parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
                wanted = [path for path in asked if path in files]
                folders = [path for path in asked if any(f.startswith(path + "/") for f in files)]
                entries = [_entry(path, files[path]) for path in wanted]
                self._say(200, entries + [_folder(path) for path in folders])
            case _:
                siblings = [{"rfilename": name} for name in files]
                self._say(
                    200,
                    {
                        "id": found["id"],
                        "sha": commit,
                        "siblings": siblings,
                        "private": False,
                        "gated": False,
                        "disabled": False,
                    },
                )

    def _tree(self, files: dict[str, bytes], inner: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{inner}/" if inner else ""
        entries: dict[str, Any] = {}
        for path, content in files.items():
            if not path.startswith(prefix):
                continue
            rest = path[len(prefix) :].split("/")
            for depth in range(1, len(rest)):
                if recursive or depth == 1:
                    folder = prefix + "/".join(rest[:depth])
                    entries.setdefault(folder, _folder(folder))
            if recursive or len(rest) == 1:
                entries[path] = _entry(path, content)
        if inner and not entries:
            self._say(404, {"error": "no entry"}, {"x-error-code": "EntryNotFound"})
        else:
            self._say(200, list(entries.values()))

    def _file(self, found: re.Match[str]) -> None:
        known = self._known(found)
        if known is None:
            return
        commit = known.resolve(found["revision"])
        content = known.commits[commit].get(found["path"]) if commit else None
        if content is None or commit is None:
            self._say(404, {"error": "no file"}, {"x-error-code": "EntryNotFound"})
            return
        headers = {
            "etag": f'"{sha256(content).hexdigest()}"',
            "x-repo-commit": commit,
            "accept-ranges": "bytes",
            "content-type": "application/octet-stream",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if not asked:
            self._bytes(200, content, headers)
            return
        self.state.ranges.append(f"{found['path']} {self.headers['range']}")
        start = int(asked[1])
        end = min(int(asked[2]) if asked[2] else len(content) - 1, len(content) - 1)
        headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
        self._bytes(206, content[start : end + 1], headers)

    def _say(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        given = {"content-type": "application/json"} | (headers or {})
        if message := (document.get("error") if isinstance(document, dict) else None):
            given["x-error-message"] = message
        self._bytes(status, json.dumps(document).encode(), given)

    def _bytes(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        is_file = headers.get("content-type") == "application/octet-stream"
        breaks = self.state.range_breaks if status == 206 else self.state.breaks
        if is_file and breaks and len(content) > breaks[0]:
            self.wfile.write(content[: breaks.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    oid = sha1(content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": oid}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
