"""Static files: their addresses carry a hash of their content, so browsers keep them for good."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from urllib.parse import parse_qs

from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from app.security_headers import HTMX_CDN
from app.settings import ROOT

STATIC_DIR = ROOT / "static"
HTMX_CDN_URL = HTMX_CDN + "dist/htmx.min.js"
HTMX_FILE = "vendor/htmx.min.js"
FOR_GOOD = "public, max-age=31536000, immutable"


def static_url(name: str) -> str:
    """The address of a file in ``static/``, with the first digits of its SHA-256.

    Raises FileNotFoundError for a name that is not there: a template that asks for it is wrong.
    """
    path = STATIC_DIR / name
    return f"/static/{name}?v={_digest(name, path.stat().st_mtime_ns)}"


def htmx_integrity() -> str:
    """What the copy of htmx on its CDN must hash to: the hash of the vendored file."""
    return _integrity((STATIC_DIR / HTMX_FILE).stat().st_mtime_ns)


@lru_cache
def _digest(name: str, _changed: int) -> str:
    return hashlib.sha256((STATIC_DIR / name).read_bytes()).hexdigest()[:12]


@lru_cache
def _integrity(_changed: int) -> str:
    digest = hashlib.sha384((STATIC_DIR / HTMX_FILE).read_bytes()).digest()
    return "sha384-" + base64.b64encode(digest).decode()


class StaticAssets(StaticFiles):
    """``static/`` over HTTP: kept for good under its hashed address, asked again under another."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC_DIR)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file with its caching rule."""
        response = await super().get_response(path, scope)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("v", [""])[0]
        hashed = bool(asked) and static_url(path).endswith(f"?v={asked}")
        response.headers["cache-control"] = FOR_GOOD if hashed else "no-cache"
        return response
