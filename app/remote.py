"""A server elsewhere: the commands ask it for the same views that the pages show."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from app.errors import CalibrantError, Refused

SERVER_VARIABLE = "CALIBRANT_SERVER"
TIMEOUT_SECONDS = 30.0

V = TypeVar("V", bound=BaseModel)


class ServerFailed(CalibrantError):
    """A server that does not answer, or answers that it failed."""


def server() -> str | None:
    """The server that ``--server`` names, None for the local data directory."""
    return os.environ.get(SERVER_VARIABLE) or None


def ask(
    method: str, path: str, view: type[V], body: BaseModel | None = None, **parameters: Any
) -> V:
    """A view of the server's, by the method and path of its page; ``body`` is sent as JSON.

    The token is taken from ``CALIBRANT_TOKEN``. Raises Refused with the server's own sentence
    for a 4xx answer and for what is no address, ServerFailed for anything else that is not the
    view.
    """
    address = server()
    assert address is not None
    if not address.startswith(("http://", "https://")):
        raise Refused(f"{address} is no address: give a server's, like http://127.0.0.1:8000.")
    token = os.environ.get("CALIBRANT_TOKEN")
    headers = {"accept": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        answer = httpx.request(
            method,
            address.rstrip("/") + path,
            params=given,
            json=body.model_dump(mode="json") if body else None,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
        )
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServerFailed(f"{address} does not answer: {error}.") from error
    if answer.is_success:
        try:
            return view.model_validate_json(answer.content)
        except ValidationError as error:
            raise _something_else(address, path, answer) from error
    sentence = _sentence(answer)
    if sentence is None:
        raise _something_else(address, path, answer)
    if answer.is_client_error:
        raise Refused(sentence)
    raise ServerFailed(f"{address} failed with status {answer.status_code}: {sentence}")


def _sentence(answer: httpx.Response) -> str | None:
    """The server's own sentence; None in an answer that is not Calibrant's."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _something_else(address: str, path: str, answer: httpx.Response) -> ServerFailed:
    to = answer.headers.get("location")
    return ServerFailed(
        f"{address} does not answer {path} as a Calibrant of this version does: status "
        f"{answer.status_code}{f', which leads to {to}' if to else ''}. Give a Calibrant server's "
        "address, without a proxy's login before it."
    )
