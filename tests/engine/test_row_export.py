"""Exported rows as llmcompressor and datasets read them, with no preparation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from llmcompressor.args import DatasetArguments
from llmcompressor.datasets.utils import format_calibration_data, get_processed_dataset
from transformers import AutoTokenizer

from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.spec import SetSpec, Slice
from app.set_files.rows import write_rows
from app.settings import ROOT
from workers.engine.rows.calibration_rows import ModelLimits, read_rows

MODEL = ROOT / "demo" / "model"
SPEC = SetSpec(name="t", slices=(Slice(name="a", rows=5),), max_length=96, sources=("permissive",))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltSet:
    place = tmp_path_factory.mktemp("built")
    return build_set(SPEC, tokenizer_dir=MODEL, sets_dir=place / "sets")


def test_parquet_is_taken_as_it_is(built: BuiltSet, tmp_path: Path) -> None:
    place = tmp_path / "rows.parquet"
    write_rows(built, "parquet", place, tmp_path)
    data = load_dataset(
        "parquet", data_files=str(place), split="train", cache_dir=str(tmp_path / "cache")
    )
    arguments = DatasetArguments(dataset=data, num_calibration_samples=5, max_seq_length=96)
    processor = AutoTokenizer.from_pretrained(MODEL)
    dataset = get_processed_dataset(arguments, processor)
    batches = list(format_calibration_data(arguments, dataset, processor))
    assert {key for batch in batches for key in batch} == {"input_ids", "attention_mask"}
    fed = sorted(tuple(batch["input_ids"][0].tolist()) for batch in batches)
    assert fed == sorted(map(tuple, built.table(["input_ids"])["input_ids"].to_pylist()))


def test_jsonl_is_read_by_datasets_by_stock_and_by_our_engine(
    built: BuiltSet, tmp_path: Path
) -> None:
    place = tmp_path / "rows.jsonl"
    write_rows(built, "jsonl", place, tmp_path)
    data = load_dataset(
        "json", data_files=str(place), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert data[0]["messages"][1]["role"] == "assistant"
    processor = AutoTokenizer.from_pretrained(MODEL)
    arguments = DatasetArguments(dataset=data, num_calibration_samples=5, max_seq_length=96)
    dataset = get_processed_dataset(arguments, processor)
    assert dataset.num_rows == built.rows
    assert len(dataset[0]["input_ids"]) > 0
    texts = [json.loads(line)["text"] for line in place.read_text(encoding="utf-8").splitlines()]
    rows = read_rows(place, processor, ModelLimits(vocabulary=len(processor), positions=2048))
    assert len(rows.rows) == len(texts)
