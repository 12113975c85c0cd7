"""The API keeps what its schema says, whatever it is asked (schemathesis)."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from app.database import migrate
from app.main import create_app
from app.settings import Settings


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    data_dir: Path = tmp_path_factory.mktemp("api")
    installation = Settings(data_dir=data_dir, assets="local")
    migrate(installation)
    return schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(installation), headers={"host": "127.0.0.1"}
    )


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case: schemathesis.Case) -> None:
    headers = {"host": "127.0.0.1", "accept": "application/json"}
    response = case.call(headers=headers, base_url="http://127.0.0.1")
    case.validate_response(response, checks=[not_a_server_error])
