"""What a checkpoint should reach before it is published, and whether it does.

A gate that is not set asks nothing. One whose figure was not measured is not passed, nor failed:
it says so. Gates mark a checkpoint and never keep it from being downloaded.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.facets import Facet, label_of
from app.formatting import number, percent
from app.jobs.spec import Evaluation, Verification


class Verdict(StrEnum):
    """How a checkpoint stands to a gate, or to all of them."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not measured"


class Gates(BaseModel):
    """``kl_mean`` and ``slice_kl`` are the most KL allowed, in nats a token, over all held-out rows
    and in any one slice; ``router_same`` the least share of tokens with unchanged experts in any
    layer; ``verified`` asks that every tensor was found as it should be."""

    model_config = ConfigDict(extra="forbid")

    kl_mean: Annotated[float, Field(gt=0, le=100)] | None = None
    slice_kl: Annotated[float, Field(gt=0, le=100)] | None = None
    router_same: Annotated[float, Field(gt=0, le=1)] | None = None
    verified: bool = False

    @property
    def are_set(self) -> bool:
        """Whether anything is asked at all."""
        return self != Gates()


class Check(BaseModel):
    """One gate: what it asks, what was measured (None where nothing was), and how that stands."""

    gate: str
    asked: str
    measured: str | None
    verdict: Verdict


def judge(
    gates: Gates, evaluation: Evaluation | None, verification: Verification | None
) -> list[Check]:
    """Every gate that is set, held against what was measured."""
    checks = []
    if gates.kl_mean is not None:
        found = evaluation.kl_mean if evaluation else None
        checks.append(_at_most("Mean KL", gates.kl_mean, found))
    if gates.slice_kl is not None:
        slices = evaluation.slices if evaluation else []
        worst = max(slices, key=lambda one: one.kl_mean, default=None)
        named = f" in {_label(worst.facet, worst.value)}" if worst else ""
        found = worst.kl_mean if worst else None
        checks.append(_at_most("KL of any slice", gates.slice_kl, found, named))
    if gates.router_same is not None:
        layers = evaluation.router_same if evaluation else []
        least = min(layers, key=lambda one: one.share, default=None)
        checks.append(
            Check(
                gate="Same experts in any layer",
                asked=f"at least {100 * gates.router_same:g} % of tokens",
                measured=f"{_share(least.share, gates.router_same)} in layer {least.layer}"
                if least
                else None,
                verdict=_verdict(None if least is None else least.share >= gates.router_same),
            )
        )
    if gates.verified:
        said = None if verification is None else "verified" if verification.ok else "problems"
        ok = None if verification is None else verification.ok
        checks.append(
            Check(gate="Verification", asked="verified", measured=said, verdict=_verdict(ok))
        )
    return checks


def verdict_of(checks: list[Check]) -> Verdict | None:
    """Failed when one gate is, else not measured when one is not, else passed; None without a
    gate."""
    verdicts = {check.verdict for check in checks}
    for verdict in (Verdict.FAILED, Verdict.NOT_MEASURED, Verdict.PASSED):
        if verdict in verdicts:
            return verdict
    return None


def _at_most(gate: str, limit: float, found: float | None, where: str = "") -> Check:
    return Check(
        gate=gate,
        asked=f"at most {number(limit)} nats a token",
        measured=None if found is None else f"{_apart(found, limit)}{where}",
        verdict=_verdict(None if found is None else found <= limit),
    )


def _apart(found: float, limit: float) -> str:
    """A figure with as many digits as tell it from its limit."""
    for digits in range(4, 17):
        if (shown := number(found, digits)) != number(limit, digits) or found == limit:
            return shown
    return shown


def _share(found: float, asked: float) -> str:
    """A share in percent, to as many decimals as tell it from the one asked for."""
    for decimals in range(1, 13):
        if (shown := percent(found, decimals)) != percent(asked, decimals) or found == asked:
            return shown
    return shown


def _verdict(holds: bool | None) -> Verdict:
    if holds is None:
        return Verdict.NOT_MEASURED
    return Verdict.PASSED if holds else Verdict.FAILED


def _label(facet: str, value: str) -> str:
    return label_of(Facet(facet), value) if facet in set(Facet) else value
