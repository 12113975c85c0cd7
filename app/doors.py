"""The middleware every request passes: cross-site refusal, login, and the headers of answers."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import is_let_in, login_address
from app.csrf import is_cross_site
from app.negotiation import error_response, is_fragment_request, wants_html
from app.security_headers import HEADERS
from app.settings import Settings


class Doors:
    """Pure ASGI, so that a stream of server-sent events passes through unbuffered."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        headers = Headers(scope=request.scope)
        if is_cross_site(request.method, headers):
            sentence = "This request came from another site's page and was refused."
            return error_response(request, 403, sentence)
        if is_let_in(self.settings, request.url.path, headers, request.cookies):
            return None
        # A part of a page that was asked for is not swapped for the page of the login.
        is_page = wants_html(request) and not is_fragment_request(request)
        if request.method == "GET" and is_page:
            return RedirectResponse(login_address(request), status_code=303)
        sentence = "Give the server's token: log in, or send it as Authorization: Bearer."
        return error_response(request, 401, sentence, headers={"WWW-Authenticate": "Bearer"})
