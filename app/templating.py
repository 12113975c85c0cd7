"""The templates' environment: autoescaped, sandboxed, and strict about names it does not know."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from app import formatting
from app.assets import HTMX_CDN_URL, HTMX_FILE, htmx_integrity, static_url
from app.facets import Facet, label_of, vocabulary
from app.settings import ROOT

FILTERS = {
    "integer": formatting.integer,
    "signed": formatting.signed,
    "number": formatting.number,
    "aligned": formatting.aligned,
    "fixed": formatting.fixed,
    "scaled": formatting.scaled,
    "percent": formatting.percent,
    "size": formatting.size,
    "amount": formatting.amount,
    "duration": formatting.duration,
    "ago": formatting.ago,
    "exact": formatting.exact,
    "counted": formatting.counted,
}


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(ROOT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(
        static_url=static_url,
        htmx_integrity=htmx_integrity,
        htmx_cdn_url=HTMX_CDN_URL,
        htmx_file=HTMX_FILE,
        facets=tuple(Facet),
        label_of=label_of,
        facet_value=facet_value,
        vocabulary=vocabulary,
        size_units=formatting.SIZE_UNITS,
    )
    return environment


def facet_value(facet: str, value: str) -> str:
    """The label of a value of a facet given by name; of another column the value itself."""
    return label_of(Facet(facet), value) if facet in set(Facet) else value


def _of_every_page(request: Request) -> dict[str, Any]:
    settings = request.app.state.settings
    return {
        "assets": settings.assets,
        "path": request.url.path,
        "has_login": bool(settings.token and settings.token.get_secret_value()),
    }


templates = Jinja2Templates(env=_environment(), context_processors=[_of_every_page])


def render(name: str, **context: Any) -> str:
    """A fragment as text, for a stream: a template that needs nothing of the request."""
    return templates.get_template(name).render(context)
