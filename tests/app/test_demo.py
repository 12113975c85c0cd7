"""What the demo says at its end."""

from __future__ import annotations

from app.demo import lines
from app.jobs.models import Job
from app.jobs.spec import Evaluation, JobResult, Verification
from app.jobs.states import JobKind, JobState


def job(state: JobState, **values: object) -> Job:
    return Job(id="j", kind=JobKind.QUANTIZE, state=state, name="n", set_id="s", model_id="m",
               spec={}, **values)  # fmt: skip


def test_a_failed_job_says_why_and_where_to_look() -> None:
    said = lines("http://127.0.0.1:1", job(JobState.FAILED, failure="The disk is full."))
    assert said[0] == "The job is failed: The disk is full."
    assert "http://127.0.0.1:1/jobs/j" in said[1]


def test_a_finished_job_says_its_figures() -> None:
    evaluation = Evaluation(
        rows=7, tokens=70, kl_mean=0.0042, kl_low=0.004, kl_high=0.005, perplexity_base=40.0,
        perplexity=40.1, slices=[], router_same=[],
    )  # fmt: skip
    result = JobResult(
        set_rows=1234, set_tokens=56789, experts_reached=190, experts_total=192,
        evaluation=evaluation, bytes_before=12_260_000, bytes_after=5_620_000,
        verification=Verification(ok=True, tensors=639, quantized=576, problems=[]),
    )  # fmt: skip
    document = result.model_dump(mode="json")
    text = "\n".join(lines("http://h", job(JobState.SUCCEEDED, result=document)))
    for part in ("190 of 192", "0.00420 nats", "12.26 MB before, 5.62 MB after", "verified",
                 "http://h/jobs/j/coverage", "http://h/jobs/j/errors",
                 "http://h/checkpoints/j"):  # fmt: skip
        assert part in text
