"""HEAD wherever GET is: the same status and headers, and no body (RFC 9110, 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A stream of events would only end with its job.
STREAMS = "/events"


class HeadAsGet:
    """Pure ASGI. FastAPI's routes answer only the methods they are declared with."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].endswith(STREAMS):
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        # With "pathsend" a file's path is handed over instead of its bytes, so that the 200 GB of
        # a checkpoint are not read for nothing. Ranges are of GET alone.
        extensions = {**scope.get("extensions", {}), "http.response.pathsend": {}}
        headers = [each for each in scope["headers"] if each[0] != b"range"]
        asked = {**scope, "method": "GET", "extensions": extensions, "headers": headers}
        await self.app(asked, receive, send_without_body)
