"""Receiving a file: counted as it comes, so that one past the limit is refused on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.types import Message

from app.dependencies import SettingsDep
from app.errors import CalibrantError, Refused
from app.negotiation import MAX_DOCUMENT_BYTES
from app.row_files.file_kinds import safe_name

MOST_FIELDS = 100


class TooLarge(Refused):
    """A request with more bytes than the installation takes."""

    status = 413


@dataclass(frozen=True)
class Sent:
    """What a client sent for a new source: fields of a form or a JSON document, and a file where
    there is one."""

    fields: dict[str, Any]
    file: UploadFile | None = None
    is_json: bool = False

    @property
    def file_name(self) -> str:
        """The name of the file as the client gave it. Raises Refused for one with folders."""
        assert self.file is not None
        return safe_name(self.file.filename or "")


async def _sent(request: Request, settings: SettingsDep) -> AsyncIterator[Sent]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_file = kind == "multipart/form-data"
    limit = settings.upload_bytes + MAX_DOCUMENT_BYTES if is_file else MAX_DOCUMENT_BYTES
    counted = _counted(request, limit)
    if kind == "application/json":
        yield Sent(await _document(counted), is_json=True)
        return
    try:
        form = await counted.form(max_files=1, max_fields=MOST_FIELDS)
    except MultiPartException as error:
        raise Refused(f"The form cannot be read: {error.message}") from error
    try:
        yield _of_form(form, settings.upload_bytes)
    finally:
        await form.close()


SentDep = Annotated[Sent, Depends(_sent)]


def _of_form(form: FormData, limit: int) -> Sent:
    fields = {name: value.strip() for name, value in form.items() if isinstance(value, str)}
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    # A browser sends an empty part for a file that was not chosen.
    file = next((one for one in files if one.filename), None)
    if file is not None and (file.size or 0) > limit:
        raise _too_large(limit)
    return Sent(fields, file)


async def _document(request: Request) -> dict[str, Any]:
    try:
        document = await request.json()
    except (ValueError, RecursionError) as error:
        raise Refused(f"The request is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise Refused("The JSON document is no object with the fields of a source.")
    return document


def _counted(request: Request, limit: int) -> Request:
    """The same request, refused once it has sent more bytes than the limit."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return Request(request.scope, receive)


def _too_large(limit: int) -> CalibrantError:
    return TooLarge(
        f"It is larger than {limit:,} bytes, which is the limit (CALIBRANT_UPLOAD_BYTES): pack it "
        "with gzip or zstd, or add its folder on the server's machine."
    )
