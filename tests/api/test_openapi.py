"""No request breaks the server, whatever it carries: schemathesis makes them from the schema.

Its strategies are used directly: its pytest plugin does not work with pytest 9.2.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from app.database import migrate
from app.main import create_app
from app.settings import Settings
from tests.seed import seed as fill

EXAMPLES = 10
NO_BROKER = 503  # There is none here, and that is said (tests/integration).
ADDRESS = "http://127.0.0.1"
# A stream that stays open; tests/browser/test_live.py reads it.
STREAMS = {"/jobs/{job_id}/events"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir: Path = tmp_path_factory.mktemp("api")
    made = Settings(data_dir=data_dir, assets="local")
    migrate(made)
    return made


@pytest.fixture(scope="module")
def known(installation: Settings) -> dict[str, str]:
    """Ids that exist, by the name of the path parameter that takes them."""
    filled = fill(installation)
    job = filled.jobs["succeeded"]
    return {
        "job_id": job,
        "checkpoint_id": job,
        "set_id": filled.set_id,
        "model_id": filled.model_id,
        "name": "permissive",
    }


@pytest.fixture(scope="module")
def schema(installation: Settings) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(installation), headers={"host": "127.0.0.1"}
    )


def test_no_request_breaks_the_server(
    schema: schemathesis.BaseSchema, known: dict[str, str]
) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 20
    for operation in operations:
        if operation.path not in STREAMS:
            hold(operation, known)


def hold(operation: schemathesis.APIOperation, known: dict[str, str]) -> None:
    """Send one operation what it says it takes, to ids that exist and to others."""

    @seed(0)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), exists=st.booleans())
    def answers(case: schemathesis.Case, exists: bool) -> None:
        if exists:
            case.path_parameters.update(
                {name: known[name] for name in case.path_parameters if name in known}
            )
        headers = {"host": "127.0.0.1", "accept": "application/json"}
        response = case.call(base_url=ADDRESS, headers=headers)
        if response.status_code != NO_BROKER:
            case.validate_response(response, checks=[not_a_server_error])

    answers()


def test_every_page_is_described(schema: schemathesis.BaseSchema) -> None:
    paths = {found.ok().path for found in schema.get_all_operations()}
    assert paths >= {
        "/", "/sets", "/sets/{set_id}", "/models", "/models/{model_id}", "/jobs", "/jobs/{job_id}",
        "/jobs/{job_id}/coverage", "/jobs/{job_id}/errors", "/jobs/{job_id}/log", "/checkpoints",
        "/checkpoints/{checkpoint_id}", "/sources",
    }  # fmt: skip
