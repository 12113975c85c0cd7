"""What the engine leaves behind, stood in for by seeded random numbers of the same shape."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from app.calibration.built_set import BuiltSet
from app.coverage.profile import FACET_COLUMNS, Profile
from app.jobs.events import (
    MappingSearched,
)
from app.jobs.spec import (
    CheckpointFile,
    Evaluation,
    LayerReport,
    ModuleReport,
)
from app.quality.divergence import evaluation_of
from app.quality.evaluated_rows import EvaluatedRows
from tests.seeded_model import EXPERTS, HIDDEN, INTERMEDIATE, LAYERS, TOP_K


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


def write_json(file: Path, document: object) -> None:
    file.write_text(json.dumps(document))


def write_checkpoint(directory: Path) -> list[CheckpointFile]:
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
