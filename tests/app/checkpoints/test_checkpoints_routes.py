from __future__ import annotations

import hashlib
import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.checkpoints.models import Checkpoint
from app.checkpoints.service import get_checkpoint
from app.database import session_for
from app.jobs.models import Job
from app.settings import Settings
from tests.seed import seed


@pytest.fixture
def address(filled) -> str:
    return f"/checkpoints/{filled.seeded.jobs['succeeded']}"


def test_an_empty_list_offers_the_way_to_one(client: TestClient, html: dict) -> None:
    assert "Start a job from a set" in client.get("/checkpoints", headers=html).text


def test_the_page_has_files_verdict_and_commands(filled, html: dict, address: str) -> None:
    page = filled.client.get(address, headers=html).text
    for word in (
        "verified",
        "model.safetensors",
        "vllm serve",
        "sglang",
        "sha256sum -c",
        "34 %",
        "hf upload YOUR-NAME/",
    ):
        assert word in page


def test_what_verification_could_not_check_is_on_the_page(
    client: TestClient, settings: Settings, html: dict
) -> None:
    checkpoint_id = seed(settings).jobs["succeeded"]
    assert "Not checked." not in client.get(f"/checkpoints/{checkpoint_id}", headers=html).text
    said = "Loading it: transformers cannot, because the experts get zero points."
    with session_for(settings) as session:
        checkpoint = get_checkpoint(session, checkpoint_id)
        checkpoint.verification = {**checkpoint.verification, "unchecked": [said]}
        session.add(checkpoint)
        session.commit()
    page = client.get(f"/checkpoints/{checkpoint_id}", headers=html).text
    assert f"Not checked. {said}" in page


def test_json_and_csv_agree(filled, address: str) -> None:
    view = filled.client.get(address).json()
    lines = filled.client.get(f"{address}?format=csv").text.splitlines()
    assert len(lines) == 1 + len(view["files"])
    assert filled.client.get("/checkpoints?format=csv").text.count("\n") == 2


def test_a_long_list_is_paged_and_its_csv_is_whole(
    client: TestClient, settings: Settings, html: dict
) -> None:
    seeded = seed(settings)
    with session_for(settings) as session:
        first = get_checkpoint(session, seeded.jobs["succeeded"])
        job = session.get(Job, first.job_id)
        for number in range(30):
            later = first.created_at + timedelta(minutes=number + 1)
            again = Job(**job.model_dump() | {"id": f"again{number}"})
            one = first.model_dump() | {"id": again.id, "job_id": again.id, "created_at": later}
            session.add(again)
            session.flush()
            session.add(Checkpoint(**one))
        session.commit()
    view = client.get("/checkpoints").json()
    assert (view["total"], view["page"], view["pages"]) == (31, 1, 2)
    assert [row["id"] for row in view["checkpoints"]] == [f"again{n}" for n in range(29, 4, -1)]
    last = client.get("/checkpoints?page=99").json()
    assert last["page"] == 2
    assert [row["id"] for row in last["checkpoints"]] == [
        *(f"again{n}" for n in range(4, -1, -1)), seeded.jobs["succeeded"]
    ]  # fmt: skip
    assert last["checkpoints"][0]["kl_mean"] == view["checkpoints"][0]["kl_mean"] is not None
    page = client.get("/checkpoints", headers=html).text
    assert page.count('name="jobs"') == 25
    assert '<a href="?page=2" rel="next">' in re.sub(r"\s+", " ", page)
    assert client.get("/checkpoints?format=csv").text.count("\n") == 32
    assert client.get("/checkpoints?page=0").status_code == 422


def test_a_downloaded_file_has_the_hash_that_is_shown(filled, address: str) -> None:
    for file in filled.client.get(address).json()["files"]:
        content = filled.client.get(file["address"]).content
        assert len(content) == file["size_bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]


def test_the_sums_are_what_sha256sum_reads(filled, address: str) -> None:
    sums = filled.client.get(f"{address}/SHA256SUMS").text
    path = filled.client.get(address).json()["path"]
    checked = subprocess.run(
        ["sha256sum", "-c"], input=sums, cwd=Path(path), text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_a_broken_download_goes_on(filled, address: str) -> None:
    file = f"{address}/files/model.safetensors"
    whole = filled.client.get(file)
    headers = {"range": "bytes=1000000-", "if-range": whole.headers["etag"]}
    rest = filled.client.get(file, headers=headers)
    assert rest.status_code == 206
    assert rest.content == whole.content[1_000_000:]
    changed = filled.client.get(file, headers=headers | {"if-range": '"another"'})
    assert changed.status_code == 200


def test_head_tells_the_size(filled, address: str) -> None:
    head = filled.client.head(f"{address}/files/model.safetensors")
    assert head.status_code == 200
    assert head.headers["content-length"] == "4200000"
    assert head.content == b""


def test_a_copy_that_is_still_the_same_is_not_sent_again(filled, address: str) -> None:
    file = f"{address}/files/config.json"
    etag = filled.client.get(file).headers["etag"]
    same = filled.client.get(file, headers={"if-none-match": f'W/"old", {etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    other = filled.client.get(file, headers={"if-none-match": '"another"'})
    assert other.status_code == 200


def test_a_download_is_not_compressed_on_the_way(filled, address: str) -> None:
    answer = filled.client.get(
        f"{address}/files/model.safetensors", headers={"accept-encoding": "gzip"}
    )
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-length"] == "4200000"


@pytest.mark.parametrize(
    "name", ["nothing", "../spec.json", "..%2f..%2fcalibrant.sqlite3", "%2fetc%2fpasswd"]
)
def test_no_other_file_is_served(filled, address: str, name: str) -> None:
    assert filled.client.get(f"{address}/files/{name}").status_code == 404


def test_an_unknown_checkpoint(client: TestClient, html: dict) -> None:
    assert client.get("/checkpoints/none", headers=html).status_code == 404
    assert client.get("/checkpoints/none/SHA256SUMS").status_code == 404
