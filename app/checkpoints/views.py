"""What the pages about checkpoints show."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models.service import get_model, summary_of
from app.checkpoints import service
from app.checkpoints.model_card import COVERAGE_PICTURE
from app.checkpoints.models import Checkpoint
from app.checkpoints.serving import serve_commands, served_name
from app.jobs.service import get_job
from app.jobs.spec import CheckpointFile, Evaluation, JobResult, Verification
from app.paging import page_within
from app.quality.gates import Check, Gates, Verdict, judge, verdict_of
from app.quality.service import get_gates

CARD = "README.md"
PAGE_ROWS = 25


class CheckpointRow(BaseModel):
    """One checkpoint in a list. ``ratio`` is its size over that of the model it is made from,
    ``kl_mean`` is in nats a token, ``gates`` None where no gate is set."""

    id: str
    name: str
    recipe: str | None
    job_id: str
    is_verified: bool
    problems: int
    files: int
    bytes_before: int
    bytes_after: int
    ratio: float | None
    created_at: datetime
    kl_mean: float | None
    gates: Verdict | None


class CheckpointListView(BaseModel):
    """A page of the checkpoints, the newest first."""

    checkpoints: list[CheckpointRow]
    gates: Gates
    total: int
    page: int
    pages: int


class FileView(CheckpointFile):
    """One file and the address it is downloaded from."""

    address: str


class Commands(BaseModel):
    """What to type where the checkpoint goes; ``read_from`` are the pages that the parsers of
    tool calls and reasoning come from, or, without any, that list them."""

    download: str
    card: str
    check: str
    publish: str
    vllm: str
    sglang: str
    has_parsers: bool
    read_from: list[str]


class CheckpointView(BaseModel):
    """One checkpoint: is it whole, how good is it, how is it fetched and served."""

    checkpoint: CheckpointRow
    path: str
    model_id: str
    set_id: str
    files: list[FileView]
    verification: Verification
    evaluation: Evaluation | None
    checks: list[Check]
    commands: Commands
    has_picture: bool
    base_is_gone: bool
    base_path: str


def checkpoint_list(session: Session, page: int, size: int = PAGE_ROWS) -> CheckpointListView:
    """A page of the checkpoints; a page past the last is the last."""
    total = service.count_checkpoints(session)
    page, pages = page_within(total, page, size)
    return CheckpointListView(
        checkpoints=checkpoint_rows(session, limit=size, offset=(page - 1) * size),
        gates=get_gates(session),
        total=total,
        page=page,
        pages=pages,
    )


def checkpoint_rows(
    session: Session, limit: int | None = None, offset: int = 0
) -> list[CheckpointRow]:
    """Checkpoints as their list has them; all of them without a ``limit``."""
    gates = get_gates(session)
    return [
        checkpoint_row(one.checkpoint, one.recipe, gates, one.evaluation)
        for one in service.list_checkpoints(session, limit=limit, offset=offset)
    ]


def checkpoint_view(session: Session, checkpoint_id: str, base: str) -> CheckpointView:
    """One checkpoint, with commands for the server at ``base``. Raises NotFound."""
    checkpoint = service.get_checkpoint(session, checkpoint_id)
    job = get_job(session, checkpoint.job_id)
    result = JobResult.model_validate(job.result) if job.result else JobResult()
    gates = get_gates(session)
    model = get_model(session, job.model_id)
    verification = Verification.model_validate(checkpoint.verification)
    return CheckpointView(
        checkpoint=checkpoint_row(checkpoint, job.recipe, gates, result.evaluation),
        path=checkpoint.path,
        model_id=job.model_id,
        set_id=job.set_id,
        files=[_file(checkpoint, document) for document in checkpoint.files],
        verification=verification,
        evaluation=result.evaluation,
        checks=judge(gates, result.evaluation, verification),
        commands=_commands(checkpoint, base, summary_of(model).architecture),
        has_picture=bool(result.experts_total),
        base_is_gone=not (Path(model.path) / "config.json").is_file(),
        base_path=model.path,
    )


def checkpoint_row(
    checkpoint: Checkpoint, recipe: str | None, gates: Gates, evaluation: Evaluation | None
) -> CheckpointRow:
    """A checkpoint as lists show it, held against the gates."""
    verification = Verification.model_validate(checkpoint.verification)
    before, after = checkpoint.bytes_before, checkpoint.bytes_after
    return CheckpointRow(
        id=checkpoint.id,
        name=checkpoint.name,
        recipe=recipe,
        job_id=checkpoint.job_id,
        is_verified=verification.ok,
        problems=len(verification.problems),
        files=len(checkpoint.files),
        bytes_before=before,
        bytes_after=after,
        ratio=after / before if before else None,
        created_at=checkpoint.created_at,
        kl_mean=evaluation.kl_mean if evaluation else None,
        gates=verdict_of(judge(gates, evaluation, verification)),
    )


def checksums(checkpoint: Checkpoint) -> str:
    """The files' SHA-256 as ``sha256sum -c`` reads them."""
    files = [CheckpointFile.model_validate(document) for document in checkpoint.files]
    return "".join(f"{file.sha256}  {file.name}\n" for file in files)


def _file(checkpoint: Checkpoint, document: dict[str, object]) -> FileView:
    file = CheckpointFile.model_validate(document)
    address = f"/checkpoints/{checkpoint.id}/files/{quote(file.name)}"
    return FileView(**file.model_dump(), address=address)


def _commands(checkpoint: Checkpoint, base: str, architecture: str) -> Commands:
    here = f"{base}/checkpoints/{checkpoint.id}"
    names = ",".join(sorted(quote(str(document["name"])) for document in checkpoint.files))
    serving = serve_commands(architecture, checkpoint.path, checkpoint.name)
    return Commands(
        download=f"curl -fL --remote-name-all --create-dirs '{here}/files/{{{names}}}'",
        card=f"curl -fL --remote-name-all '{here}/{{{CARD},{COVERAGE_PICTURE}}}'",
        check=f"curl -fsS '{here}/SHA256SUMS' | sha256sum -c",
        publish=f"hf upload YOUR-NAME/{served_name(checkpoint.name)} .",
        vllm=serving.vllm,
        sglang=serving.sglang,
        has_parsers=serving.has_parsers,
        read_from=list(serving.read_from),
    )
