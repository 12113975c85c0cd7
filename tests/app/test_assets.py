from __future__ import annotations

import base64
import hashlib
import re

import pytest
from fastapi.testclient import TestClient

from app.assets import FOR_GOOD, STATIC_DIR, htmx_integrity, static_url
from app.security_headers import HTMX_CDN
from app.settings import Settings

VENDOR = STATIC_DIR / "vendor"


def test_the_list_of_vendored_files_is_true() -> None:
    rows = re.findall(
        r"^\| `([\w.-]+)` .*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M
    )
    scripts = {path.name for path in VENDOR.iterdir() if path.suffix in {".js", ".css"}}
    assert {name for name, _ in rows} == scripts
    for name, digest in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_integrity_is_that_of_the_vendored_file() -> None:
    digest = hashlib.sha384((VENDOR / "htmx.min.js").read_bytes()).digest()
    assert htmx_integrity() == "sha384-" + base64.b64encode(digest).decode()


def test_the_vendored_htmx_is_the_version_of_the_cdn() -> None:
    version = re.search(r"htmx\.org@([\d.]+)/", HTMX_CDN)
    assert version
    assert f'version="{version[1]}"' in (VENDOR / "htmx.min.js").read_text()


def test_a_hashed_address_is_kept_for_good(client: TestClient) -> None:
    address = static_url("calibrant.css")
    assert client.get(address).headers["cache-control"] == FOR_GOOD
    for other in ("/static/calibrant.css", "/static/calibrant.css?v=0123456789ab"):
        assert client.get(other).headers["cache-control"] == "no-cache"
    assert client.get("/static/nothing.css?v=1").status_code == 404
    assert client.get("/static/../app/main.py?v=1").status_code == 404


def test_a_name_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        static_url("nothing.js")


def test_pages_name_the_cdn_only_where_it_is_wanted(
    client: TestClient, settings: Settings, html: dict
) -> None:
    assert HTMX_CDN not in client.get("/", headers=html).text
    from app.main import create_app

    with_cdn = create_app(settings.model_copy(update={"assets": "cdn"}))
    page = TestClient(with_cdn, base_url="http://127.0.0.1").get("/", headers=html).text
    assert f'data-cdn="{HTMX_CDN}dist/htmx.min.js"' in page
    assert f'data-integrity="{htmx_integrity()}"' in page


def test_no_template_has_an_inline_script() -> None:
    for template in (STATIC_DIR.parent / "templates").rglob("*.html"):
        text = template.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), template
        assert not re.search(r"\son(click|load|change|input|submit)=", text), template
