"""A process that fetches what it is told, one JSON line each: ``HF_ENDPOINT`` and its like are
read when huggingface_hub is imported, and the tests' own process is kept offline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import structlog
from pydantic import SecretStr

from app.errors import CalibrantError
from app.settings import Settings
from app.sources import hub
from app.sources.entry import SourceEntry
from app.sources.fetching import ensure_rows, fetch_rows
from app.sources.rows import iterate_rows
from app.sources.store import load_manifest

hub.FIRST_WAIT_SECONDS = 0.02
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
for line in sys.stdin:
    asked = json.loads(line)
    token = asked.get("token")
    settings = Settings(hf_token=SecretStr(token) if token else None)
    work = ensure_rows if asked.get("ensure") else fetch_rows
    try:
        entry = SourceEntry.model_validate(asked["entry"])
        file = work(entry, Path(asked["sources_dir"]), settings=settings)
        said = {
            "manifest": load_manifest(file).model_dump(mode="json"),
            "rows": [row for batch in iterate_rows(file) for row in batch],
        }
    except CalibrantError as error:
        said = {"error": type(error).__name__, "sentence": error.sentence}
    said["torch"] = "torch" in sys.modules
    print(json.dumps(said), flush=True)  # noqa: T201
