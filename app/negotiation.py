"""One view, three forms: HTML for people, JSON for programs, CSV for spreadsheets.

``?format=json`` or ``csv`` decides; without it the ``Accept`` header does. A client that names
neither HTML nor CSV is a program and gets JSON.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.datastructures import FormData

from app.errors import Refused
from app.templating import templates

# 200 slices with every facet value ticked, and the set's own fields.
MAX_FIELDS = 50_000
MAX_DOCUMENT_BYTES = 4_000_000
FORM_TYPE = "application/x-www-form-urlencoded"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

ADVICE = {
    403: "Open the page from Calibrant itself and try again.",
    404: "Look for it in the lists: the navigation above leads to them.",
    405: "Go back and use the buttons of the page.",
    409: "Look at its present state, then decide.",
    413: "Go back and send a smaller one.",
    422: "Go back, change what the sentence names, and send it again.",
    500: "What was kept before is kept. The web process's log (web.log) has the details.",
    503: "Nothing is lost.",
    507: "Free some space, then retry the job.",
}
TITLES = {
    401: "Login needed",
    403: "Refused",
    404: "Not found",
    405: "Not possible here",
    409: "Not in this state",
    413: "Too large",
    422: "This cannot be used as it is",
    503: "Not possible right now",
    507: "No room left",
}


class Form(StrEnum):
    """A form an answer can have."""

    HTML = "html"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class Table:
    """What a page's CSV holds: ``name`` of the file, names of the columns, the rows."""

    name: str
    header: Sequence[str]
    rows: Iterable[Sequence[Any]]


@dataclass(frozen=True)
class Submission:
    """What a client sent to a route that takes forms and JSON alike."""

    fields: FormData
    document: Any
    is_json: bool

    def text(self, name: str) -> str:
        """A single value by its name, of a form or of a JSON object; empty when it is missing."""
        if self.is_json:
            value = self.document.get(name, "") if isinstance(self.document, dict) else ""
            return value if isinstance(value, str) else str(value)
        value = self.fields.get(name, "")
        return value.strip() if isinstance(value, str) else ""


def chosen_form(request: Request) -> Form:
    """The form a client wants. Raises Refused for a ``format`` that does not exist."""
    asked = request.query_params.get("format")
    if asked is not None:
        if asked not in set(Form):
            raise Refused(f"There is no format {asked!r}: ask for {', '.join(Form)}.")
        return Form(asked)
    accepted = request.headers.get("accept", "").lower()
    if "text/html" in accepted:
        return Form.HTML
    return Form.CSV if "text/csv" in accepted else Form.JSON


def wants_html(request: Request) -> bool:
    """Whether a person is at the other end."""
    try:
        return chosen_form(request) is Form.HTML
    except Refused:
        return "text/html" in request.headers.get("accept", "").lower()


def is_fragment_request(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("hx-request") == "true"


def answer(
    request: Request,
    view: BaseModel,
    template: str,
    *,
    table: Table | None = None,
    status: int = 200,
) -> Response:
    """A view in the form the client wants. The template finds it as ``view``.

    Raises Refused when CSV is asked of a page without a table.
    """
    match chosen_form(request):
        case Form.JSON:
            response: Response = _json(view, status)
        case Form.CSV if table is not None:
            response = _csv(table)
        case Form.CSV:
            raise Refused(f"{request.url.path} has no table: ask for json.")
        case _:
            response = templates.TemplateResponse(
                request, template, {"view": view}, status_code=status
            )
    # The same address has several forms, and every one of them is of this moment.
    response.headers["vary"] = "Accept"
    response.headers.setdefault("cache-control", "no-store")
    return response


def created(request: Request, address: str, view: BaseModel) -> Response:
    """What was made: a browser is sent to its page, a program gets 201 and the document."""
    if wants_html(request):
        return RedirectResponse(address, status_code=303)
    response = _json(view, 201)
    response.headers["location"] = address
    return response


def done(request: Request, address: str, view: BaseModel, status: int = 200) -> Response:
    """What was changed: a browser is sent to its page, a program gets the document."""
    if wants_html(request):
        return RedirectResponse(address, status_code=303)
    return _json(view, status)


def error_response(
    request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in the form the client wants: a page, a fragment for htmx, or JSON."""
    context = {
        "status": status,
        "title": TITLES.get(status, "Something went wrong"),
        "sentence": sentence,
        "advice": ADVICE.get(status),
    }
    if not wants_html(request):
        return JSONResponse({"error": sentence}, status_code=status, headers=headers)
    name = "_error.html" if is_fragment_request(request) else "error.html"
    return templates.TemplateResponse(request, name, context, status_code=status, headers=headers)


async def _submission(request: Request) -> Submission:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        form = await request.form(max_fields=MAX_FIELDS, max_files=0)
        return Submission(fields=form, document=None, is_json=False)
    body = await request.body()
    if len(body) > MAX_DOCUMENT_BYTES:
        raise Refused(f"The JSON document is larger than {MAX_DOCUMENT_BYTES:,} bytes.")
    try:
        document = await request.json()
    except ValueError as error:
        raise Refused(f"The request is not JSON: {error}.") from error
    return Submission(fields=FormData(), document=document, is_json=True)


SubmissionDep = Annotated[Submission, Depends(_submission)]


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route that takes a model as JSON and the same fields as a form."""
    schema = _inlined(model.model_json_schema(), model.model_json_schema().get("$defs", {}))
    content = {kind: {"schema": schema} for kind in ("application/json", FORM_TYPE)}
    return {"requestBody": {"required": True, "content": content}}


def _json(view: BaseModel, status: int) -> Response:
    return Response(view.model_dump_json(), status_code=status, media_type="application/json")


def _csv(table: Table) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.header)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    name = {"content-disposition": f'attachment; filename="{table.name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=name)


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references: OpenAPI would look for them at the document's root."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(part, definitions) for key, part in schema.items() if key != "$defs"}
