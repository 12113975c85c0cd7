"""Which requests come from another site's page."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from app.csrf import is_cross_site

HERE = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8000"}, True),
        ({"origin": "http://127.0.0.1:8000"}, False),
        ({"origin": "http://127.0.0.1:9000"}, True),
        ({"origin": "https://elsewhere.example"}, True),
        ({"origin": "null"}, True),
        ({}, False),  # Not a browser: nobody's cookies come along.
    ],
)
def test_a_change_is_judged_by_its_headers(headers: dict[str, str], refused: bool) -> None:
    assert is_cross_site("POST", Headers(HERE | headers)) is refused
    assert is_cross_site("DELETE", Headers(HERE | headers)) is refused


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_never_refused(method: str) -> None:
    assert not is_cross_site(method, Headers(HERE | {"sec-fetch-site": "cross-site"}))
