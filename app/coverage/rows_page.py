"""What the page that chooses rows of a pool shows."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.calibration.spec import SetSpec
from app.coverage import service
from app.coverage.choosing import Aim, Chosen, Wish, worst_fed
from app.coverage.pools import TIMES
from app.coverage.profile import Profile, label
from app.errors import CalibrantError, NotFound, Refused
from app.facets import Facet
from app.jobs.service import get_job
from app.jobs.views import JobRow, job_row
from app.paging import page_of
from app.settings import Settings

PAGE_ROWS = 32
CHARACTERS_SHOWN = 160
CSV_HEADER = ("turn", "row_id", "tokens", "raised", "gain", "slice", "source")


class RowsQuery(BaseModel):
    """What is asked: a budget in tokens (None: nothing yet), the tokens each expert should get
    (None: an even share), and what rows are chosen by."""

    model_config = ConfigDict(extra="ignore")

    budget: Annotated[int, Field(ge=1, le=10**10)] | None = None
    floor: Annotated[int, Field(ge=1, le=10**9)] | None = None
    aim: Aim = "experts"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @classmethod
    def of(cls, given: dict[str, Any]) -> dict[str, Any]:
        """A form's fields without those that were left empty."""
        return {name: value for name, value in given.items() if value != ""}

    def wish(self) -> Wish:
        """The choice asked for. Raises Refused without a budget."""
        if self.budget is None:
            raise Refused("budget: say how many tokens are to be chosen.")
        return Wish(budget=self.budget, floor=self.floor, aim=self.aim, seed=self.seed)

    def address(self) -> str:
        """The query as an address has it."""
        asked = self.model_dump(exclude_none=True, exclude={"page"})
        return urlencode(asked)


class NewPool(BaseModel):
    """How many times a set's tokens its pool should have."""

    model_config = ConfigDict(extra="forbid")

    times: Annotated[int, Field(ge=2, le=1000)] = TIMES


class SavedChoice(RowsQuery):
    """A choice to keep as a set, under a name."""

    budget: Annotated[int, Field(ge=1, le=10**10)]
    name: Annotated[str, Field(min_length=1, max_length=120)]


class FedView(BaseModel):
    """What some rows give the experts: tokens of the worst-fed 1 % and 5 % of (layer, expert)
    cells, cells without a token, the rows and their tokens."""

    rows: int
    tokens: int
    worst1: float
    worst5: float
    empty: int


class QuotaView(BaseModel):
    """A slice or a value in it: its quota, what was chosen of it, what the pool has; in tokens."""

    slice: str
    label: str
    quota: int
    chosen: int
    rows: int
    available: int


class ChosenRow(BaseModel):
    """A row in its turn: ``raised`` is the tokens it added to experts below the floor, ``gain``
    what it added to the objective, 0 for rows that only fill the budget."""

    turn: int
    row_id: str
    tokens: int
    raised: int
    gain: float
    slice: str
    source: str
    text: str | None


class ResultView(BaseModel):
    """Chosen rows against random ones under the same budget and quotas."""

    floor: int
    chosen: FedView
    random: FedView
    quotas: list[QuotaView]
    rows: list[ChosenRow]
    texts_problem: str | None
    matching: int
    page: int
    pages: int
    chart: str
    name: str


class RowsView(BaseModel):
    """The page: the pool, the form as it stands, and, once asked, the result or what is wrong."""

    job: JobRow
    query: RowsQuery
    pool_rows: int
    pool_tokens: int
    experts_total: int
    suggested: int
    composition: SetSpec
    times: int
    problem: str | None
    result: ResultView | None


def rows_view(session: Session, settings: Settings, job_id: str, query: RowsQuery) -> RowsView:
    """Choose rows of what a job profiled. Raises NotFound."""
    job = get_job(session, job_id)
    profile = service.profile_of(settings, job_id)
    composition = service.composition_of(session, job)
    view = RowsView(
        job=job_row(job, settings),
        query=query,
        pool_rows=len(profile.row_ids),
        pool_tokens=profile.total_tokens,
        experts_total=profile.layer_counts.size,
        suggested=suggested_budget(profile),
        composition=composition,
        times=TIMES,
        problem=None,
        result=None,
    )
    if query.budget is None:
        return view
    try:
        chosen = service.choice_of(session, settings, job_id, query.wish())
    except NotFound:
        raise
    except CalibrantError as error:
        view.problem = error.sentence
        return view
    view.result = _result(settings, job_id, chosen, composition, query)
    return view


def suggested_budget(profile: Profile) -> int:
    """A budget to begin with: what the set had whose pool this is, in whole thousands."""
    return max(1000, round(profile.total_tokens / TIMES / 1000) * 1000)


def chosen_rows(chosen: Chosen) -> list[ChosenRow]:
    """The rows in the order they were chosen, without their texts."""
    profile = chosen.profile
    return [
        ChosenRow(
            turn=turn,
            row_id=str(profile.row_ids[row]),
            tokens=int(profile.tokens[row]),
            raised=int(raised),
            gain=float(gain),
            slice=str(profile.facets["slice"][row]) if "slice" in profile.facets else "",
            source=str(profile.facets["source"][row]) if "source" in profile.facets else "",
            text=None,
        )
        for turn, (row, raised, gain) in enumerate(
            zip(chosen.rows, chosen.raised, chosen.gains, strict=True), start=1
        )
    ]


def _result(
    settings: Settings, job_id: str, chosen: Chosen, composition: SetSpec, query: RowsQuery
) -> ResultView:
    rows = chosen_rows(chosen)
    shown, page, pages = page_of(rows, query.page, PAGE_ROWS)
    texts = service.texts_of(settings, chosen.profile, [row.row_id for row in shown])
    for row in shown:
        text = texts.by_row.get(row.row_id)
        row.text = text[:CHARACTERS_SHOWN] if text else None
    name = composition.name.removeprefix("Pool of ")
    return ResultView(
        floor=chosen.floor,
        chosen=fed_view(chosen, chosen.rows),
        random=fed_view(chosen, chosen.random_rows),
        quotas=_quotas(chosen, composition),
        rows=shown,
        texts_problem=texts.problem,
        matching=len(rows),
        page=page,
        pages=pages,
        chart=f"/jobs/{job_id}/coverage/rows/chart?{query.address()}",
        name=f"{name}, chosen for its experts"[:120],
    )


def fed_view(chosen: Chosen, rows: NDArray[np.intp]) -> FedView:
    """Some rows of a pool in figures."""
    counts = chosen.profile.fed_by(rows)
    return FedView(
        rows=len(rows),
        tokens=int(chosen.profile.tokens[rows].sum()),
        worst1=worst_fed(counts, 0.01),
        worst5=worst_fed(counts, 0.05),
        empty=int((counts == 0).sum()),
    )


def _quotas(chosen: Chosen, composition: SetSpec) -> list[QuotaView]:
    facet_of: dict[str, Facet | None] = {part.name: part.balance for part in composition.slices}
    groups = chosen.group_of_row[chosen.rows]
    tokens = np.bincount(groups, chosen.profile.tokens[chosen.rows], len(chosen.groups))
    rows = np.bincount(groups, minlength=len(chosen.groups))
    return [
        QuotaView(
            slice=group.slice,
            label=label(facet, group.value) if (facet := facet_of.get(group.slice)) else "",
            quota=group.quota,
            chosen=int(tokens[number]),
            rows=int(rows[number]),
            available=group.available,
        )
        for number, group in enumerate(chosen.groups)
    ]
