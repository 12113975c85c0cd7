"""What the tests of sets share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where lengths of rows are kept for as long as the tests run: each pack of the corpus is then
    tokenized once for the tests' model. An index is named by all it depends on."""
    return tmp_path_factory.mktemp("index")
