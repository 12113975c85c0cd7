"""Gates: what they say of a checkpoint, and the page that sets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.database import session_for
from app.jobs.spec import Verification
from app.quality.gates import Gates, Verdict, judge, verdict_of
from app.quality.service import set_gates
from tests.seeded_artifacts import evaluated_rows, evaluation_of_rows

EVALUATION = evaluation_of_rows(evaluated_rows())
OK = Verification(ok=True, tensors=3, quantized=1, problems=[])


@pytest.mark.parametrize(
    ("gates", "verdict", "words"),
    [
        (Gates(kl_mean=0.01), Verdict.PASSED, "0.003041"),
        (Gates(kl_mean=0.003041), Verdict.PASSED, "0.003041"),
        (Gates(kl_mean=0.003), Verdict.FAILED, "0.003041"),
        (Gates(slice_kl=0.0031), Verdict.FAILED, "in COBOL"),
        (Gates(router_same=0.5), Verdict.PASSED, "in layer 5"),
        (Gates(router_same=0.99), Verdict.FAILED, "in layer 5"),
        (Gates(verified=True), Verdict.PASSED, "verified"),
    ],
)
def test_gates_against_what_was_measured(gates: Gates, verdict: Verdict, words: str) -> None:
    checks = judge(gates, EVALUATION, OK)
    assert [check.verdict for check in checks] == [verdict]
    assert words in str(checks[0].measured)


@pytest.mark.parametrize(
    ("found", "verdict", "shown"),
    [(0.0050000004, Verdict.FAILED, "0.0050000004"), (0.0049999996, Verdict.PASSED, "0.0049999996"),
     (0.005, Verdict.PASSED, "0.005000")],
)  # fmt: skip
def test_a_figure_is_shown_apart_from_the_limit_it_is_held_against(
    found: float, verdict: Verdict, shown: str
) -> None:
    measured = EVALUATION.model_copy(update={"kl_mean": found})
    [check] = judge(Gates(kl_mean=0.005), measured, OK)
    assert check.verdict is verdict
    assert check.measured == shown


def test_a_share_is_shown_apart_from_the_one_asked_for() -> None:
    layer = EVALUATION.router_same[0].model_copy(update={"share": 0.98996})
    measured = EVALUATION.model_copy(update={"router_same": [layer]})
    [check] = judge(Gates(router_same=0.99), measured, OK)
    assert (check.verdict, check.asked) == (Verdict.FAILED, "at least 99 % of tokens")
    assert check.measured == f"98.996 % in layer {layer.layer}"
    [fine] = judge(Gates(router_same=0.9999), measured, OK)
    assert fine.asked == "at least 99.99 % of tokens"


def test_what_was_not_measured_neither_passes_nor_fails() -> None:
    every = Gates(kl_mean=1, slice_kl=1, router_same=0.1, verified=True)
    checks = judge(every, None, None)
    assert {check.verdict for check in checks} == {Verdict.NOT_MEASURED}
    assert verdict_of(checks) is Verdict.NOT_MEASURED
    broken = OK.model_copy(update={"ok": False})
    assert verdict_of(judge(every, None, broken)) is Verdict.FAILED
    assert verdict_of(judge(Gates(), EVALUATION, OK)) is None


@pytest.fixture
def gated(filled) -> Iterator[TestClient]:
    """The filled installation, its gates taken away again."""
    yield filled.client
    with session_for(filled.settings) as session:
        set_gates(session, Gates())


def test_gates_are_set_in_a_form_and_shown_on_the_checkpoints(gated, filled, html: dict) -> None:
    assert "none set" in gated.get("/checkpoints", headers=html).text
    form = {"kl_mean": "0.01", "slice_kl": "0.0031", "router_same": "", "verified": "true"}
    sent = gated.post("/gates", data=form, headers=html | {"sec-fetch-site": "same-origin"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/checkpoints")
    assert "failed" in gated.get("/checkpoints", headers=html).text
    page = gated.get(f"/checkpoints/{filled.seeded.jobs['succeeded']}", headers=html).text
    assert "at most 0.003100 nats a token" in page
    assert "in COBOL" in page
    assert 'value="0.0031"' in gated.get("/gates", headers=html).text
    files = gated.get(f"/checkpoints/{filled.seeded.jobs['succeeded']}").json()["files"]
    assert gated.get(files[0]["address"]).status_code == 200, "a gate keeps nobody out"


def test_what_is_no_gate_comes_back_with_a_sentence(gated, html: dict) -> None:
    for field, value in (("kl_mean", "much"), ("router_same", "1.5"), ("slice_kl", "-1")):
        sent = gated.post("/gates", data={field: value}, headers=html)
        assert sent.status_code == 422
        assert f"{field}: " in sent.text
        assert f'value="{value}"' in sent.text
    refused = gated.post("/gates", json={"colour": 3})
    assert refused.status_code == 422
    assert gated.get("/gates").json()["gates"]["kl_mean"] is None
