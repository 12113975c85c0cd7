"""``calibrant select``: a pool by its name, and the rows chosen of it kept as a set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.artifacts import new_file, require_writable
from app.calibration import service
from app.calibration.built_set import MANIFEST, load_built_set
from app.calibration.commands import build_for, find_spec
from app.calibration.spec import SetSpec
from app.console import installed
from app.coverage.choosing import Chosen, Wish, as_set, choose_rows, worst_fed
from app.coverage.profile import Profile
from app.errors import Conflict, Refused


@dataclass(frozen=True)
class NamedPool:
    """A pool's rows, a built set's directory or a JSONL file, and its composition (None for a
    file, which has none)."""

    rows: Path
    composition: SetSpec | None


def pool_named(name: str, model: Path, out: Path | None) -> NamedPool:
    """The pool somebody means; a composition is built for the model.

    Raises Refused for a set with a file to write to, Conflict when that file is there already,
    FileUnusable where it cannot be written, NotFound and CompositionRefused for what is no pool.
    """
    path = Path(name)
    if path.is_file() and path.suffix == ".jsonl":
        if out is not None:
            if out.exists():
                raise Conflict(f"{out} is there already: give another file, or remove it.")
            require_writable(out.absolute().parent)
        return NamedPool(path, None)
    if out is not None:
        raise Refused("--out is for a pool that is a JSONL file: a set's rows are saved as a set.")
    if (path / MANIFEST).is_file():
        return NamedPool(path, SetSpec.model_validate(load_built_set(path).identity["spec"]))
    with installed() as (session, settings):
        spec = find_spec(session, name)
        return NamedPool(build_for(session, settings, spec, str(model)).directory, spec)


def choice(profile: Profile, pool: NamedPool, wish: Wish, out: Path | None) -> dict[str, Any]:
    """Choose, keep, and say what was chosen: the document of ``calibrant select --json``.

    ``id`` is the saved set's, or, of a JSONL pool, a hash of the rows' ids.
    """
    chosen = choose_rows(profile, pool.composition, wish)
    if pool.composition is None:
        if out is not None:
            _write_lines(pool.rows, chosen, out)
        found = hashlib.sha256("\n".join(sorted(chosen.row_ids)).encode()).hexdigest()[:16]
    else:
        name = f"{pool.composition.name.removeprefix('Pool of ')}, chosen for its experts"[:120]
        with installed() as (session, _):
            spec = as_set(chosen, pool.composition, name)
            found = service.save_set(session, spec).id
    sides = {"random": chosen.fed_at_random, "selected": chosen.fed}
    return {
        "id": found,
        "rows": len(chosen.rows),
        "tokens": chosen.tokens,
        "floor": chosen.floor,
        "worst1pct_tokens": {side: worst_fed(fed, 0.01) for side, fed in sides.items()},
        "worst5pct_tokens": {side: worst_fed(fed, 0.05) for side, fed in sides.items()},
        "empty_experts": {side: int((fed == 0).sum()) for side, fed in sides.items()},
        "row_ids": chosen.row_ids,
        "raised": chosen.raised.tolist(),
    }


def _write_lines(pool: Path, chosen: Chosen, out: Path) -> None:
    """The chosen lines of a JSONL file, in the file's order."""
    lines = [line for line in pool.read_bytes().splitlines() if line.strip()]
    with new_file(out) as draft:
        draft.write_bytes(b"".join(lines[row] + b"\n" for row in sorted(chosen.rows.tolist())))
