"""Cross-site requests are refused by their headers; no tokens in forms.

A browser says where a request comes from in ``Sec-Fetch-Site`` (and older ones in ``Origin``),
and no page can forge either. A client that sends neither is not a browser and carries nobody's
cookies. The idea is Filippo Valsorda's (go.dev/src/net/http/csrf.go), the shape datasette's.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_cross_site(method: str, headers: Headers) -> bool:
    """Whether a request that changes something comes from another site's page."""
    if method in SAFE_METHODS:
        return False
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site not in {"same-origin", "none"}
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc != headers.get("host")
