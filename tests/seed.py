"""A filled installation, made by the product's own functions: a model, sets, jobs in every state,
artifacts as the engine writes them.

The engine itself needs minutes; its numbers are stood in for by seeded random ones of the same
shape, so that every page has what it shows.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
from sqlmodel import Session
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.base_models.models import BaseModelRecord
from app.base_models.service import add_model
from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.held_out import held_out_for
from app.calibration.models import CalibrationSet
from app.calibration.service import index_for, save_set
from app.calibration.spec import SetSpec, Slice
from app.calibration.views import starter
from app.coverage.profile import FACET_COLUMNS, Profile
from app.coverage.summary import experts_reached
from app.database import session_for, utc_now
from app.facets import Facet
from app.jobs import record, service
from app.jobs.events import (
    Event,
    LayerQuantized,
    MappingSearched,
    Notice,
    Progress,
    StepFinished,
    StepStarted,
)
from app.jobs.models import Job
from app.jobs.spec import (
    CheckpointFile,
    Evaluation,
    JobResult,
    LayerReport,
    ModuleReport,
    Verification,
)
from app.jobs.states import JobKind, JobState, Step
from app.quality.divergence import evaluation_of
from app.quality.evaluated_rows import EvaluatedRows
from app.recipes.schema import DEFAULT_PRESET
from app.settings import Settings
from app.sources.starter_corpus import load_rows

LAYERS, EXPERTS, TOP_K, HIDDEN, INTERMEDIATE, VOCABULARY = 6, 32, 4, 128, 64, 1200
SPECIAL_TOKENS = ["<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = """\
{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>
{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{% endfor %}"""


@dataclass(frozen=True)
class Seeded:
    """Ids of what was made: a job of each kind of ending, by state."""

    model_id: str
    set_id: str
    jobs: dict[str, str]


def seed(settings: Settings) -> Seeded:
    """Fill a migrated installation."""
    directory = write_model(settings.data_dir / "models" / "MiniMax-M2-demo")
    with session_for(settings) as session:
        model = add_model(session, directory)
        spec = starter(settings)
        saved = save_set(session, spec)
        save_set(session, small_spec())
        jobs = {
            "succeeded": succeeded_job(session, settings, saved, model),
            "failed": failed_job(session, settings, saved, model),
            "cancelled": cancelled_job(session, settings, saved, model),
            "lost": lost_job(session, settings, saved, model),
            "running": running_job(session, settings, saved, model),
            "queued": queued_job(session, settings, saved, model).id,
        }
        return Seeded(model_id=model.id, set_id=saved.id, jobs=jobs)


def small_spec() -> SetSpec:
    """A set of two slices, one of them narrow."""
    return SetSpec(
        name="Systems languages and German",
        slices=(
            Slice(
                name="Systems languages",
                weight=3,
                facets={Facet.PROGRAMMING_LANGUAGE: ("C", "C++", "Rust", "Zig")},
                balance=Facet.PROGRAMMING_LANGUAGE,
            ),
            Slice(name="German", weight=1, facets={Facet.SPOKEN_LANGUAGE: ("de",)}),
        ),
        token_budget=20_000,
        seed=7,
    )


# --- A model directory ---------------------------------------------------------------------------


def write_model(directory: Path, experts: int = EXPERTS) -> Path:
    """A MiniMax-M2 in miniature: configuration, tokenizer and safetensors of zeros. With no
    experts a dense one."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["MiniMaxM2ForCausalLM" if experts else "LlamaForCausalLM"],
        "model_type": "minimax_m2" if experts else "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "scoring_func": "sigmoid",
    }
    if experts:
        config |= {"num_local_experts": experts, "num_experts_per_tok": TOP_K}
    (directory / "config.json").write_text(json.dumps(config))
    _write_tokenizer(directory)
    _write_weights(directory / "model.safetensors", experts)
    return directory


def _write_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["text"] for row in load_rows()[::10]), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def _write_weights(file: Path, experts: int) -> None:
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        here = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{here}.self_attn.{name}.weight"] = (HIDDEN, HIDDEN)
        if experts:
            shapes[f"{here}.block_sparse_moe.gate.weight"] = (experts, HIDDEN)
            shapes[f"{here}.block_sparse_moe.e_score_correction_bias"] = (experts,)
        for expert in range(experts):
            names = {"w1": (INTERMEDIATE, HIDDEN), "w2": (HIDDEN, INTERMEDIATE)}
            for name, shape in (names | {"w3": (INTERMEDIATE, HIDDEN)}).items():
                shapes[f"{here}.block_sparse_moe.experts.{expert}.{name}.weight"] = shape
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(place))


# --- Jobs ----------------------------------------------------------------------------------------


def queued_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
) -> Job:
    """A job that waits; nothing is sent to a broker."""
    job = service.compose_job(
        session,
        settings,
        kind=JobKind.QUANTIZE,
        set_id=saved.id,
        model_id=model.id,
        recipe=recipe,
    )
    session.add(job)
    session.commit()
    return job


def _started_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
) -> Job:
    job = queued_job(session, settings, saved, model, recipe)
    now = utc_now()
    values = {"started_at": now - timedelta(seconds=65), "heartbeat_at": now, "event_at": now}
    # A worker elsewhere, so that no sweep on this machine asks the kernel for it.
    values |= {"worker_host": "seed/1", "worker_pid": 1, "worker_started": 1.0}
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED], **values)
    service.move(session, job.id, to=JobState.RUNNING, out_of=[JobState.STARTING])
    directory = settings.jobs_dir / job.id
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"2026-11-23 09:4{i % 10}:00 INFO layer {i} of {LAYERS}\n" for i in range(LAYERS)]
    (directory / "log.txt").write_text("".join(lines))
    return job


def _tell(session: Session, job: Job, *events: Event) -> None:
    known = len(service.list_events(session, job.id))
    for number, event in enumerate(events, start=known + 1):
        record.keep(session, job.id, number, event)


def running_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job in the middle of its third step."""
    job = _started_job(session, settings, saved, model)
    _tell(session, job, *_first_steps(session, settings, job), StepStarted(step=Step.QUANTIZE))
    for report in layer_reports()[:3]:
        _tell(session, job, LayerQuantized(**report.model_dump(), seconds=3.0))
    far = Progress(
        step=Step.QUANTIZE, done=3, total=LAYERS, unit="layers", layer=3, batch=117, batches=143,
        eta_seconds=30_000,
    )  # fmt: skip
    _tell(session, job, far)
    # Far in the future: nobody beats this job's heart while a test looks at it.
    job = service.get_job(session, job.id)
    job.heartbeat_at = utc_now() + timedelta(days=1)
    session.add(job)
    session.commit()
    return job.id


def failed_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job that failed in its second step."""
    job = _started_job(session, settings, saved, model)
    events = _first_steps(session, settings, job)
    _tell(session, job, *events[:2], StepStarted(step=Step.PROFILE))
    sentence = (
        "There is no room left on the disk of /data/jobs: free some space and retry. "
        "Nothing that was there before is lost."
    )
    _end(session, job, JobState.FAILED, failure=sentence)
    return job.id


def cancelled_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job somebody cancelled while it waited."""
    job = queued_job(session, settings, saved, model)
    service.cancel(session, job.id)
    return job.id


def lost_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job whose worker is gone."""
    job = _started_job(session, settings, saved, model)
    _end(session, job, JobState.LOST, failure=service.LOST)
    return job.id


def second_job(settings: Settings, seeded: Seeded, change: float = -0.4) -> str:
    """Another job that succeeded, on the same set and model with another recipe; its KL of COBOL
    differs by ``change``."""
    with session_for(settings) as session:
        return succeeded_job(
            session,
            settings,
            session.get_one(CalibrationSet, seeded.set_id),
            session.get_one(BaseModelRecord, seeded.model_id),
            recipe="experts-w4a16-g32-attn8",
            change=change,
        )


def succeeded_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
    change: float = 0.0,
) -> str:
    """A job that went through every step, with all it leaves behind."""
    job = _started_job(session, settings, saved, model, recipe)
    steps = _first_steps(session, settings, job)
    layers = layer_reports()
    _tell(session, job, *steps, StepStarted(step=Step.QUANTIZE))
    told = [LayerQuantized(**report.model_dump(), seconds=3.0) for report in layers]
    _tell(session, job, *searches(), *told, StepFinished(step=Step.QUANTIZE, seconds=19.4))
    rows = evaluated_rows(change)
    evaluation = evaluation_of_rows(rows)
    for step, figures in (
        (Step.EVALUATE, {"rows": evaluation.rows, "kl_mean": evaluation.kl_mean}),
        (Step.EXPORT, {"files": 3}),
        (Step.VERIFY, {"tensors": 620, "quantized": 576}),
    ):
        done = StepFinished(step=step, seconds=4.2, figures=figures)
        _tell(session, job, StepStarted(step=step), done)
    directory = settings.jobs_dir / job.id
    _write_json(directory / "layers.json", [one.model_dump() for one in layers])
    _write_json(directory / "modules.json", [one.model_dump() for one in module_reports(layers)])
    _write_json(directory / "evaluation.json", evaluation.model_dump())
    with (directory / "evaluation.npz").open("wb") as stream:
        rows.save(stream)
    reached, total = experts_reached(Profile.load(directory / "coverage.npz"))
    checkpoint = settings.checkpoints_dir / job.id
    built = _built(session, settings, job)
    files = _write_checkpoint(checkpoint)
    result = JobResult(
        set_id=built.id,
        set_rows=built.rows,
        set_tokens=built.tokens,
        experts_reached=reached,
        experts_total=total,
        layers=layers,
        evaluation=evaluation,
        verification=Verification(ok=True, tensors=620, quantized=576, problems=[]),
        checkpoint=checkpoint,
        files=files,
        bytes_before=12_345_678,
        bytes_after=sum(file.size_bytes for file in files),
        seconds=61.0,
        cpu_seconds=58.2,
    )
    record.add_result(session, job.id, result.model_dump(mode="json"))
    _end(session, job, JobState.SUCCEEDED)
    return job.id


def _end(session: Session, job: Job, state: JobState, **values: str) -> None:
    ended = {"finished_at": utc_now(), **values}
    service.move(session, job.id, to=state, out_of=[JobState.RUNNING], **ended)


def _built(session: Session, settings: Settings, job: Job) -> BuiltSet:
    """The job's set, really built; only once."""
    model = session.get_one(BaseModelRecord, job.model_id)
    return build_set(
        SetSpec.model_validate(session.get_one(CalibrationSet, job.set_id).spec),
        tokenizer_dir=Path(model.path),
        sets_dir=settings.sets_dir,
        index_dir=settings.index_dir,
    )


def _first_steps(session: Session, settings: Settings, job: Job) -> list[Event]:
    """Build a real set, write a coverage of it and of its held-out rows, and what the two steps
    say."""
    built = _built(session, settings, job)
    profile = profile_of(built)
    with (settings.jobs_dir / job.id / "coverage.npz").open("wb") as stream:
        profile.save(stream)
    spec = SetSpec.model_validate(session.get_one(CalibrationSet, job.set_id).spec)
    model = session.get_one(BaseModelRecord, job.model_id)
    index = index_for(settings, spec, Path(model.path))
    if held_out := held_out_for(spec, index):
        judged = build_set(
            held_out,
            tokenizer_dir=Path(model.path),
            sets_dir=settings.sets_dir,
            index_dir=settings.index_dir,
        )
        with (settings.jobs_dir / job.id / "coverage-held-out.npz").open("wb") as stream:
            profile_of(judged).save(stream)
    reached, total = experts_reached(profile)
    notices = [Notice(level="warning", message=s, step=Step.BUILD) for s in built.warnings[:2]]
    return [
        StepStarted(step=Step.BUILD),
        StepFinished(
            step=Step.BUILD, seconds=1.3, figures={"rows": built.rows, "tokens": built.tokens}
        ),
        *notices,
        StepStarted(step=Step.PROFILE),
        StepFinished(
            step=Step.PROFILE,
            seconds=6.1,
            figures={"experts_reached": reached, "experts_total": total},
        ),
    ]


# --- Artifacts -----------------------------------------------------------------------------------


def profile_of(built: BuiltSet, experts: int = EXPERTS, layers: int = LAYERS) -> Profile:
    """Routing counts in which every programming language prefers some experts."""
    random = np.random.default_rng(3)
    rows = built.table().to_pylist()
    tokens = np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
    taste: dict[str, np.ndarray] = {}
    counts = np.zeros((len(rows), layers, experts), dtype=np.uint32)
    for number, row in enumerate(rows):
        key = str(row["programming_language"] or row["spoken_language"])
        if key not in taste:
            taste[key] = random.dirichlet(np.full(experts, 0.35), size=layers)
        for layer in range(layers):
            counts[number, layer] = random.multinomial(tokens[number] * TOP_K, taste[key][layer])
    columns = {name: np.array([str(row.get(name) or "") for row in rows]) for name in FACET_COLUMNS}
    loads = counts.sum(axis=0, dtype=np.int64)
    together = loads[:, :, None] * loads[:, None, :] // loads.sum(axis=1)[:, None, None]
    together[:, range(experts), range(experts)] = loads
    return Profile(
        counts=counts,
        mass=counts.astype(np.float32) / TOP_K,
        layers=np.arange(layers, dtype=np.int64),
        row_ids=np.array([str(row["row_id"]) for row in rows]),
        tokens=tokens,
        top_k=TOP_K,
        facets=columns,
        together=together.astype(np.uint32),
        set_id=built.id,
    )


def layer_reports() -> list[LayerReport]:
    """Errors of six layers of 4-bit weights."""
    random = np.random.default_rng(4)
    errors = 0.0071 * (1 + 0.35 * random.random(LAYERS))
    return [
        LayerReport(
            layer=i,
            relative_mse=float(e),
            sqnr_db=float(-10 * np.log10(e)),
            output_relative_mse=float(e / 40),
            output_sqnr_db=float(-10 * np.log10(e / 40)),
            held_out_relative_mse=float(e / 36),
            held_out_sqnr_db=float(-10 * np.log10(e / 36)),
        )
        for i, e in enumerate(errors)
    ]


def module_reports(layers: list[LayerReport]) -> list[ModuleReport]:
    """Errors of every expert's three weights."""
    random = np.random.default_rng(5)
    reports = []
    for layer in layers:
        for expert in range(EXPERTS):
            for name in ("gate_proj", "up_proj", "down_proj"):
                error = layer.relative_mse * float(0.8 + 0.4 * random.random())
                module = f"model.layers.{layer.layer}.mlp.experts.{expert}.{name}"
                sqnr = float(-10 * np.log10(error))
                down = name == "down_proj"
                reports.append(
                    ModuleReport(
                        layer=layer.layer,
                        module=module,
                        relative_mse=error,
                        sqnr_db=sqnr,
                        rows=HIDDEN if down else INTERMEDIATE,
                        columns=INTERMEDIATE if down else HIDDEN,
                        signal=float(random.uniform(20, 60)),
                    )
                )
    return reports


def searches() -> list[MappingSearched]:
    """What AWQ's search said: a norm and an up projection of each layer."""
    random = np.random.default_rng(8)
    found = []
    for layer in range(LAYERS):
        for name, readers in (("post_attention_layernorm", 65), ("mlp.experts.3.up_proj", 1)):
            before = float(random.uniform(1e-5, 4e-5))
            found.append(
                MappingSearched(
                    layer=layer,
                    smooth_layer=f"model.layers.{layer}.{name}",
                    balance_layers=readers,
                    initial_error=before,
                    best_error=before * float(random.uniform(0.6, 0.95)),
                )
            )
    return found


def evaluated_rows(change: float = 0.0) -> EvaluatedRows:
    """Held-out rows with a mean KL of 0.003041 nats a token. ``change`` is what their KL changes
    by as a share in COBOL alone: other rows stay what they were but for noise."""
    random = np.random.default_rng(6)
    rows = 140
    languages = random.choice(
        ["en", "de", "ja", "ar", "he"], size=rows, p=[0.4, 0.2, 0.2, 0.1, 0.1]
    )
    code = random.choice(["Python", "Rust", "COBOL", "Haskell", ""], size=rows)
    domains = random.choice(["code", "law", "medical", "tool-use"], size=rows)
    found = EvaluatedRows.empty(
        "held-out",
        [hashlib.sha256(str(at).encode()).hexdigest()[:16] for at in range(rows)],
        {
            "spoken_language": list(languages),
            "programming_language": list(code),
            "domain": list(domains),
        },
        list(range(LAYERS)),
    )
    found.tokens[:] = random.integers(40, 256, size=rows)
    found.routed[:] = found.tokens + 1
    kl = found.tokens * 0.003 * random.lognormal(0, 0.6, size=rows)
    found.kl[:] = kl * (0.003041 * found.tokens.sum() / kl.sum())
    found.loss_base[:] = found.tokens * random.normal(3.72, 0.2, size=rows)
    found.loss[:] = found.loss_base + found.tokens * random.normal(0.003, 0.002, size=rows)
    found.same_top[:] = random.binomial(found.tokens, 0.97)
    for layer in range(LAYERS):
        found.router_same[:, layer] = random.binomial(found.routed, 1 - 0.021 * layer)
        found.router_kl[:, layer] = found.routed * 0.0004 * layer
    if change:
        found.kl[:] *= np.where(code == "COBOL", 1 + change, 1) * random.normal(1, 0.2, size=rows)
    return found


def evaluation_of_rows(rows: EvaluatedRows) -> Evaluation:
    """The figures of seeded rows, the mean without its last bits."""
    found = evaluation_of(rows)
    return found.model_copy(update={"kl_mean": round(found.kl_mean, 12)})


def _write_json(file: Path, document: object) -> None:
    file.write_text(json.dumps(document))


def _write_checkpoint(directory: Path) -> list[CheckpointFile]:
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "config.json": b'{"model_type": "minimax_m2"}\n',
        "model.safetensors": np.random.default_rng(1).bytes(4_200_000),
        "tokenizer.json": b"{}\n" * 400,
    }
    files = []
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(CheckpointFile(name=name, size_bytes=len(content), sha256=digest))
    return files
