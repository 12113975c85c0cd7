"""The small files of a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.errors import ModelRefused


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from one of a model's files, empty when the file is not there.

    Raises ModelRefused when the file is something else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelRefused(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelRefused(f"{file} holds a JSON {type(content).__name__}, not an object.")
    return content
