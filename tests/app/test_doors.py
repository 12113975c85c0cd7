"""Who is let in, what is refused, and what every answer carries."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.auth import COOKIE, session_value
from app.database import migrate
from app.errors import InsecureBinding
from app.main import create_app
from app.settings import Settings

TOKEN = "s3cret"


def client_of(settings: Settings, base_url: str) -> TestClient:
    return TestClient(create_app(settings), base_url=base_url, follow_redirects=False)


@pytest.fixture
def local(settings: Settings) -> TestClient:
    return client_of(settings, "http://127.0.0.1:8000")


@pytest.fixture
def public(tmp_path: Path) -> TestClient:
    settings = Settings(data_dir=tmp_path, host="0.0.0.0", token=SecretStr(TOKEN), assets="local")
    migrate(settings)
    return client_of(settings, "http://gpu-box.example")


def test_loopback_needs_no_login(local: TestClient) -> None:
    assert local.get("/jobs").status_code == 200


def test_loopback_under_another_name_is_refused(local: TestClient) -> None:
    assert local.get("/jobs", headers={"host": "rebound.example"}).status_code == 400


def test_a_public_server_does_not_start_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(InsecureBinding):
        create_app(Settings(data_dir=tmp_path, host="0.0.0.0"))


def test_a_browser_is_sent_to_the_login_and_back(public: TestClient) -> None:
    asked = public.get("/jobs?state=failed", headers={"accept": "text/html"})
    assert asked.status_code == 303
    assert asked.headers["location"] == "/login?next=%2Fjobs%3Fstate%3Dfailed"
    page = public.get(asked.headers["location"])
    assert page.status_code == 200
    wrong = public.post("/login", data={"token": "guess", "next": "/jobs"})
    assert wrong.status_code == 401
    assert COOKIE not in wrong.cookies
    right = public.post("/login", data={"token": TOKEN, "next": "/jobs"})
    assert (right.status_code, right.headers["location"]) == (303, "/jobs")
    cookie = right.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    assert public.get("/jobs").status_code == 200


@pytest.mark.parametrize("address", ["https://elsewhere.example", "//elsewhere.example", "/\\e.x"])
def test_the_login_leads_nowhere_else(public: TestClient, address: str) -> None:
    sent = public.post("/login", data={"token": TOKEN, "next": address})
    assert sent.headers["location"] == "/"


def test_a_script_sends_the_token_as_bearer(public: TestClient) -> None:
    json = {"accept": "application/json"}
    refused = public.get("/jobs", headers=json)
    assert refused.status_code == 401
    assert "token" in refused.json()["error"]
    assert public.get("/jobs", headers=json | {"authorization": "Bearer no"}).status_code == 401
    good = public.get("/jobs", headers=json | {"authorization": f"Bearer {TOKEN}"})
    assert good.status_code == 200


def test_a_part_of_a_page_is_not_swapped_for_the_login(public: TestClient) -> None:
    part = public.get("/jobs", headers={"accept": "text/html", "hx-request": "true"})
    assert part.status_code == 401
    assert part.text.startswith('<p class="problem" role="alert" data-refused>')
    assert 'href="/login" target="_blank"' in part.text


@pytest.mark.parametrize("typed", [f" {TOKEN}", f"{TOKEN}\n", TOKEN])
def test_a_token_is_taken_with_the_space_it_was_pasted_with(public: TestClient, typed: str) -> None:
    assert public.post("/login", data={"token": typed}).status_code == 303


def test_another_tokens_session_is_none(public: TestClient) -> None:
    public.cookies.set(COOKIE, session_value("the token before"))
    assert public.get("/jobs", headers={"accept": "application/json"}).status_code == 401


def test_logging_out_ends_the_session(public: TestClient) -> None:
    public.post("/login", data={"token": TOKEN, "next": "/"})
    public.post("/logout")
    assert public.get("/jobs", headers={"accept": "application/json"}).status_code == 401


def test_another_sites_form_changes_nothing(local: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    refused = local.post("/models", data={"path": "/etc"}, headers=headers)
    assert refused.status_code == 403


def test_every_answer_carries_the_headers(local: TestClient) -> None:
    for path in ("/jobs", "/no-such-page", "/static/calibrant.css"):
        headers = local.get(path).headers
        assert (
            "script-src 'self' https://cdn.jsdelivr.net/npm/htmx.org"
            in (headers["content-security-policy"])
        )
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_an_unknown_page_says_so_in_the_clients_own_format(local: TestClient) -> None:
    page = local.get("/no-such-page", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert "There is no page at /no-such-page." in page.text
    document = local.get("/no-such-page", headers={"accept": "application/json"})
    assert document.json() == {"error": "There is no page at /no-such-page."}
