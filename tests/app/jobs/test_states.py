"""Which state may follow which."""

from __future__ import annotations

from itertools import product

from app.jobs.states import FINAL, FOLLOWS, HELD_BY_WORKER, STEPS, JobKind, JobState, may_follow


def test_every_state_says_what_may_follow_and_final_ones_say_nothing() -> None:
    assert set(FOLLOWS) == set(JobState)
    for state, following in product(FINAL, JobState):
        assert not may_follow(state, following)


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = set().union(*FOLLOWS.values())
    assert reached == set(JobState) - {JobState.QUEUED}


def test_a_job_is_called_cancelled_only_out_of_waiting_or_cancelling() -> None:
    before = {state for state in JobState if may_follow(state, JobState.CANCELLED)}
    assert before == {JobState.QUEUED, JobState.CANCELLING}


def test_whatever_a_worker_holds_can_be_lost() -> None:
    assert {state for state in JobState if may_follow(state, JobState.LOST)} == HELD_BY_WORKER


def test_every_kind_of_job_starts_by_building_its_set() -> None:
    assert {steps[0] for steps in STEPS.values()} == {STEPS[JobKind.BUILD][0]}
