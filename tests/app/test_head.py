"""HEAD answers as GET does, without the body."""

from __future__ import annotations

import pytest

from tests.app.conftest import Filled


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gates", 200),
        ("/healthz", 200),
        ("/sets?format=csv", 200),
        ("/jobs/{job}/report.html", 200),
        ("/jobs/{job}/log.txt", 200),
        ("/checkpoints/{job}/SHA256SUMS", 200),
        ("/checkpoints/{job}/files/model.safetensors", 200),
        ("/no-such-page", 404),
        ("/jobs/{job}/cancel", 405),
    ],
)
def test_it_tells_what_get_would_send(filled: Filled, path: str, status: int) -> None:
    address = path.format(job=filled.seeded.jobs["succeeded"])
    head, whole = filled.client.head(address), filled.client.get(address)
    assert (head.status_code, head.content) == (status, b"")
    assert whole.status_code == status
    assert dict(head.headers) == dict(whole.headers)


def test_a_range_is_of_get_alone(filled: Filled) -> None:
    file = f"/checkpoints/{filled.seeded.jobs['succeeded']}/files/model.safetensors"
    head = filled.client.head(file, headers={"range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (200, "4200000")


def test_a_stream_of_events_has_no_head(filled: Filled) -> None:
    address = f"/jobs/{filled.seeded.jobs['succeeded']}/events"
    assert filled.client.head(address).status_code == 405
