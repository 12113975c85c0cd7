"""The door: where a token is set everybody gives it once; without one only loopback is served.

A browser keeps a session cookie that is derived from the token and not the token itself; scripts
send the token as a bearer.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers

from app.dependencies import SettingsDep
from app.settings import Settings
from app.templating import templates

COOKIE = "calibrant_session"
OPEN_PATHS = ("/login", "/static/", "/healthz")

router = APIRouter(tags=["login"])


def session_value(token: str) -> str:
    """The cookie of somebody who gave the token; changing the token ends every session."""
    return hmac.new(token.encode(), b"calibrant session v1", hashlib.sha256).hexdigest()


def is_let_in(settings: Settings, path: str, headers: Headers, cookies: dict[str, str]) -> bool:
    """Whether a request may pass: no token is set, or it brings the token or its cookie."""
    if settings.token is None or not settings.token.get_secret_value():
        return True
    if path.startswith(OPEN_PATHS):
        return True
    token = settings.token.get_secret_value()
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(bearer.strip(), token):
        return True
    return _same(cookies.get(COOKIE, ""), session_value(token))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def login_address(request: Request) -> str:
    """Where a browser is sent to give the token, and comes back from."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"/login?next={quote(wanted, safe='')}"


def _safe_next(address: str) -> str:
    # Only a path of this server: "//host" and "/\host" would lead elsewhere.
    inside = address.startswith("/") and address[1:2] not in {"/", "\\"}
    return address if inside else "/"


@router.get("/login", include_in_schema=False)
def login_page(request: Request, next: str = "/") -> Response:
    """The page that asks for the token."""
    context = {"next": _safe_next(next), "error": None}
    return templates.TemplateResponse(request, "login.html", context)


@router.post("/login", include_in_schema=False)
def login(
    request: Request,
    settings: SettingsDep,
    token: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Take the token, set the session cookie and go where the person wanted to go."""
    expected = settings.token.get_secret_value() if settings.token else ""
    # A token is often pasted, and with the space or the line's end beside it.
    if expected and not _same(token.strip(), expected.strip()):
        context = {"next": _safe_next(next), "error": "That is not this server's token."}
        return templates.TemplateResponse(request, "login.html", context, status_code=401)
    response = RedirectResponse(_safe_next(next), status_code=303)
    if expected:
        secure = request.url.scheme == "https"
        value = session_value(expected)
        response.set_cookie(COOKIE, value, httponly=True, samesite="lax", secure=secure)
    return response


@router.post("/logout", include_in_schema=False)
def logout() -> Response:
    """Forget the session."""
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response
