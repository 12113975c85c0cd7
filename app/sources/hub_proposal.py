"""Which formatter the first rows of a data set of the hub ask for."""

from __future__ import annotations

from itertools import islice

from app.errors import Refused
from app.row_formats.proposals import Proposal, propose
from app.settings import Settings
from app.sources.adding import LOOKED_AT, NewSource
from app.sources.entry import HubOrigin
from app.sources.hub import Hub
from app.validation import validated


def proposal_of_hub(settings: Settings, new: NewSource) -> Proposal:
    """Looks at the first rows, streamed. Raises Refused when no formatter fits, HubUnreachable."""
    given = {key: getattr(new, key) for key in ("subset", "split", "revision") if getattr(new, key)}
    origin = validated(HubOrigin, {"id": new.hub_id, "streaming": True, **given})
    rows = Hub.of(settings).patiently(
        lambda hub: list(islice(hub.first_rows(origin, hub.find(origin)), LOOKED_AT))
    )
    found = propose(rows, new.formatter or None)
    if found is None:
        names = ", ".join(list(rows[0])[:30]) if rows else "none"
        raise Refused(f"No formatter fits the columns {names}: say formatter and columns.")
    return found
