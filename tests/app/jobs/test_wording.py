from __future__ import annotations

from app.jobs.events import Progress
from app.jobs.states import Step
from app.jobs.wording import detail_of, in_words


def test_what_belongs_together_is_said_together() -> None:
    assert in_words({"experts_reached": 190, "experts_total": 192, "tokens": 59_550}) == [
        "59,550 tokens",
        "190 of 192 experts reached",
    ]
    assert in_words({"bytes_before": 12_256_896, "bytes_after": 5_624_312, "files": 8}) == [
        "8 files",
        "5.62 MB, was 12.3 MB",
    ]


def test_a_half_is_shown_under_its_own_name() -> None:
    assert in_words({"kl_mean": 0.003}) == ["kl mean 0.003000"]


def test_an_unknown_figure_is_not_lost() -> None:
    assert in_words({"new_thing": True, "ok": True}) == ["new thing yes"]


def test_nothing_is_said_of_nothing() -> None:
    assert in_words({}) == []


def test_a_source_that_is_fetched_is_named() -> None:
    far = Progress(step=Step.BUILD, done=1, total=3, unit="sources", source="talks", read=1536)
    assert detail_of(far) == "talks: 1,536 rows read"
    far = far.model_copy(update={"source": "x" * 80})
    assert len(detail_of(far) or "") <= 80  # as long as the job's column is
